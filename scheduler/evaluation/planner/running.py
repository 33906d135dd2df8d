"""Planners on labelled requests, in this process."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from db.errors import BakeoffError, RefusedNow
from db.plan import Plan
from scheduler.evaluation.planner.metrics import Marks, marks_of
from worker.backends import Backend, Failure
from worker.planners import Asked, Finished, create_planner
from worker.planners.retrieval import Library

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from db.plan import Tool
    from db.registry import PlannerEntry
    from scheduler.evaluation.planner.rows import Row
    from worker.backends import Input, Output
    from worker.planners import Planned, Planner

WRITTEN = frozenset({"llm", "llm+retrieval", "stepwise"})  # methods that ask a language model
SHORT_LIST = 20
MAX_STEPS = 16
REASONS = 5  # that are kept


class Remembering(Backend):
    """An embedder that several planners ask the same: every text is embedded once."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend.model, backend.place)
        self._backend = backend
        self._known: dict[str, Output] = {}

    def load(self) -> None:
        """Load what is behind it."""
        self._backend.load()

    def run(self, inputs: Sequence[Input]) -> list[Output | Failure]:
        """Answer from memory where it can."""
        new = [item for item in inputs if item.text not in self._known]
        replies = dict(zip((item.text for item in new), self._backend.run(new), strict=True)) if new else {}
        for text, reply in replies.items():
            if not isinstance(reply, Failure):
                self._known[text] = reply
        return [self._known[item.text] if item.text in self._known else replies[item.text] for item in inputs]

    def close(self) -> None:
        self._backend.close()


@dataclass(kw_only=True)
class Run:
    """What came of a planner on a set of requests. `short_list_recall` where the tools were short-listed."""

    marks: list[Marks] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    seconds: float = 0.0
    repaired: int = 0
    short_list_recall: float | None = None


def run_planner(
    entry: PlannerEntry,
    *,
    train: Sequence[Row],
    test: Sequence[Row],
    tools: Sequence[Tool],
    model: Backend | None,
    embedder: Backend | None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Run:
    """Plan every test request with the train rows as examples. A plan that cannot be had counts as an empty one."""
    examples = [row.example for row in train]
    planner = create_planner(entry, model=model, embedder=embedder, examples=examples)
    library = Library(examples, embedder)
    by_name = {tool.name: tool for tool in tools}
    run = Run()
    needed = listed = 0
    started = time.monotonic()
    for number, row in enumerate(test, start=1):
        seen = tuple(tools)
        if entry.method in WRITTEN:
            seen = library.short_list(row.request, tools, SHORT_LIST)
            gold = {step.capability for step in row.plan.steps}
            needed += len(gold)
            listed += len(gold & {tool.name for tool in seen})
        plan = _plan(planner, Asked(request=row.request, tools=seen, kinds=row.kinds, max_steps=MAX_STEPS), run)
        run.marks.append(marks_of(row, plan, by_name))
        progress(number, len(test))
    run.seconds = time.monotonic() - started
    run.short_list_recall = listed / needed if needed else None
    return run


def _plan(planner: Planner, asked: Asked, run: Run) -> Plan | None:
    try:
        planned = planner.plan(asked)
        run.repaired += bool(planned.repairs)
        return _to_the_end(planner, asked, planned)
    except RefusedNow:  # a server that is away says nothing about the planner
        raise
    except BakeoffError as error:
        if len(run.reasons) < REASONS:
            run.reasons.append(str(error)[:500])
        return None


def _to_the_end(planner: Planner, asked: Asked, planned: Planned) -> Plan:
    """All steps of a planner that goes step by step; no model runs, so every step is said to have gone well."""
    steps = list(planned.plan.steps)
    while planned.more:
        finished = tuple(
            Finished(id=step.id, capability=step.capability, output=f"(the result of {step.capability})")
            for step in steps
        )
        planned = planner.plan(replace(asked, finished=finished))
        steps += planned.plan.steps
    return Plan(steps=tuple(steps))


def by_type(rows: Sequence[Row], marks: Sequence[Marks]) -> Mapping[str, list[Marks]]:
    """Marks by the type of their request, in the order of the rows."""
    found: dict[str, list[Marks]] = {}
    for row, mark in zip(rows, marks, strict=True):
        found.setdefault(row.type, []).append(mark)
    return found
