"""Stage 3, second half: the inner language model reviews original against rewrite, in both orders.

A review is a task whose two candidates are the texts themselves (backend `given`), and whose judge compares in pairs.
The rewrite replaces the original only where it wins; a judge that changes its mind with the order leaves a tie, and the
original stays.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pydantic import Field

from db.curation_records import Dropped, Scored
from scheduler.curation.found import answers_of, with_new_answers
from scheduler.curation.options import StageOptions
from scheduler.curation.prompting import PROMPTS, check_prompt
from scheduler.curation.stages.answers import pairs_of
from scheduler.curation.stages.asking import Ask, Asking
from scheduler.curation.turns import captions_of, turns_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from db.curation_records import Record
    from db.curation_tasks import Outcome

TEXTS = "texts"  # the option in which `worker.backends.given` finds what to say
LONGEST = 16_000  # bytes of both texts as JSON: options of a task are bounded; longer ones stay as they are


class ReviewOptions(StageOptions):
    """`original` and `rewrite`: models of backend `given`; `judge`: who compares, by default the capability's."""

    capability: str = "text-generation/review"
    original: str = "given-original"
    rewrite: str = "given-rewrite"
    judge: str | None = None
    prompt: str = Field("answer-1", description="how the question is put to the judge")


class Review(Asking[ReviewOptions]):
    """Lets the better of two texts stand."""

    Options = ReviewOptions

    def prepare(self) -> None:
        """Raise `UsageError` for a prompt that is no file."""
        check_prompt(self.options.prompt, "review.prompt")

    def asks(self, record: Record) -> list[Ask]:
        """A task per turn that has a rewrite."""
        turns = turns_of(record.data, self.names)
        captions = captions_of(record.data, self.names)
        return [
            Ask(
                turn=turn,
                request=PROMPTS.render(
                    self.options.prompt, captions=captions, before=turns[:turn], question=turns[turn].asked
                ),
                capability=self.options.capability,
                options={
                    "models": [self.options.original, self.options.rewrite],
                    "params": {TEXTS: {self.options.original: answer, self.options.rewrite: rewrite}},
                    **({"judge": self.options.judge} if self.options.judge else {}),
                },
            )
            for turn, answer, rewrite in self._reviewed(record)
        ]

    def _reviewed(self, record: Record) -> list[tuple[int, str, str]]:
        both = zip(answers_of(record, self.names, self.number), record.found.get("rewrites", ()), strict=False)
        return [
            (turn, answer, rewrite)
            for turn, (answer, rewrite) in enumerate(both)
            if rewrite is not None and len(json.dumps([answer, rewrite])) <= LONGEST
        ]

    def settle(self, record: Record, outcomes: Sequence[Outcome]) -> Scored | Dropped:
        """The answers as the reviews leave them."""
        final = list(answers_of(record, self.names, self.number))
        turns = turns_of(record.data, self.names)
        verdicts: dict[str, str] = {}
        pairs = []
        for (turn, _, rewrite), outcome in zip(self._reviewed(record), outcomes, strict=True):
            scores = {one.model: one.score for one in outcome.said}
            ours, theirs = scores.get(self.options.rewrite), scores.get(self.options.original)
            if ours is None or theirs is None:
                verdicts[str(turn)] = "not judged"
                continue
            verdicts[str(turn)] = "rewrite" if ours > theirs else "original" if ours < theirs else "tie"
            if ours > theirs:
                final[turn] = rewrite
            pairs += pairs_of(turns[turn], outcome)
        found = {**with_new_answers(self.number, final), "reviews": verdicts, f"pairs_{self.name}": pairs}
        return Scored(position=record.position, found=found)
