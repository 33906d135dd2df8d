"""Stage 1: the question reward of every record, and the best share of each type passes, so that the mix is kept.

A record's score is the mean over its turns of what the reward model says of the question.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from db.curation_records import Dropped, Scored, select_top
from scheduler.curation.options import StageOptions
from scheduler.curation.stages.asking import Ask, Asking, failed, of_one
from scheduler.curation.stages.scores import number_of
from scheduler.curation.turns import turns_of
from worker.reward.text import QUESTION_REWARD, rendered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from db.curation_records import Record
    from db.curation_tasks import Outcome
    from scheduler.curation.run import Run


class QuestionsOptions(StageOptions):
    """`models`: the reward model, by default the capability's first."""

    keep: float = Field(0.3, gt=0, le=1, description="share of each type that passes: alpha")
    capability: str = QUESTION_REWARD
    models: tuple[str, ...] = ()
    per_type: bool = True


class Questions(Asking[QuestionsOptions]):
    """Ranks records by how good their questions are."""

    Options = QuestionsOptions

    def asks(self, record: Record) -> list[Ask]:
        """One scoring task per turn."""
        options = of_one(self.options.models)
        return [
            Ask(turn=turn, request=rendered("", one.question), capability=self.options.capability, options=options)
            for turn, one in enumerate(turns_of(record.data, self.names))
        ]

    def settle(self, record: Record, outcomes: Sequence[Outcome]) -> Scored | Dropped:
        """The mean of the scores."""
        scores = [number_of(outcome) for outcome in outcomes]
        for outcome, score in zip(outcomes, scores, strict=True):
            if score is None:
                return failed(record, outcome, "question score")
        return Scored(position=record.position, score=sum(one for one in scores if one is not None) / len(scores))

    def close(self, run: Run) -> None:
        """The best of each type pass."""
        with run.changing() as connection:
            select_top(
                connection, run.job.id, self.number, self.name, self.options.keep, per_type=self.options.per_type
            )
