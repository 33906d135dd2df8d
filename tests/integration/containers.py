"""A container of `docker/compose.yaml` without Docker: the same command, user, environment, secrets and file system rights.

In mount and host-name namespaces of its own the whole file system is read-only but for the volumes and an empty /tmp; the
process is user 10001 without capabilities and cannot gain any. What Docker does besides (its own network, limits of memory)
is not imitated, and the code is this checkout's instead of an image's. Needs root.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.engine import make_url

from tests.compose import CHECKOUT, DOCKER, SERVICES
from tests.conftest import wait_until

UNSHARE = ("unshare", "--mount", "--uts")
DROPPED = (
    *("setpriv", "--reuid", "10001", "--regid", "10001", "--clear-groups"),
    *("--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"),
)

#: Folders that the container finds empty: others may not look into them, or leave things there.
HIDDEN = ("/root", "/home", "/tmp")  # noqa: S108
UNDER_HIDDEN = tuple(f"{folder}/" for folder in HIDDEN)

#: $1 host name, $2 folder with secrets/ home/ cache/, $3 places under the hidden ones that stay; the rest is the command.
ENTER = """
set -e
hostname "$1"; stage=$2; places=$3; shift 3
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir /mnt/stage; mount --bind "$stage" /mnt/stage
number=0; for place in $places; do
    number=$((number + 1)); mkdir /mnt/$number; mount --bind "$place" /mnt/$number
done
for folder in /run /var/lib /var/cache; do mount -t tmpfs -o mode=755 tmpfs $folder; done
mkdir /run/secrets /var/lib/bakeoff /var/cache/bakeoff
mount --bind /mnt/stage/secrets /run/secrets
mount --bind /mnt/stage/home/ /var/lib/bakeoff
mount --bind /mnt/stage/cache/ /var/cache/bakeoff
for folder in /root /home; do mount -t tmpfs -o mode=755 tmpfs $folder; done
mount -t tmpfs -o mode=1777 tmpfs /tmp
number=0; for place in $places; do
    number=$((number + 1)); (umask 022; mkdir -p "$place"); mount --bind /mnt/$number "$place"
done
umount --recursive /mnt
awk '{print $2, $3}' /proc/self/mounts | while read -r place kind; do
    case "$kind:$place" in
        proc:*|sysfs:*|devpts:*|mqueue:*|cgroup*) ;;
        *:/dev*|*:/proc/*|*:/sys/*|*:/tmp|*:/var/lib/bakeoff|*:/var/cache/bakeoff) ;;
        *) mount -o remount,bind,ro "$place" 2>/dev/null || true ;;
    esac
done
cd /tmp
exec "$@"
"""


def needed() -> list[Path]:
    """This checkout and its Python."""
    return [*dict.fromkeys(Path(place).resolve() for place in (CHECKOUT, sys.prefix, sys.base_prefix))]


def places() -> str:
    """What of that lies in folders that are hidden."""
    return " ".join(str(place) for place in needed() if str(place).startswith(UNDER_HIDDEN))


def why_not() -> str | None:
    """Why containers cannot be imitated here, or None."""
    if os.geteuid() != 0:
        return "containers are imitated by root only"
    if not all(shutil.which(program) for program in ("unshare", "nsenter", "setpriv", "awk")):
        return "this machine has no unshare, nsenter, setpriv or awk"
    for place in needed():
        closed = [folder for folder in place.parents if not folder.stat().st_mode & 0o001]
        if closed and not str(place).startswith(UNDER_HIDDEN):
            return f"others may not reach {place}: {closed[0]} is closed to them"
    done = subprocess.run([*UNSHARE, "mount", "--make-rprivate", "/"], capture_output=True, text=True, check=False)
    return f"this machine lets nobody mount ({done.stderr.strip()})" if done.returncode else None


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def image_environment() -> dict[str, str]:
    """What the Dockerfile sets for the CPU image."""
    lines = re.sub(r"\\\n\s*", " ", (DOCKER / "Dockerfile").read_text()).splitlines()
    pairs = [word for line in lines if line.startswith("ENV ") for word in shlex.split(line[4:])]
    return dict(pair.split("=", 1) for pair in pairs) | {"BAKEOFF_DEVICE": "cpu"}


@dataclass
class Host:
    """Where containers run: the servers, the secrets, the volumes."""

    folder: Path
    database_url: str
    redis_url: str
    cache: Path | None = None  # weights that are there already
    environment: Mapping[str, str] = field(default_factory=dict)
    running: dict[str, Container] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("secrets", "home", "cache"):
            (self.folder / name).mkdir()
        os.chown(self.folder / "home", 10001, 10001)  # as a volume takes over the owner of the image's folder
        self._secrets = {
            "postgres_password": str(make_url(self.database_url).password),
            "redis_password": str(make_url(self.redis_url).password),
            "flower_password": "see-the-flowers",
            "api_first_key": f"bakeoff_{os.urandom(16).hex()}_{os.urandom(22).hex()[:43]}",
        }

    @property
    def api_key(self) -> str:
        return self._secrets["api_first_key"]

    def start(self, service: str, **variables: str) -> Container:
        """Start what `docker compose up SERVICE` would."""
        stage = self.folder / service
        stage.mkdir()
        (stage / "home").symlink_to(self.folder / "home")
        (stage / "cache").symlink_to(self.cache or self.folder / "cache")
        (stage / "secrets").mkdir()
        for secret in SERVICES[service]["secrets"]:
            (stage / "secrets" / secret["target"]).write_text(self._secrets[secret["source"]] + "\n")
        self.running[service] = Container(self, service, stage, variables)
        return self.running[service]

    def address(self, text: str) -> str:
        """An address of the compose file, at the servers of this test."""
        database, broker = make_url(self.database_url), make_url(self.redis_url)
        text = text.replace("@postgres:5432/bakeoff", f"@{database.host}:{database.port}/{database.database}")
        return text.replace("//redis:6379/0", f"//{broker.host}:{broker.port}/{broker.database}")

    def close(self) -> None:
        for container in self.running.values():
            container.process.kill()
            container.process.wait(30)


class Container:
    """One service while it runs."""

    def __init__(self, host: Host, service: str, stage: Path, variables: Mapping[str, str]) -> None:
        self._service = SERVICES[service]
        published = [entry.rpartition(":")[2] for entry in self._service.get("ports", ())]
        self._ports = {port: str(free_port()) for port in published}
        self.log = host.folder / f"{service}.log"
        given = {name: host.address(str(value)) for name, value in self._service["environment"].items()}
        self._environment = {
            **image_environment(),
            **given,
            **host.environment,
            **variables,
            "PATH": f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin",
            "PYTHONPATH": str(CHECKOUT),
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(*UNSHARE, "sh", "-c", ENTER, "sh", service, stage, places()),
                    *(*DROPPED, *self._words(self._service["command"])),
                ],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def port(self) -> int:
        """Where its published port is."""
        (port,) = self._ports.values()
        return int(port)

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the container, as `docker compose exec` does."""
        return subprocess.run(
            ["nsenter", "--target", str(self.process.pid), "--mount", "--uts", *DROPPED, *self._words(command)],
            env=self._environment,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def wait_healthy(self, timeout: float = 120) -> None:
        """Until its health check says so; fails where it has ended."""
        check = self._service["healthcheck"]["test"][1:]
        said = "nothing yet"

        def healthy() -> bool:
            nonlocal said
            assert self.process.poll() is None, f"it ended with {self.process.returncode}\n{self.log.read_text()}"
            done = self.inside(*check)
            said = done.stderr
            return done.returncode == 0

        wait_until(healthy, timeout, lambda: f"{said}\n{self.log.read_text()[-4000:]}")

    def finish(self, timeout: float = 120) -> int:
        """Wait for a job's end; returns its exit code."""
        return self.process.wait(timeout)

    def stop(self) -> int:
        """SIGTERM, and its grace: returns the exit code, fails where it takes longer."""
        self.process.terminate()
        return self.process.wait(float(self._service["stop_grace_period"].removesuffix("s")))

    def _words(self, command: list[str] | tuple[str, ...]) -> list[str]:
        """A command of the image, with the paths and ports of this test."""
        places = {"/opt/bakeoff/health.py": str(DOCKER / "health.py"), **self._ports}
        words = [places.get(word, word) for word in command]
        # This environment's script may not be installed, or be another checkout's.
        program = {"bakeoff": [sys.executable, "-m", "scheduler.cli"], "python": [sys.executable]}
        return [*program[words[0]], *words[1:]] if words[0] in program else words
