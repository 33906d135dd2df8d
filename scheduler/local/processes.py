"""Child processes that never outlive the process that started them, and their log files.

The kernel signals a child when its parent dies (PR_SET_PDEATHSIG), to be exact when the *thread* that started
it ends, so only children started by the main thread get it. Where the kernel cannot do that, what is left over
is found at the next start by process id and start time.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from db.instance import ProcessRef

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

LOG_LIMIT = 10 * 1024 * 1024  # bytes per log file; as much again is kept of what was before
_TAIL = 4096


@dataclass(frozen=True, kw_only=True)
class RunAs:
    """How a program is started: as which user, or behind which command."""

    user: int | None = None
    prefix: tuple[str, ...] = ()

    @property
    def group(self) -> int | None:
        """The group of the same number: `nobody` and `nogroup`."""
        return self.user

    @property
    def extra_groups(self) -> list[int] | None:
        """None of root's other groups."""
        return None if self.user is None else []


MYSELF = RunAs()


def death_signal(number: signal.Signals) -> Callable[[], None] | None:
    """What a child does between fork and exec so that it is signalled when this process dies."""
    if _LIBC is None or threading.current_thread() is not threading.main_thread():
        return None
    parent = os.getpid()
    libc = _LIBC

    def ask_the_kernel() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != parent:  # it died before the kernel was asked
            os._exit(1)

    return ask_the_kernel


def spawn(
    command: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str],
    on_parent_death: signal.Signals = signal.SIGTERM,
    run_as: RunAs = MYSELF,
    folder: str | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process of its own session, with its output appended to a log file."""
    rotate(log)
    with open_log(log) as output:
        return subprocess.Popen(  # noqa: S603  (our own commands)
            [*run_as.prefix, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(env),
            cwd=folder,
            user=run_as.user,
            group=run_as.group,
            extra_groups=run_as.extra_groups,
            start_new_session=True,  # a Ctrl-C in the terminal reaches the supervisor only
            preexec_fn=death_signal(on_parent_death),  # noqa: PLW1509  (takes no lock, imports nothing)
        )


@contextlib.contextmanager
def open_log(path: Path) -> Iterator[int]:
    """Open a log file for appending, readable by its owner only."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        yield handle
    finally:
        os.close(handle)


def rotate(log: Path, limit: int = LOG_LIMIT) -> bool:
    """Move a log file's text to NAME.1 and empty it when it has grown past the limit.

    It is copied and cut, not renamed: the writers have it open for appending and go on at the new end.
    """
    try:
        if log.stat().st_size <= limit:
            return False
        old = log.with_name(f"{log.name}.1")
        shutil.copyfile(log, old)
        old.chmod(0o600)
        os.truncate(log, 0)
    except FileNotFoundError:
        return False
    return True


def last_lines(log: Path, count: int = 1) -> str:
    """The last lines of a log file that say anything; empty when there are none."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-count:])


def end_process(process: subprocess.Popen[bytes], steps: Sequence[tuple[signal.Signals, float]]) -> int:
    """Send each signal in turn and wait so many seconds for the end; returns the exit code."""
    for number, grace in steps:
        if process.poll() is not None:
            break
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    return process.wait()


def end_group(pid: int) -> None:
    """Kill whatever is left of the session that `spawn` made for this child."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def end_leftover(ref: ProcessRef, steps: Sequence[tuple[signal.Signals, float]]) -> bool:
    """End a process that an earlier run started; returns whether there was one to end."""
    process = ref.process()
    if process is None:
        return False
    for number, grace in steps:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
        deadline = time.monotonic() + grace
        while time.monotonic() < deadline:
            if not ref.alive():
                return True
            time.sleep(0.02)
    return True
