"""A plan that can run here: what `checked` returns does.

A caller's plan is refused with every reason (`worker.planners.faults`); a model's plan is repaired first, where one
repair is certain (`worker.planners.repairing`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from db.plan import Plan, PlanError, Step, Tool
from worker.planners.faults import Ground, faults
from worker.planners.reading import read_plan
from worker.planners.repairing import repaired

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from db.registry import Registry

__all__ = ["checked", "read_plan", "tools_of"]


def tools_of(registry: Registry) -> tuple[Tool, ...]:
    """The capabilities that a model of the registry serves and a plan may name, in the registry's order.

    A vector is for no reader of a plan, so what writes one is left out.
    """
    served = registry.served
    return tuple(
        Tool(name=name, input=entry.input, output=entry.output, description=entry.instruction, files=entry.files)
        for name, entry in registry.capabilities.items()
        if name in served and entry.output != "vector"
    )


def checked(
    plan: Plan,
    *,
    tools: Sequence[Tool],
    kinds: Sequence[str],
    has_request: bool,
    max_steps: int,
    repair: bool,
    finished: Mapping[str, str] | None = None,
) -> tuple[Plan, list[str]]:
    """The plan with its dependencies recomputed, and what was repaired in it, in sentences.

    `kinds` are those of the attachments, in order; `finished` names the capability of steps that ended before (a plan
    made step by step may read them). Raises `PlanError` with every reason why it cannot run.
    """
    ground = Ground(
        tools={tool.name: tool for tool in tools},
        kinds=kinds,
        has_request=has_request,
        max_steps=max_steps,
        finished=finished or {},
    )
    repairs: list[str] = []
    if repair:
        plan, repairs = repaired(plan, ground)
    reasons = faults(plan, ground)
    if reasons:
        raise PlanError(reasons)
    return Plan(steps=tuple(_recomputed(step) for step in plan.steps)), repairs


def _recomputed(step: Step) -> Step:
    """What it reads first, then what it waits for without reading."""
    return step.model_copy(update={"depends_on": tuple(dict.fromkeys((*step.reads, *step.depends_on)))})
