"""What a running `bakeoff up` leaves in its home folder for everybody else to find: `up.json`.

Commands started beside it read the addresses here, so nobody copies a password. The supervisor writes the
file (`scheduler/local/instance.py`); this side only reads, and never trusts a process id without its start time:
ids are used again, after a reboot at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from db.errors import RefusedNow

if TYPE_CHECKING:
    from pathlib import Path

FILE_NAME = "up.json"

_CLOCK_SLACK = 2.0  # seconds; the kernel's boot time, which start times are derived from, moves with the clock


class ProcessRef(BaseModel):
    """One process, and no other that gets the same id later."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    pid: int
    start_time: float  # seconds since 1970, as psutil gives it

    @classmethod
    def of(cls, pid: int) -> ProcessRef:
        """Reference to a process that lives now. Raises `psutil.NoSuchProcess`."""
        return cls(pid=pid, start_time=psutil.Process(pid).create_time())

    def process(self) -> psutil.Process | None:
        """The process, or None when it ended; one that only waits to be reaped has ended."""
        try:
            found = psutil.Process(self.pid)
            same = abs(found.create_time() - self.start_time) <= _CLOCK_SLACK
            return found if same and found.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None

    def alive(self) -> bool:
        """Whether this very process still runs."""
        return self.process() is not None


class ChildRef(ProcessRef):
    """A process that the supervisor started."""

    name: str


class Instance(BaseModel):
    """The state of one `bakeoff up`. The addresses carry passwords, so they stay out of `repr`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    supervisor: ProcessRef
    profile: str = ""
    models_file: str = ""  # the registry it read, absolute
    blob_url: str = ""  # where attachments are, if not in the home folder
    database_url: str = Field(repr=False)
    redis_url: str = Field(repr=False)
    api_url: str | None = None
    flower_url: str | None = None
    flower_user: str | None = None
    flower_password: str | None = Field(default=None, repr=False)
    children: tuple[ChildRef, ...] = ()


def read_instance(home: Path) -> Instance | None:
    """What the last `up` of this home wrote; None when there is nothing. It may be dead: ask `running`."""
    path = home / FILE_NAME
    try:
        return Instance.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None
    except PermissionError:
        raise RefusedNow(f"{path} belongs to another user; set BAKEOFF_HOME to a folder of your own.") from None


def running(instance: Instance) -> bool:
    """Whether the supervisor that wrote this state still runs."""
    return instance.supervisor.alive()
