"""A fake judge for tests, ours and yours: prefers what the table says, fails when it says so."""

from __future__ import annotations

import math
import os
import re
import time
from pathlib import Path
from typing import Literal
from uuid import uuid4

from pydantic import Field

from db.errors import Unreachable
from db.registry import JudgeEntry
from worker.backends import LanguageModel
from worker.backends.scripted import drawn_number
from worker.judges import Decision, Judge, Question
from worker.params import Params, checked_params


class ScriptedJudgeParams(Params):
    """`prefer`: `longest`, `first` (by rank), `number` (decided by the text alone), or `model:NAME`.

    It fails where an answer matches `fail_on`, while the file `fail_while` exists if that is set, in the way `fail`:
    `raise`, `quote` (its words quote the answers), `unreachable` (its server is away), `garbage` (ranks what nobody
    asked about, with scores that are no numbers), `hang`, or `exit` (the process).
    """

    prefer: str = Field("longest", pattern=r"^(longest|first|number|model:.+)$")
    sleep: float = Field(0.0, ge=0, le=3600)
    fail: Literal["raise", "quote", "unreachable", "garbage", "hang", "exit"] = "raise"
    fail_on: str | None = None
    fail_while: Path | None = None


class ScriptedJudge(Judge):
    """Ranks by a rule."""

    def __init__(self, entry: JudgeEntry, language_model: LanguageModel | None) -> None:
        super().__init__(entry, language_model)
        self._params = checked_params(entry, ScriptedJudgeParams)

    def decide(self, question: Question) -> Decision:
        """Rank by the rule, or fail as the table says."""
        time.sleep(self._params.sleep)
        if self._fails(question):
            if self._params.fail == "quote":
                raise RuntimeError(f"the script cannot judge {[answer.text for answer in question.answers]}")
            return self._fail()
        scores = {answer.id: self._score(answer.model, answer.text, answer.rank) for answer in question.answers}
        ranking = sorted(question.answers, key=lambda answer: (-scores[answer.id], answer.rank))
        return Decision(
            ranking=tuple(answer.id for answer in ranking),
            scores=scores,
            reason=f"{ranking[0].model} is what the script prefers ({self._params.prefer}).",
            method="scripted",
            prompt_version="scripted-1",
        )

    def _fails(self, question: Question) -> bool:
        pattern, file = self._params.fail_on, self._params.fail_while
        if pattern is None or (file is not None and not file.exists()):
            return False
        return any(re.search(pattern, answer.text) for answer in question.answers)

    def _fail(self) -> Decision:
        while self._params.fail == "hang":
            time.sleep(3600)
        if self._params.fail == "exit":
            os._exit(70)
        if self._params.fail == "unreachable":
            raise Unreachable("the script says that the judge's server is away")
        if self._params.fail == "raise":
            raise RuntimeError("the script says that the judge fails")
        stranger = uuid4()
        return Decision(ranking=(stranger,), scores={stranger: math.nan}, reason="garbage", method="scripted")

    def _score(self, model: str, text: str, rank: int) -> float:
        kind = self._params.prefer
        if kind == "longest":
            return float(len(text))
        if kind == "first":
            return -float(rank)
        if kind == "number":
            return drawn_number(text)
        return 1.0 if model == kind.removeprefix("model:") else 0.0
