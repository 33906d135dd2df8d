"""The arms: ways to come from several answers to one score, each with what it cost."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from db.registry import JudgeEntry
from scheduler.evaluation.judges.metrics import mean
from worker.judges import Answer, Question, create_judge

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from scheduler.evaluation.judges.rows import Kind, Row
    from worker.backends import LanguageModel

BEST_SINGLE, RANDOM, ORACLE = "best single", "random", "oracle"
#: arm → method of the judge that picks
JUDGED = {
    "LLM only": "llm",
    "similarity only": "consensus",
    "similarity + LLM": "llm_consensus",
    "pairwise, both orders": "llm_pairwise",
}
ARMS = (BEST_SINGLE, RANDOM, *JUDGED, ORACLE)


class Counting:
    """A language model that counts the prompts it reads."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self.identity = model.identity
        self.calls = 0

    def option_logprobs(self, prompts: Sequence[str], options: Sequence[str]) -> list[list[float]]:
        """See `LanguageModel`."""
        self.calls += len(prompts)
        return self._model.option_logprobs(prompts, options)

    def continuation_logprobs(self, prompt: str, continuations: Sequence[str]) -> list[float]:
        """See `LanguageModel`."""
        self.calls += len(continuations)
        return self._model.continuation_logprobs(prompt, continuations)


@dataclass(kw_only=True)
class Run:
    """One arm over the rows: a score per row, prompts that the judge's model read, and seconds."""

    arm: str
    scores: list[float] = field(default_factory=list)
    calls: int = 0
    seconds: float = 0.0


class Contest:
    """The arms over one set's rows. `models` are the candidates, best on the fit rows first, which is their rank.

    With a seed the ranks are shuffled row by row: a judge that cannot decide then picks at random.
    """

    def __init__(self, models: Sequence[str], kind: Kind, model: LanguageModel, seed: int = 0) -> None:
        self._models, self._kind, self._seed = models, kind, seed
        self._model = Counting(model)
        self._judges = {arm: create_judge(judge_entry(arm, kind), self._model) for arm in JUDGED}

    def run(self, rows: Iterable[Row], seconds: float = math.inf) -> dict[str, Run]:
        """Every arm on every row; no further row is begun when the time is up, so that all arms have the same rows."""
        runs = {arm: Run(arm=arm) for arm in ARMS}
        started = time.perf_counter()
        for row in rows:
            for run in runs.values():
                calls, before = self._model.calls, time.perf_counter()
                run.scores.append(self._score(run.arm, row))
                run.calls += self._model.calls - calls
                run.seconds += time.perf_counter() - before
            if time.perf_counter() - started > seconds:
                break
        return runs

    def _score(self, arm: str, row: Row) -> float:
        scores = [row.scores[model] for model in self._models]
        if arm in JUDGED:
            decision = self._judges[arm].decide(question(row, self._models, self._kind, self._seed))
            return scores[decision.ranking[0].int]
        return {BEST_SINGLE: scores[0], RANDOM: mean(scores), ORACLE: max(scores)}[arm]


def judge_entry(arm: str, kind: Kind) -> JudgeEntry:
    """The judge of an arm, as the registry would name it."""
    method, params = JUDGED[arm], dict[str, object]()
    if method in {"consensus", "llm_consensus"}:
        params["similarity"] = kind.similarity
    if method == "consensus":
        params["answers"] = "closed" if kind.similarity == "answer" else "open"
    return JudgeEntry(name=f"ablation-{method}", method=method, params=params)


def question(row: Row, models: Sequence[str], kind: Kind, seed: int) -> Question:
    """What a judge sees of a row: answers without names, their ids the places of `models`."""
    ranks = list(range(len(models)))
    if seed:
        random.Random(f"{seed} {row.id}").shuffle(ranks)  # noqa: S311 - a fixed shuffle, not a secret
    answers = tuple(
        Answer(id=UUID(int=place), model=f"candidate-{place}", text=row.answers[model], rank=ranks[place])
        for place, model in enumerate(models)
    )
    return Question(
        id=UUID(int=0), capability=kind.capability, instruction=kind.instruction, request=row.request, answers=answers
    )
