"""A jury that asks the language model only where its cheap jurors are not sure.

What costs nothing is weighed first, by weights that foretell the full jury. If the chance that its favourite is best
reaches the threshold, that is the verdict; else the language model is asked and the full jury decides. The threshold is
fitted with the weights, on groups held out of them: the lowest that keeps what the jury scores while it asks about less
than half of the questions. Where the fit leaves the language model unheard, it is never asked.
Without an artifact it asks wherever the prior's favourite leads by little.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import Field

from worker.judges.artifact import PRIOR_THRESHOLD
from worker.judges.jury import Jury, JuryParams, certainty
from worker.judges.prompting import needed_model
from worker.params import checked_params

if TYPE_CHECKING:
    from db.registry import JudgeEntry
    from worker.backends import LanguageModel
    from worker.judges import Decision, Question


class CascadeParams(JuryParams):
    """`params` of a `cascade`: those of a jury, and a `threshold` of confidence that overrides the fitted one."""

    threshold: float | None = Field(None, ge=0, le=1)


class Cascade(Jury):
    """Ranks by cheap features where they are sure, by everything where they are not."""

    def __init__(self, entry: JudgeEntry, language_model: LanguageModel | None) -> None:
        super().__init__(entry, language_model)
        needed_model(entry, language_model)

    def _checked(self, entry: JudgeEntry) -> CascadeParams:
        return checked_params(entry, CascadeParams)

    def decide(self, question: Question) -> Decision:
        """Rank the answers. Raises what the language model raises."""
        heard = self.hear(question)
        cheap = self.weigh(heard.question, self.look(question), asked=False)
        threshold = self.threshold(question.capability)
        sure = certainty(heard.question, cheap.scores)
        same = len(heard.texts) <= 1
        if same or sure >= threshold:
            said = f"{cheap.reason} No language model was asked: it is {sure:.2f} sure (threshold {threshold:.2f})."
            return heard.noted(replace(cheap, reason=said))
        full = self.weigh(heard.question, self.read(question), asked=True)
        said = f"{full.reason} The language model was asked: {sure:.2f} < {threshold:.2f}."
        return heard.noted(replace(full, reason=said))

    def threshold(self, capability: str) -> float:
        """Below which confidence of the cheap jurors the language model is asked."""
        own = self.params.threshold if isinstance(self.params, CascadeParams) else None
        fitted = self.artifact.capabilities.get(capability)
        if own is not None:
            return own
        return fitted.threshold if fitted is not None else PRIOR_THRESHOLD
