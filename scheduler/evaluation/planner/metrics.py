"""How right plans are.

Definitions of TaskBench (Shen et al. 2023, arXiv 2311.18760; `taskbench/evaluate.py` of microsoft/JARVIS):

| key | what |
|---|---|
| `node_f1` | F1 of tools, each request's as a set, counts pooled over all requests (micro) |
| `edge_f1` | the same of (tool, tool) edges |
| `type_f1` | the same of (tool, kind of argument): text, image, audio |
| `edit_distance` | 1 - Levenshtein ratio (substitution costs 2) of the tools in order of execution, mean; 0 is best |
| `node_f1_mean`, `edge_f1_mean` | mean of each request's own F1, as in GNN4TaskPlan |
| `accuracy` | share of requests with exactly the right tools |
| `exact` | share with exactly the right tools and edges |
| `support` | requests |
| `unparseable` | share whose plan could not be read or run; it counts as an empty plan |
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scheduler.evaluation.planner.rows import argument_types
from worker.planners.shapes import f1

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from db.plan import Plan, Tool
    from scheduler.evaluation.planner.rows import Row

RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What two sets have in common."""

    both: int
    predicted: int
    gold: int


@dataclass(frozen=True, kw_only=True)
class Marks:
    """One request's plan against the right one."""

    nodes: Counts
    edges: Counts
    types: Counts | None
    node_f1: float
    edge_f1: float
    edit_distance: float
    accurate: bool
    exact: bool
    parsed: bool


def marks_of(row: Row, plan: Plan | None, tools: Mapping[str, Tool]) -> Marks:
    """Compare a plan with the right one; None is a plan that could not be read."""
    order, edges = ([], frozenset()) if plan is None else (in_order(plan), edges_of(plan))
    gold_order = in_order(row.plan)
    gold_edges = edges_of(row.plan) if row.links is None else row.links
    types = frozenset() if plan is None else argument_types(plan, tools, row.kinds)
    same = Counter(order) == Counter(gold_order)
    return Marks(
        nodes=_counts(frozenset(order), frozenset(gold_order)),
        edges=_counts(edges, gold_edges),
        types=None if row.types is None else _counts(types, row.types),
        node_f1=f1(frozenset(order), frozenset(gold_order)),
        edge_f1=f1(edges, gold_edges),
        edit_distance=edit_distance(order, gold_order),
        accurate=same,
        exact=same and edges == gold_edges,
        parsed=plan is not None,
    )


def edges_of(plan: Plan) -> frozenset[tuple[str, str]]:
    """Edges by the names of the capabilities."""
    names = {step.id: step.capability for step in plan.steps}
    return frozenset((names[before], names[after]) for before, after in plan.edges if before in names)


def in_order(plan: Plan) -> list[str]:
    """Capabilities in order of execution; where the order is open, by name, so that equal graphs give equal lists."""
    names = {step.id: step.capability for step in plan.steps}
    waits = {id_: {before for before, after in plan.edges if after == id_ and before in names} for id_ in names}
    order: list[str] = []
    while waits:
        ready = [id_ for id_, before in waits.items() if not before] or list(waits)  # a circle has no order
        chosen = min(ready, key=lambda id_: (names[id_], id_))
        order.append(names[chosen])
        del waits[chosen]
        for before in waits.values():
            before.discard(chosen)
    return order


def edit_distance(first: Sequence[str], second: Sequence[str]) -> float:
    """1 - Levenshtein ratio: insertions and deletions over the sum of the lengths; 0 for two empty lists."""
    if not first and not second:
        return 0.0
    common = [0] * (len(second) + 1)
    for one in first:
        corner = 0
        for place, other in enumerate(second, start=1):
            above = common[place]
            common[place] = corner + 1 if one == other else max(above, common[place - 1])
            corner = above
    return 1 - 2 * common[-1] / (len(first) + len(second))


def _counts(predicted: frozenset[Any], gold: frozenset[Any]) -> Counts:
    return Counts(both=len(predicted & gold), predicted=len(predicted), gold=len(gold))


def pooled(counts: Sequence[Counts]) -> tuple[float | None, float | None, float | None]:
    """Precision, recall, F1 of counts added up; None where there is nothing to find."""
    both = sum(count.both for count in counts)
    predicted = sum(count.predicted for count in counts)
    gold = sum(count.gold for count in counts)
    return (
        both / predicted if predicted else None,
        both / gold if gold else None,
        2 * both / (predicted + gold) if predicted + gold else None,
    )


def metrics_of(marks: Sequence[Marks]) -> dict[str, float | int | None]:
    """All figures of a set of requests."""
    count = len(marks)
    nodes, edges = pooled([mark.nodes for mark in marks]), pooled([mark.edges for mark in marks])
    types = [mark.types for mark in marks if mark.types is not None]

    def mean(values: Sequence[float]) -> float | None:
        return sum(values) / count if count else None

    return {
        "node_f1": nodes[2],
        "edge_f1": edges[2],
        "type_f1": pooled(types)[2] if types else None,
        "edit_distance": mean([mark.edit_distance for mark in marks]),
        "exact": mean([mark.exact for mark in marks]),
        "support": count,
        "unparseable": mean([not mark.parsed for mark in marks]),
        "accuracy": mean([mark.accurate for mark in marks]),
        "node_precision": nodes[0],
        "node_recall": nodes[1],
        "edge_precision": edges[0],
        "edge_recall": edges[1],
        "node_f1_mean": mean([mark.node_f1 for mark in marks]),
        "edge_f1_mean": mean([mark.edge_f1 for mark in marks]),
    }


def difference(ours: Sequence[Marks], theirs: Sequence[Marks], seed: int = 1) -> dict[str, dict[str, float]]:
    """Pooled F1 of one planner minus another's on the same requests, with a 95 % interval.

    The interval is a paired bootstrap over requests: both planners are measured on every resample.
    """
    source = random.Random(seed)  # noqa: S311 - a resample, not a secret
    resamples = [source.choices(range(len(ours)), k=len(ours)) for _ in range(RESAMPLES)] if ours else []
    found = {}
    for key in ("nodes", "edges"):
        mine = [_triple(mark, key) for mark in ours]
        other = [_triple(mark, key) for mark in theirs]
        values = sorted(_f1_at(mine, places) - _f1_at(other, places) for places in resamples)
        everyone = range(len(ours))
        found[f"{key[:-1]}_f1"] = {
            "difference": _f1_at(mine, everyone) - _f1_at(other, everyone),
            "low": values[int(0.025 * len(values))] if values else 0.0,
            "high": values[int(0.975 * len(values)) - 1] if values else 0.0,
        }
    return found


def _triple(mark: Marks, key: str) -> tuple[int, int]:
    counts: Counts = getattr(mark, key)
    return counts.both, counts.predicted + counts.gold


def _f1_at(pairs: Sequence[tuple[int, int]], places: Sequence[int]) -> float:
    total = sum(pairs[place][1] for place in places)
    return 2 * sum(pairs[place][0] for place in places) / total if total else 0.0
