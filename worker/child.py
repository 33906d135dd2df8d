"""What a worker's child does before anything else, so that it outlives nobody and dies before the database does."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path

from billiard.process import current_process
from celery.signals import worker_process_shutdown

_PR_SET_PDEATHSIG = 1
OOM_SCORE = 500  # of 1000: the kernel, short of memory, ends a model rather than Postgres
_LOOK = 0.5  # seconds


def settle_in() -> None:
    """Die with the parent, be the first to go where memory is short, and leave SIGTERM to the parent."""
    _die_with(current_process()._parent_pid)  # noqa: SLF001 - the only place that knows who started it
    with contextlib.suppress(OSError):  # no Linux, or not allowed
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))
    # systemd and process groups send SIGTERM to everybody; whether the batch may finish is the parent's decision.
    # Ignored, not handled: billiard puts its own handler, which ends the batch, over any other.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@worker_process_shutdown.connect(weak=False)  # type: ignore[untyped-decorator] # celery has no types
def _listen_again(**_: object) -> None:
    """At its end the child waits for the parent's SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _die_with(parent: int | None) -> None:
    """Be killed when the parent ends, also in the middle of a call that holds the interpreter's lock.

    The kernel watches the thread that started this process: it is the parent's main thread, which runs Celery's loop
    and lives as long as the parent. Elsewhere a thread watches, which such a call stops.
    """
    if parent is None:  # nobody's child
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    else:
        threading.Thread(target=_watch, args=(parent,), name="parent", daemon=True).start()
    if os.getppid() != parent:  # it ended before the kernel was asked
        os._exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os.kill(os.getpid(), signal.SIGKILL)
