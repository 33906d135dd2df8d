"""Exact duplicates: of records with the same image and the same turns the first one stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from db.curation_records import drop_exact
from scheduler.curation.options import StageOptions
from scheduler.curation.stages import Stage

if TYPE_CHECKING:
    from scheduler.curation.run import Run


class Exact(Stage[StageOptions]):
    """One statement over the whole job."""

    def run(self, run: Run) -> None:
        """Keep the first of each key."""
        with run.changing() as connection:
            drop_exact(connection, run.job.id, self.number)
