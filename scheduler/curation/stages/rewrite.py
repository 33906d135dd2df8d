"""Stage 3, first half: the inner language model rewrites each answer, and rules say whether the rewrite may be shown.

A rewrite that breaks a rule is put aside with the reason; the answer stays as it was. Nothing is dropped here, nothing
is replaced either: which of the two is better, `review` decides.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pydantic import Field

from db.curation_records import Dropped, Scored
from scheduler.curation.claims import fault_of
from scheduler.curation.found import answers_of
from scheduler.curation.options import StageOptions
from scheduler.curation.prompting import PROMPTS, check_prompt
from scheduler.curation.stages.asking import Ask, Asking
from scheduler.curation.stages.validate import NOISE
from scheduler.curation.turns import captions_of, turns_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from db.curation_records import Record
    from db.curation_tasks import Outcome

_TAGS = re.compile(r"</?\s*answer\s*>", re.IGNORECASE)  # of the prompt: small models say them after it


class RewriteOptions(StageOptions):
    """`models`: the inner model, one; `new_words`: share of a rewrite's content words that nobody said before."""

    capability: str = "text-generation"
    models: tuple[str, ...] = Field((), max_length=1)
    params: dict[str, Any] = Field({}, description="handed to the models: max_new_tokens ...")
    prompt: str = "rewrite-1"
    captions: bool = Field(default=False, description="show them to the inner model; small ones repeat them")
    noise: tuple[str, ...] = Field(NOISE, description="texts that a rewrite may not have where the original has none")
    new_words: float = Field(0.2, ge=0, le=1)
    length: tuple[float, float] = (0.5, 2.0)


class Rewrite(Asking[RewriteOptions]):
    """Asks for a rewrite of every answer."""

    Options = RewriteOptions

    def prepare(self) -> None:
        """Raise `UsageError` for a prompt that is no file."""
        check_prompt(self.options.prompt, "rewrite.prompt")

    def asks(self, record: Record) -> list[Ask]:
        """A task per turn."""
        said: dict[str, Any] = {
            "models": list(self.options.models),
            "candidates": 1,
            "params": self.options.params,
        }
        captions = captions_of(record.data, self.names) if self.options.captions else []
        turns = turns_of(record.data, self.names)
        return [
            Ask(
                turn=turn,
                request=PROMPTS.render(self.options.prompt, captions=captions, question=one.asked, answer=answer),
                capability=self.options.capability,
                options={key: value for key, value in said.items() if value},
            )
            for turn, (one, answer) in enumerate(zip(turns, answers_of(record, self.names, self.number), strict=True))
        ]

    def settle(self, record: Record, outcomes: Sequence[Outcome]) -> Scored | Dropped:
        """The rewrites that hold to the original, None for the others, and why."""
        rewrites: list[str | None] = []
        faults: list[str | None] = []
        captions = captions_of(record.data, self.names)
        turns = turns_of(record.data, self.names)
        for one, answer, outcome in zip(turns, answers_of(record, self.names, self.number), outcomes, strict=True):
            winner = outcome.winner
            text = "" if winner is None else _TAGS.sub("", winner.text).strip()
            fault = fault_of(
                answer,
                text,
                [one.asked, *captions],
                new_words=self.options.new_words,
                length=self.options.length,
                noise=self.options.noise,
            )
            if fault is None and text == answer:
                fault = "It is the original."
            rewrites.append(None if fault else text)
            faults.append(fault)
        return Scored(position=record.position, found={"rewrites": rewrites, "rewrite_faults": faults})
