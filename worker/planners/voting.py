"""Retrieval that may compose: neighbours vote on capabilities and edges, descriptions and habits have a say.

A neighbour's weight also counts how well the descriptions of its plan's capabilities match the clauses of the request.
Beside the neighbours' own plans, short chains of the capabilities that they and the descriptions propose are tried; the
plan with the largest value is taken:

    .85 expected node F1 + .5 expected edge F1 + .55 match + .6 coverage + .2 how usual its edges are in the examples

One more voter is the plan that the clauses alone suggest (each clause's best capability, in turn). How much it counts
is measured on the examples: where descriptions tell the tools apart it leads, where they do not the neighbours do.
match: each capability's best clause, on average; coverage: each clause's best capability. The numbers come from a
ridge regression of node F1 + edge F1 on leave-one-out plans of UltraTool's training half, and a search around them.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from itertools import permutations
from typing import TYPE_CHECKING

from pydantic import Field

from db.plan import PlanError
from worker.params import Params, checked_params
from worker.planners import Planned, Planner
from worker.planners.retrieval import Library, Neighbour, none_fits
from worker.planners.shapes import Shape, common_edges, common_nodes, shape_of
from worker.planners.similarity import clauses, described_as
from worker.planners.wiring import joining, wired

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from db.plan import Plan, Tool
    from db.registry import PlannerEntry
    from worker.backends import Backend
    from worker.planners import Asked, Example

NODES, EDGES, MATCH, COVERAGE, USUAL = 0.85, 0.5, 0.55, 0.6, 0.2
DESCRIBED = 2  # capabilities proposed by their description alone
LONGEST = 3  # steps of a composed chain
CLEAR = 0.45  # a clause whose best match is below this share of the clearest clause's asks for nothing
REPEATED = 0.7  # what a match counts of a capability that is there already: clauses name what earlier ones made
TRIED = 40  # examples that tell how far a plan of the clauses alone is trusted
EAGER, MOST_TRUST = 4, 20.0
PAIRED, TRIPLED = 6, 5  # capabilities that chains of two, of three are composed of


class VotingParams(Params):
    """`params` of a `voting` planner."""

    neighbours: int = Field(10, ge=1, le=100)
    sharpness: float = Field(12.0, ge=0)  # weight = exp(sharpness * (similarity + descriptions * match))
    descriptions: float = Field(0.5, ge=0)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A plan that may be taken, and its value's parts."""

    plan: Plan
    shape: Shape
    composed: bool


class Voting(Planner):
    """Weighs neighbours, composes, chooses."""

    def __init__(
        self, entry: PlannerEntry, *, model: Backend | None, embedder: Backend | None, examples: Sequence[Example]
    ) -> None:
        super().__init__(entry, model=model, embedder=embedder, examples=examples)
        self._params = checked_params(entry, VotingParams)
        self.library = Library(examples, embedder)
        shapes = [shape_of(example.plan) for example in examples]
        self._followed = Counter(edge for shape in shapes for edge in shape.edges)
        self._seen = Counter(name for shape in shapes for name, _ in shape.nodes)
        self._trusts: dict[tuple[Tool, ...], float] = {}
        self._joining = joining([example.plan for example in examples])

    def plan(self, asked: Asked) -> Planned:
        """The most valuable plan. Raises `PlanError` where no stored example fits."""
        near = self.library.nearest(asked, len(self.examples))
        if not near:
            raise PlanError([none_fits(asked, len(self.examples))])
        matches = self._matches(asked)
        near, weights = self._weighed(near, matches)
        shapes = [neighbour.shape for neighbour in near]
        candidates = [
            Candidate(plan=neighbour.plan, shape=shape, composed=False)
            for neighbour, shape in zip(near, shapes, strict=True)
        ]
        own = self._in_turn(asked, matches)
        if own is not None:
            shapes, weights = [*shapes, shape_of(own)], [*weights, self._trust(asked)]
            candidates.append(Candidate(plan=own, shape=shapes[-1], composed=True))
        candidates += self._composed(asked, shapes, weights, matches)
        total = sum(weights)
        weights = [weight / total for weight in weights]
        best = max(candidates, key=lambda candidate: self._value(candidate.shape, shapes, weights, matches))
        how = "Composed of steps" if best.composed else "The plan of one"
        return Planned(
            plan=best.plan,
            method=self.entry.method,
            reason=f"{how} of the {len(near)} nearest examples, led by “{near[0].example.request[:120]}”.",
            model=None if self.embedder is None else self.embedder.model.name,
        )

    def _matches(self, asked: Asked) -> dict[str, list[float]]:
        """For each capability, how well its description matches each clause of the request."""
        encoder = self.library.encoder
        parts = encoder.encode(clauses(asked.request))
        described = encoder.encode([described_as(tool) for tool in asked.tools])
        return {
            tool.name: [max(encoder.alike(part, vector), 0.0) for part in parts]
            for tool, vector in zip(asked.tools, described, strict=True)
        }

    def _weighed(
        self, near: Sequence[Neighbour], matches: Mapping[str, Sequence[float]]
    ) -> tuple[list[Neighbour], list[float]]:
        scores = [neighbour.alike + self._params.descriptions * _match(neighbour.shape, matches) for neighbour in near]
        order = sorted(range(len(near)), key=lambda place: -scores[place])[: self._params.neighbours]
        raw = [math.exp(self._params.sharpness * (scores[place] - scores[order[0]])) for place in order]
        return [near[place] for place in order], [value / sum(raw) for value in raw]

    def _composed(
        self,
        asked: Asked,
        shapes: Sequence[Shape],
        weights: Sequence[float],
        matches: Mapping[str, Sequence[float]],
    ) -> Iterator[Candidate]:
        votes: Counter[str] = Counter()
        for shape, weight in zip(shapes, weights, strict=True):
            for name in {name for name, _ in shape.nodes}:
                votes[name] += weight  # type: ignore[assignment] # a Counter of shares
        voted = [name for name, _ in votes.most_common(PAIRED)]
        best = sorted(matches, key=lambda name: -max(matches[name]))[:DESCRIBED]
        chains = [*permutations(dict.fromkeys((*voted, *best)), 2), *permutations(voted[:TRIPLED], LONGEST)]
        tools = {tool.name: tool for tool in asked.tools}
        for chain in chains:
            plan = wired([tools[name] for name in chain], asked, self._joining)
            if plan is not None:
                yield Candidate(plan=plan, shape=shape_of(plan), composed=True)

    def _in_turn(self, asked: Asked, matches: Mapping[str, Sequence[float]]) -> Plan | None:
        """The plan that the request alone suggests: each clause's best capability, in the order of the clauses."""
        there = {"text", *asked.kinds, *(tool.output for tool in asked.tools)}
        able = [tool for tool in asked.tools if tool.input in there]
        clearest = max((max(matches[tool.name]) for tool in able), default=0.0)
        chain: list[Tool] = []
        for clause in range(len(matches[able[0].name]) if able else 0):
            scores = {tool.name: matches[tool.name][clause] * (REPEATED if tool in chain else 1.0) for tool in able}
            best = max(able, key=lambda tool: scores[tool.name])
            again = best in chain and chain.count(best) >= asked.kinds.count(best.input)
            if matches[best.name][clause] >= CLEAR * clearest and not again:
                chain.append(best)
        return wired(chain[: asked.max_steps], asked, self._joining)

    def _trust(self, asked: Asked) -> float:
        """The weight of that plan beside the neighbours', who have 1 together.

        On examples, with these tools: how right it is, against how right the nearest other example is.
        """
        if asked.tools not in self._trusts:
            own = others = 0.0
            for example in self.examples[:: max(1, len(self.examples) // TRIED)]:
                request = replace(
                    asked, request=example.request, kinds=example.kinds, max_steps=len(example.plan.steps)
                )
                right = shape_of(example.plan)
                plan = self._in_turn(request, self._matches(request))
                own += 0.0 if plan is None else _agreed(shape_of(plan), right)
                near = [other for other in self.library.nearest(request, 2) if other.example is not example]
                others += _agreed(near[0].shape, right) if near else 0.0
            self._trusts[asked.tools] = min((own / max(others, 1e-6)) ** EAGER, MOST_TRUST) if own else 0.0
        return self._trusts[asked.tools]

    def _value(
        self,
        shape: Shape,
        shapes: Sequence[Shape],
        weights: Sequence[float],
        matches: Mapping[str, Sequence[float]],
    ) -> float:
        nodes = sum(weight * common_nodes(shape, other) for other, weight in zip(shapes, weights, strict=True))
        edges = sum(weight * common_edges(shape, other) for other, weight in zip(shapes, weights, strict=True))
        usual = [self._followed[edge] / (self._seen[edge[0]] + 2) for edge in shape.edges]
        return (
            NODES * nodes
            + EDGES * edges
            + MATCH * _match(shape, matches)
            + COVERAGE * _coverage(shape, matches)
            + USUAL * (sum(usual) / len(usual) if usual else 0.0)
        )


def _agreed(shape: Shape, right: Shape) -> float:
    """How much of a plan is right."""
    return common_nodes(shape, right) + common_edges(shape, right)


def _match(shape: Shape, matches: Mapping[str, Sequence[float]]) -> float:
    """Each capability's best clause, on average."""
    best = [max(matches[name]) for name, _ in shape.nodes]
    return sum(best) / len(best) if best else 0.0


def _coverage(shape: Shape, matches: Mapping[str, Sequence[float]]) -> float:
    """Each clause's best capability, on average."""
    names = {name for name, _ in shape.nodes}
    parts = list(zip(*(matches[name] for name in names), strict=True))
    return sum(max(part) for part in parts) / len(parts) if parts else 0.0
