"""What a plan looks like, apart from ids and words: which capabilities, and which feeds which."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

    from db.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Capabilities (a second step of the same one counts apart) and the edges between them."""

    nodes: frozenset[tuple[str, int]]
    edges: frozenset[tuple[str, str]]


def shape_of(plan: Plan) -> Shape:
    """The shape of a plan."""
    capability = {step.id: step.capability for step in plan.steps}
    return Shape(
        nodes=counted([step.capability for step in plan.steps]),
        edges=frozenset(
            (capability[before], capability[after]) for before, after in plan.edges if before in capability
        ),
    )


def counted(capabilities: list[str]) -> frozenset[tuple[str, int]]:
    """A list as a set that keeps how often each comes."""
    return frozenset((name, number) for name, count in Counter(capabilities).items() for number in range(count))


def common_nodes(first: Shape, second: Shape) -> float:
    """F1 of the capabilities of two plans."""
    return f1(first.nodes, second.nodes)


def common_edges(first: Shape, second: Shape) -> float:
    """F1 of the edges of two plans; where neither has any, they are as alike as their capabilities."""
    return f1(first.edges, second.edges) if first.edges or second.edges else common_nodes(first, second)


def f1(first: frozenset[Hashable], second: frozenset[Hashable]) -> float:
    """How much of two sets is common; 1 for two empty ones."""
    if not first and not second:
        return 1.0
    return 2 * len(first & second) / (len(first) + len(second))
