"""Who ranks the candidates of a subtask. One file per method, registered by name in `METHODS`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from db.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from db.registry import JudgeEntry
    from worker.backends import Backend, LanguageModel
    from worker.judges.exhibits import Exhibits
    from worker.judges.expecting import Expect


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One successful candidate, as a judge sees it. `rank` is the selectors' order, 0 first."""

    id: UUID
    model: str
    text: str
    rank: int


@dataclass(frozen=True, kw_only=True)
class Question:
    """One subtask to judge. `instruction` says what was asked for, `request` holds the caller's own words (may be
    empty), `expect` what an answer must hold, `exhibits` what there is of the subtask's files, where it has any."""

    id: UUID
    capability: str
    instruction: str
    request: str
    answers: tuple[Answer, ...]
    expect: Expect | None = None
    exhibits: Exhibits | None = None


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a judge decided about one question.

    `ranking` lists the answers best first, `scores` are higher for better, in the method's own unit; `orders` holds
    what was asked in each order with the figures read, so that a verdict can be checked later. `confidence` is a
    probability in 0..1 where the method gives one; `needs_review` asks for a person whatever it is.
    """

    ranking: tuple[UUID, ...]
    scores: Mapping[UUID, float]
    reason: str
    method: str
    model: str | None = None
    prompt_version: str | None = None
    orders: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    confidence: float | None = None
    needs_review: bool = False


class Judge(ABC):
    """A way to rank answers. `embeds`: its constructor takes a sentence embedder as well."""

    embeds = False

    def __init__(self, entry: JudgeEntry, language_model: LanguageModel | None) -> None:
        self.entry = entry
        self.language_model = language_model

    @abstractmethod
    def decide(self, question: Question) -> Decision:
        """Rank two answers or more. Raises where the judge itself fails; the caller retries or falls back."""


def check_decision(decision: Decision, candidates: Sequence[UUID]) -> None:
    """Raise `ValueError` where a judge ranked other things than it was given, or a figure of it cannot be stored."""
    if Counter(decision.ranking) != Counter(candidates):
        raise ValueError("the ranking is not one of the candidates that were asked about")
    if not set(decision.scores) <= set(candidates):
        raise ValueError("a score is about something that was not asked about")
    if not all(math.isfinite(score) for score in decision.scores.values()):
        raise ValueError("a score is not a number")
    if decision.confidence is not None and not 0 <= decision.confidence <= 1:
        raise ValueError("the confidence is not a number from 0 to 1")


#: method in models.toml → "module:class"
METHODS = {
    "cascade": "worker.judges.cascade:Cascade",
    "checks": "worker.judges.checks:Checks",
    "choice": "worker.judges.choice:Choice",
    "consensus": "worker.judges.consensus:Consensus",
    "jury": "worker.judges.jury:Jury",
    "llm": "worker.judges.choice:Choice",
    "llm_consensus": "worker.judges.listwise:LLMConsensus",
    "llm_pairwise": "worker.judges.pairwise:Pairwise",
    "llm_rubric": "worker.judges.rubric:Rubric",
    "nll": "worker.judges.nll:NLL",
    "reward": "worker.judges.reward:RewardJudge",
    "scripted": "worker.judges.scripted:ScriptedJudge",
}


def create_judge(entry: JudgeEntry, language_model: LanguageModel | None, embedder: Backend | None = None) -> Judge:
    """The judge that the registry names. Raises `RegistryError` for an unknown method."""
    try:
        module, _, name = METHODS[entry.method].partition(":")
    except KeyError:
        known = ", ".join(sorted(METHODS))
        raise RegistryError(f"judges.{entry.name}.method = {entry.method!r} is unknown; there are: {known}.") from None
    kind: Any = getattr(import_module(module), name)
    judge: Judge = kind(entry, language_model, embedder) if kind.embeds else kind(entry, language_model)
    return judge
