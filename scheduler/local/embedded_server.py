"""The embedded servers of one machine, owned by us from the first start to the last stop.

They come as programs inside Python packages, so nothing has to be installed or configured. They listen on
127.0.0.1 only, on TCP only (so the folder's path may be long or have spaces), behind a generated password, and
die with the process that started them.
"""

from __future__ import annotations

import os
import signal
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import psutil
from pydantic import ValidationError

from db.errors import BakeoffError, RefusedNow
from db.instance import ProcessRef
from scheduler.local import files
from scheduler.local.processes import RunAs, end_leftover, end_process, last_lines, spawn
from scheduler.local.run_as import choose, server_env

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Sequence
    from pathlib import Path

HOST = "127.0.0.1"

_TRIES = 20


class EmbeddedServer(ABC):
    """A server on a folder of its own, and the rules that all of them keep.

    Start it from the main thread: the kernel ties a child to the thread that started it.
    """

    name: ClassVar[str]
    on_parent_death: ClassVar[signal.Signals]
    stop_steps: ClassVar[Sequence[tuple[signal.Signals, float]]]
    start_timeout: ClassVar[float] = 120.0  # seconds; recovery after a crash is part of it

    def __init__(self, folder: Path, port: int | None = None, *, durable: bool = True) -> None:
        """`port` None: a free one, remembered in the folder. `durable` False: quicker, for tests only."""
        self.folder = folder.absolute()
        self.port = port
        self.durable = durable
        self.give_up: Callable[[], bool] = lambda: False  # asked while a start takes long
        self._port_is_known = port is not None  # to others, who hold the address
        self._lock: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._user: RunAs | None = None

    @property
    def log(self) -> Path:
        """Where the server writes what it does."""
        return self.folder / f"{self.name}.log"

    @property
    def process(self) -> ProcessRef | None:
        """The running process."""
        return ProcessRef.of(self._process.pid) if self._process and self._process.poll() is None else None

    @property
    @abstractmethod
    def url(self) -> str:
        """Address with the password in it."""

    @abstractmethod
    def program(self) -> Path:
        """The program inside its package."""

    @abstractmethod
    def prepare(self, user: RunAs) -> None:
        """Make the data folder ready for a start."""

    @abstractmethod
    def command(self, port: int) -> list[str]:
        """Command line; never a secret in it, every user of the machine can read it."""

    @abstractmethod
    def answers(self, pid: int) -> bool:
        """Whether the process takes connections."""

    def password(self) -> str:
        """Generated once, kept in the folder."""
        return files.stored_secret(self.folder / "password")

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> str:
        """Start, wait until it answers, return the address; does nothing when it runs. Raises `BakeoffError`."""
        if self.alive():
            return self.url
        files.make_folder(self.folder)
        self._take_lock()
        try:
            self._end_leftover()
            self._user = self._user or self.choose_user()
            self.prepare(self._user)
            self._launch(self._user)
            self.after_start()
        except BaseException:
            self.stop()
            raise
        return self.url

    def stop(self, *, at_once: bool = False) -> None:
        """Stop it and let go of the folder; the data stays. `at_once` leaves the next start more to recover."""
        if self._process is not None:
            end_process(self._process, self.stop_steps[1:] if at_once else self.stop_steps)
            self._process = None
            self._pid_file.unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def stop_leftover(self) -> bool:
        """Stop a server on this folder that lost its parent; returns whether there was one."""
        self._take_lock()
        try:
            return self._end_leftover()
        finally:
            self.stop()

    def kill(self) -> None:
        """Stop it at once, as a crash would."""
        if self._process is not None:
            end_process(self._process, [(signal.SIGKILL, 10)])

    def choose_user(self) -> RunAs:
        """As whom it runs."""
        return choose(self.folder, self.program())

    @abstractmethod
    def after_start(self) -> None:
        """What is left to do once it answers."""

    def still_closing(self) -> bool:
        """Whether the start failed only because parts of a killed server are about to end."""
        return False

    def leftover(self) -> ProcessRef | None:
        """The server that an earlier, killed run left on this folder."""
        try:
            return ProcessRef.model_validate_json(self._pid_file.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    @property
    def _pid_file(self) -> Path:
        return self.folder / "process.json"

    def _take_lock(self) -> None:
        if self._lock is None:
            self._lock = files.try_lock(self.folder / "lock")
        if self._lock is None:
            raise RefusedNow(
                f"Another process runs the {self.name} server of {self.folder}; stop it with `bakeoff down`, "
                "or use another BAKEOFF_HOME."
            )

    def _end_leftover(self) -> bool:
        """Nobody else holds the lock, so a server on this folder has lost its parent."""
        found = self.leftover()
        ended = found is not None and end_leftover(found, [*self.stop_steps, (signal.SIGKILL, 5.0)])
        self._pid_file.unlink(missing_ok=True)
        return ended

    def _launch(self, user: RunAs) -> None:
        for _ in range(_TRIES):
            port = self.port = self._port_to_use()
            self._process = spawn(
                self.command(port),
                log=self.log,
                env=server_env(),
                on_parent_death=self.on_parent_death,
                run_as=user,
                folder="/",
            )
            if self._wait_until_it_answers(self._process):
                self._port_is_known = True
                return
            if self.still_closing():
                time.sleep(0.5)
            elif files.port_is_free(port):  # so the port was not the reason
                break
            elif not self._port_is_known:
                self.port = None
        raise BakeoffError(
            f"The {self.name} server does not start. The end of its log, {self.log}:\n{last_lines(self.log, 5)}"
        )

    def _port_to_use(self) -> int:
        """A remembered or free one at first; the same one over restarts."""
        if self.port is None:
            return files.remembered_port(self.folder / "port")
        if not files.port_is_free(self.port):
            raise RefusedNow(f"Port {self.port}, which the {self.name} server should listen on, is taken.")
        return self.port

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> bool:
        try:
            ref = ProcessRef.of(process.pid)
        except psutil.NoSuchProcess:
            return False
        files.write_private(self._pid_file, ref.model_dump_json())
        deadline = time.monotonic() + self.start_timeout
        while time.monotonic() < deadline:
            if process.poll() is not None:
                return False
            if self.answers(process.pid):
                return True
            if self.give_up():
                break
            time.sleep(0.01)
        end_process(process, [*self.stop_steps, (signal.SIGKILL, 5.0)])
        return False
