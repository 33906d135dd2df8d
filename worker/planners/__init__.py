"""Who splits a request into steps. One file per method, registered by name in `METHODS`.

A planner lives in a worker process beside the models that it asks. What it returns is checked
(`worker.planners.checking`): every plan that is stored can run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from db.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from db.plan import Plan, Tool
    from db.registry import PlannerEntry
    from worker.backends import Backend


@dataclass(frozen=True, kw_only=True)
class Example:
    """A request with a plan that is known to be right for it: what `retrieval` looks up, and prompts show."""

    request: str
    plan: Plan
    kinds: tuple[str, ...] = ()  # of its attachments, in order: image, audio


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A step that has ended, as a stepwise planner sees it: `output` of the winner, or None with why there is none."""

    id: str
    capability: str
    output: str | None
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be planned. `kinds` are those of the attachments, in order; `names` what the caller calls them."""

    request: str
    tools: tuple[Tool, ...]
    kinds: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    max_steps: int = 16
    finished: tuple[Finished, ...] = ()  # of a task that is planned step by step


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A checked plan and how it came about.

    `more`: the planner wants to be asked again when these steps have ended. `written` is what a language model wrote,
    one text per call; `repairs` says in sentences what was changed in it.
    """

    plan: Plan
    method: str
    reason: str = ""
    more: bool = False
    written: Sequence[str] = field(default_factory=tuple)
    repairs: Sequence[str] = field(default_factory=tuple)
    model: str | None = None
    prompt_version: str | None = None
    usage: Mapping[str, float] = field(default_factory=dict)


class Planner(ABC):
    """A way to plan. `examples` are those it may look up or show."""

    def __init__(
        self, entry: PlannerEntry, *, model: Backend | None, embedder: Backend | None, examples: Sequence[Example]
    ) -> None:
        self.entry = entry
        self.model = model
        self.embedder = embedder
        self.examples = examples

    @abstractmethod
    def plan(self, asked: Asked) -> Planned:
        """Plan a request. An empty plan means that no step is needed but to answer in words.

        Raises `db.plan.PlanError` where no plan that can run comes of it, with `written` kept as an attribute, and
        anything else where the planner itself fails; the caller tries again.
        """


#: method in models.toml → "module:class"
METHODS: dict[str, str] = {
    "retrieval": "worker.planners.retrieval:Retrieval",
    "voting": "worker.planners.voting:Voting",
    "llm": "worker.planners.llm:LLM",
    "llm+retrieval": "worker.planners.llm:LLMWithRetrieval",
    "stepwise": "worker.planners.stepwise:Stepwise",
}


def create_planner(
    entry: PlannerEntry, *, model: Backend | None, embedder: Backend | None, examples: Sequence[Example]
) -> Planner:
    """The planner that the registry names. Raises `RegistryError` for an unknown method."""
    try:
        module, _, name = METHODS[entry.method].partition(":")
    except KeyError:
        known = ", ".join(sorted(METHODS))
        raise RegistryError(
            f"planners.{entry.name}.method = {entry.method!r} is unknown; there are: {known}."
        ) from None
    kind: Any = getattr(import_module(module), name)
    planner: Planner = kind(entry, model=model, embedder=embedder, examples=examples)
    return planner
