"""Stages that look at each record alone, page by page."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from db.curation_records import Dropped, count_at, page_of, pass_page
from db.schema.curation import Step
from scheduler.curation.stages import O, Stage

if TYPE_CHECKING:
    from db.curation_records import Record
    from scheduler.curation.run import Run

PAGE = 1000


class Alone(Stage[O]):
    """Lets a record pass or drops it by what it says itself."""

    @abstractmethod
    def fault(self, record: Record) -> tuple[str, str] | None:
        """Why the record is dropped: a rule's name and a sentence; None where it passes."""

    def prepare(self, run: Run) -> None:
        """Read what the stage compares records with. Raises `UsageError`."""

    def run(self, run: Run) -> None:
        """Take every record that stands before the stage through it."""
        self.prepare(run)
        with run.reading() as connection:
            total = sum(count_at(connection, run.job.id, self.number).values())
        done = 0
        while True:
            with run.reading() as connection:
                page = page_of(connection, run.job.id, self.number, Step.NEW, PAGE)
            if not page:
                return
            found = [(record.position, self.fault(record)) for record in page]
            dropped = [Dropped(position=place, rule=why[0], reason=why[1]) for place, why in found if why is not None]
            with run.changing() as connection:
                pass_page(connection, run.job.id, self.number, page, dropped)
            done += len(page)
            run.progress(self.name, done, total)
