"""The plan of the stored request that is most alike. Cheap: no language model, one embedding per request.

Of the nearest examples that fit the request's attachments, each is weighed by its similarity, and the plan is taken
that agrees most with all of them (expected F1 of capabilities and of edges), not blindly the first one's. On the chains
of UltraTool that lifts edge F1 by .03 to .05 over the nearest alone, at the same or better node F1
(`bakeoff evaluate planner`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field

from db.plan import PlanError
from worker.params import Params, checked_params
from worker.planners import Planned, Planner
from worker.planners.adapting import adapted
from worker.planners.shapes import Shape, common_edges, common_nodes, shape_of
from worker.planners.similarity import Encoder, asking, clauses, described_as, encoder_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from db.plan import Plan, Tool
    from db.registry import PlannerEntry
    from worker.backends import Backend
    from worker.planners import Asked, Example


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """An example that fits, its plan for the request at hand, and how much alike the requests are."""

    example: Example
    plan: Plan
    alike: float

    @property
    def shape(self) -> Shape:
        """What its plan looks like."""
        return shape_of(self.plan)


class Library:
    """Examples by similarity to a request; embedded when first asked."""

    def __init__(self, examples: Sequence[Example], embedder: Backend | None) -> None:
        self.examples = examples
        self.encoder: Encoder = encoder_of(embedder, [asking(example.request) for example in examples])

    def alike(self, request: str) -> list[float]:
        """Similarity of each example's request, in the order of the examples."""
        vector = self.encoder.encode([asking(request)])[0]
        return [self.encoder.alike(vector, other) for other in self._vectors()]

    def nearest(self, asked: Asked, most: int) -> list[Neighbour]:
        """Up to `most` examples whose plans can run for the request, most alike first."""
        found: list[Neighbour] = []
        scores = self.alike(asked.request)
        for place in sorted(range(len(scores)), key=lambda place: -scores[place]):
            plan = adapted(self.examples[place], asked)
            if plan is not None:
                found.append(Neighbour(example=self.examples[place], plan=plan, alike=scores[place]))
                if len(found) == most:
                    break
        return found

    def short_list(self, request: str, tools: Sequence[Tool], most: int) -> tuple[Tool, ...]:
        """The tools most likely needed, in their own order.

        A tool is as likely as its description is alike to the request or to a clause of it, or as an example that
        uses it is: of UltraTool's 260, the 20 most likely hold 95 % of those needed; by descriptions alone 90 %.
        """
        if len(tools) <= most:
            return tuple(tools)
        parts = self.encoder.encode([asking(request), *clauses(request)])
        scores = {
            tool.name: max(self.encoder.alike(part, vector) for part in parts)
            for tool, vector in zip(tools, self.encoder.encode([described_as(tool) for tool in tools]), strict=True)
        }
        for example, alike in zip(self.examples, self.alike(request), strict=True):
            for step in example.plan.steps:
                scores[step.capability] = max(scores.get(step.capability, 0.0), alike)
        best = sorted(range(len(tools)), key=lambda place: -scores[tools[place].name])[:most]
        return tuple(tools[place] for place in sorted(best))

    def _vectors(self) -> list[Any]:
        return self.encoder.encode([asking(example.request) for example in self.examples])


class RetrievalParams(Params):
    """`params` of a `retrieval` planner."""

    neighbours: int = Field(8, ge=1, le=100)  # examples that are heard; 1: the nearest decides
    sharpness: float = Field(4.0, ge=0)  # an example's weight is its similarity to this power


class Retrieval(Planner):
    """Looks up, adapts, agrees."""

    def __init__(
        self, entry: PlannerEntry, *, model: Backend | None, embedder: Backend | None, examples: Sequence[Example]
    ) -> None:
        super().__init__(entry, model=model, embedder=embedder, examples=examples)
        self._params = checked_params(entry, RetrievalParams)
        self.library = Library(examples, embedder)

    def plan(self, asked: Asked) -> Planned:
        """The plan most agreed upon. Raises `PlanError` where no stored example fits."""
        near = self.library.nearest(asked, self._params.neighbours)
        if not near:
            raise PlanError([none_fits(asked, len(self.examples))])
        weights = [max(neighbour.alike, 0.0) ** self._params.sharpness for neighbour in near]
        shapes = [neighbour.shape for neighbour in near]
        best = max(range(len(near)), key=lambda place: (agreement(shapes[place], shapes, weights), -place))
        same = sum(shape == shapes[best] for shape in shapes)
        return Planned(
            plan=near[best].plan,
            method=self.entry.method,
            reason=(
                f"As for “{near[best].example.request[:120]}” (similarity {near[best].alike:.2f}); "
                f"{same} of the {len(near)} nearest examples have the same steps."
            ),
            model=None if self.embedder is None else self.embedder.model.name,
        )


def agreement(shape: Shape, shapes: Sequence[Shape], weights: Sequence[float]) -> float:
    """How much a shape has in common with others, capabilities and edges alike, by their weights."""
    return sum(
        weight * (common_nodes(shape, other) + common_edges(shape, other))
        for other, weight in zip(shapes, weights, strict=True)
    )


def none_fits(asked: Asked, count: int) -> str:
    """Why no example helps."""
    kinds = ", ".join(asked.kinds) or "none"
    served = ", ".join(tool.name for tool in asked.tools)
    return (
        f"None of the {count} stored examples fits: attachments {kinds}, capabilities served {served[:500]}; "
        "add an example, or choose another planner."
    )
