"""IFD: how much each question helps a language model to write its answer; where it misleads, the record goes.

A record's score is the mean over its turns of loss(answer | question) / loss(answer). Above `most` it is dropped; of
the rest the best `keep` pass, by default all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from db.curation_records import Dropped, Scored, select_top
from scheduler.curation.found import answers_of
from scheduler.curation.options import StageOptions
from scheduler.curation.stages.asking import Ask, Asking, failed, of_one
from scheduler.curation.stages.scores import number_of
from scheduler.curation.turns import turns_of
from worker.reward.text import rendered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from db.curation_records import Record
    from db.curation_tasks import Outcome
    from scheduler.curation.run import Run


class IFDOptions(StageOptions):
    """`keep`: share of the records that are not dropped for being above `most`; hard ones (high ratios) first."""

    capability: str = "text-classification/ifd"
    models: tuple[str, ...] = Field((), max_length=1)
    most: float = Field(1.0, gt=0)
    keep: float = Field(1.0, gt=0, le=1)


class IFD(Asking[IFDOptions]):
    """Asks a language model that reads."""

    Options = IFDOptions

    def asks(self, record: Record) -> list[Ask]:
        """A task per turn."""
        turns = turns_of(record.data, self.names)
        return [
            Ask(
                turn=turn,
                request=rendered(one.asked, answer),
                capability=self.options.capability,
                options=of_one(self.options.models),
            )
            for turn, (one, answer) in enumerate(zip(turns, answers_of(record, self.names, self.number), strict=True))
        ]

    def settle(self, record: Record, outcomes: Sequence[Outcome]) -> Scored | Dropped:
        """The mean ratio, unless it is too high."""
        scores = [number_of(outcome) for outcome in outcomes]
        for outcome, score in zip(outcomes, scores, strict=True):
            if score is None:
                return failed(record, outcome, "ratio")
        mean = sum(one for one in scores if one is not None) / len(scores)
        if mean > self.options.most:
            reason = (
                f"The answer is {mean:.3f} times as hard to write with the question; {self.options.most:g} is the most."
            )
            return Dropped(position=record.position, rule="ifd", reason=reason)
        return Scored(position=record.position, score=mean)

    def close(self, run: Run) -> None:
        """All pass, or the best share."""
        with run.changing() as connection:
            select_top(connection, run.job.id, self.number, self.name, self.options.keep, per_type=False)
