"""One process that runs one job: its lease, its transactions, its tasks, how far it is."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from db.curation import hold
from db.engine import transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from uuid import UUID

    from sqlalchemy import Connection, Engine

    from db.curation import Job
    from db.settings import Settings
    from scheduler.curation.recipe import Recipe

    #: the stage, how much of it is done, of how much
    Progress = Callable[[str, int, int], None]

SECONDS = "seconds"  # in a job's counts, by stage; in nothing that is exported
ASKED = "asked"  # in a job's counts: models and judges of its tasks, which may be pruned before it is exported


def silent(*_: Any) -> None:
    """A progress that nobody wants to see."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What stages work with. `token` is the lease that every `changing` transaction checks and renews."""

    settings: Settings
    engine: Engine
    job: Job
    recipe: Recipe
    token: UUID
    progress: Progress = silent
    notes: dict[str, Any] = field(default_factory=dict)  # what stages say beside their records; stored with the job

    @contextmanager
    def changing(self) -> Iterator[Connection]:
        """A transaction that may change the job's rows. Raises `LeaseLost` where another process has the job now."""
        with transaction(self.engine) as connection:
            hold(connection, self.job.id, self.token, self.settings.lease_seconds)
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that reads."""
        with transaction(self.engine) as connection:
            yield connection
