"""A fake judge for tests, ours and yours: prefers what the table says, fails when it says so."""

from __future__ import annotations

import re
import time

from pydantic import Field

from db.registry import JudgeEntry
from worker.backends import LanguageModel
from worker.judges import Decision, Judge, Question
from worker.params import Params, checked_params


class ScriptedJudgeParams(Params):
    """`prefer`: `longest`, `first` (by rank), or `model:NAME`; `fail_on`: raise where an answer matches it."""

    prefer: str = Field("longest", pattern=r"^(longest|first|model:.+)$")
    sleep: float = Field(0.0, ge=0, le=3600)
    fail_on: str | None = None


class ScriptedJudge(Judge):
    """Ranks by a rule."""

    def __init__(self, entry: JudgeEntry, language_model: LanguageModel | None) -> None:
        super().__init__(entry, language_model)
        self._params = checked_params(entry, ScriptedJudgeParams)

    def decide(self, question: Question) -> Decision:
        """Rank by the rule; raises `RuntimeError` where `fail_on` matches an answer."""
        time.sleep(self._params.sleep)
        if self._params.fail_on and any(re.search(self._params.fail_on, a.text) for a in question.answers):
            raise RuntimeError("the script says that the judge fails")
        scores = {answer.id: self._score(answer.model, answer.text, answer.rank) for answer in question.answers}
        ranking = sorted(question.answers, key=lambda answer: (-scores[answer.id], answer.rank))
        return Decision(
            ranking=tuple(answer.id for answer in ranking),
            scores=scores,
            reason=f"{ranking[0].model} is what the script prefers ({self._params.prefer}).",
            method="scripted",
            prompt_version="scripted-1",
        )

    def _score(self, model: str, text: str, rank: int) -> float:
        kind = self._params.prefer
        if kind == "longest":
            return float(len(text))
        if kind == "first":
            return -float(rank)
        return 1.0 if model == kind.removeprefix("model:") else 0.0
