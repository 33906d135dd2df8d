"""Stages that go through the records page by page, and those of them that look at each record alone."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from db.curation_records import Dropped, count_at, page_of, pass_page
from db.schema.curation import Step
from scheduler.curation.stages import O, Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from db.curation_records import Record
    from scheduler.curation.run import Run


class Paged(Stage[O]):
    """Takes records page by page, each page in one transaction."""

    size: ClassVar[int] = 1000  # records of a page

    @abstractmethod
    def decide(self, run: Run, page: Sequence[Record]) -> None:
        """Let the records of a page pass or drop them, in one transaction."""

    def prepare(self, run: Run) -> None:
        """Read what the stage compares records with. Raises `UsageError`."""

    def run(self, run: Run) -> None:
        """Take every record that stands before the stage through it."""
        self.names = run.recipe.input
        self.prepare(run)
        with run.reading() as connection:
            total = sum(count_at(connection, run.job.id, self.number).values())
        done = 0
        while True:
            with run.reading() as connection:
                page = page_of(connection, run.job.id, self.number, Step.NEW, self.size)
            if not page:
                return
            self.decide(run, page)
            done += len(page)
            run.progress(self.name, done, total)


class Alone(Paged[O]):
    """Lets a record pass or drops it by what it says itself."""

    @abstractmethod
    def fault(self, record: Record) -> tuple[str, str] | None:
        """Why the record is dropped: a rule's name and a sentence; None where it passes."""

    def decide(self, run: Run, page: Sequence[Record]) -> None:
        """Drop those that have a fault."""
        found = [(record.position, self.fault(record)) for record in page]
        dropped = [Dropped(position=place, rule=why[0], reason=why[1]) for place, why in found if why is not None]
        with run.changing() as connection:
            pass_page(connection, run.job.id, self.number, page, dropped)
