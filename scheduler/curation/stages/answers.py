"""Stage 2: several models answer each question, the answer reward picks the best, and the best share of records passes.

The models are candidates of ordinary tasks, and the judge of those tasks is the answer reward. A record's score is the
mean over its turns of the winner's score; a turn that nobody could judge (one model answered alone) counts for nothing.
The winners become the record's answers; winner and last of each turn become a preference pair.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from db.curation_records import Dropped, Scored, select_top
from db.errors import UsageError
from scheduler.curation.found import with_new_answers
from scheduler.curation.options import StageOptions
from scheduler.curation.prompting import PROMPTS, check_prompt
from scheduler.curation.stages.asking import Ask, Asking, failed
from scheduler.curation.turns import captions_of, turns_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from db.curation_records import Record
    from db.curation_tasks import Outcome
    from scheduler.curation.run import Run
    from scheduler.curation.turns import Turn


class AnswersOptions(StageOptions):
    """`models`: who answers, by default the capability's best; `judge`: a judge of the registry, the answer reward."""

    keep: float = Field(0.3, gt=0, le=1, description="share that passes: beta")
    capability: str = "text-generation"
    models: tuple[str, ...] = ()
    candidates: int | None = Field(None, ge=1, le=16, description="models per turn, where models names none")
    judge: str | None = None
    params: dict[str, Any] = Field({}, description="handed to the models: max_new_tokens ...")
    prompt: str = "answer-1"
    per_type: bool = False


class Answers(Asking[AnswersOptions]):
    """Best of n, per turn."""

    Options = AnswersOptions

    def prepare(self) -> None:
        """Raise `UsageError` for a prompt that is no file, or one model alone."""
        check_prompt(self.options.prompt, "answers.prompt")
        if len(set(self.options.models)) == 1:
            raise UsageError(
                f"answers.models = {list(self.options.models)!r}: a best answer needs two models or more to be chosen "
                "from; name another one."
            )

    def asks(self, record: Record) -> list[Ask]:
        """A task per turn, which all models answer."""
        turns = turns_of(record.data, self.names)
        said: dict[str, Any] = {
            "models": list(self.options.models),
            "candidates": self.options.candidates,
            "judge": self.options.judge,
            "params": self.options.params,
        }
        options = {key: value for key, value in said.items() if value}
        captions = captions_of(record.data, self.names)
        return [
            Ask(
                turn=turn,
                request=PROMPTS.render(self.options.prompt, captions=captions, before=turns[:turn], question=one.asked),
                capability=self.options.capability,
                options=options,
            )
            for turn, one in enumerate(turns)
        ]

    def settle(self, record: Record, outcomes: Sequence[Outcome]) -> Scored | Dropped:
        """The winners, their mean score, and a pair per turn that was judged."""
        answers: list[str] = []
        scores: list[float] = []
        pairs: list[dict[str, Any]] = []
        for turn, outcome in zip(turns_of(record.data, self.names), outcomes, strict=True):
            winner = outcome.winner
            if winner is None or not winner.text.strip():
                return failed(record, outcome, "answer")
            answers.append(winner.text.strip())
            if winner.score is not None:
                scores.append(winner.score)
                pairs += pairs_of(turn, outcome)
        if not scores:
            return Dropped(
                position=record.position,
                rule="not_judged",
                reason="No turn has two answers to choose from: nothing says how good they are.",
            )
        found = {**with_new_answers(self.number, answers), f"pairs_{self.name}": pairs}
        return Scored(position=record.position, score=sum(scores) / len(scores), found=found)

    def close(self, run: Run) -> None:
        """The best pass."""
        with run.changing() as connection:
            select_top(
                connection, run.job.id, self.number, self.name, self.options.keep, per_type=self.options.per_type
            )


def pairs_of(turn: Turn, outcome: Outcome) -> list[dict[str, Any]]:
    """The best and the worst answer to a question, where the judge tells them apart."""
    best, worst = outcome.said[0], outcome.said[-1]
    if worst.score is None or best.score is None or best.score <= worst.score or best.text == worst.text:
        return []
    return [
        {
            "prompt": turn.asked,
            "chosen": best.text.strip(),
            "rejected": worst.text.strip(),
            "chosen_model": best.model,
            "rejected_model": worst.model,
            "chosen_score": best.score,
            "rejected_score": worst.score,
        }
    ]
