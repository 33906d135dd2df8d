"""An example's plan for another request: its attachments become the request's own.

The kinds must fit. One image of the example may stand for several of the request: a step that reads it is repeated for
each (or reads them all, where its capability takes several files), and what reads that step reads every copy.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from db.plan import OfAttachment, OfOutput, Plan, PlanError, Reference, Step
from worker.planners.checking import checked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from db.plan import Tool
    from worker.planners import Asked, Example


def adapted(example: Example, asked: Asked) -> Plan | None:
    """The example's plan with the request's attachments, checked; None where it does not fit the request."""
    tools = {tool.name: tool for tool in asked.tools}
    if any(step.capability not in tools for step in example.plan.steps):
        return None
    places = _places(example.kinds, asked.kinds)
    if places is None:
        return None
    try:
        plan, _ = checked(
            _rewritten(example.plan, places, tools),
            tools=asked.tools,
            kinds=asked.kinds,
            has_request=bool(asked.request.strip()),
            max_steps=asked.max_steps,
            repair=False,
        )
    except PlanError:
        return None
    return plan


def _places(there: Sequence[str], here: Sequence[str]) -> dict[int, list[int]] | None:
    """For each attachment of the example, those of the request that it stands for; None where the kinds do not fit."""
    if set(there) != set(here):
        return None
    counts, wanted = Counter(there), Counter(here)
    if any(counts[kind] not in {1, wanted[kind]} for kind in counts):
        return None
    of_kind = {kind: [place for place, found in enumerate(here) if found == kind] for kind in wanted}
    return {
        place: of_kind[kind] if counts[kind] == 1 else [of_kind[kind][there[:place].count(kind)]]
        for place, kind in enumerate(there)
    }


def _rewritten(plan: Plan, places: Mapping[int, Sequence[int]], tools: Mapping[str, Tool]) -> Plan:
    copies: dict[str, list[Step]] = {step.id: _copies(step, places, tools[step.capability]) for step in plan.steps}
    return Plan(steps=tuple(_reread(copy, copies) for step in plan.steps for copy in copies[step.id]))


def _copies(step: Step, places: Mapping[int, Sequence[int]], tool: Tool) -> list[Step]:
    """One step for all attachments that it may read at once, else one for each."""
    read = [item.attachment for item in step.inputs if isinstance(item, OfAttachment)]
    targets = [places.get(number, [number]) for number in read]
    if not read or sum(len(found) for found in targets) <= tool.files:
        return [_with_files(step, step.id, dict(zip(read, targets, strict=True)))]
    most = max(len(found) for found in targets)
    return [
        _with_files(
            step,
            step.id if number == 0 else f"{step.id}-{number + 1}",
            {place: [found[min(number, len(found) - 1)]] for place, found in zip(read, targets, strict=True)},
        )
        for number in range(most)
    ]


def _with_files(step: Step, id_: str, targets: Mapping[int, Sequence[int]]) -> Step:
    inputs: list[Reference] = []
    for item in step.inputs:
        if isinstance(item, OfAttachment):
            inputs += [OfAttachment(attachment=place) for place in targets[item.attachment]]
        else:
            inputs.append(item)
    return step.model_copy(update={"id": id_, "inputs": tuple(inputs)})


def _reread(step: Step, copies: Mapping[str, Sequence[Step]]) -> Step:
    inputs: list[Reference] = []
    for item in step.inputs:
        if isinstance(item, OfOutput):
            inputs += [OfOutput(output=copy.id) for copy in copies.get(item.output, ())]
        else:
            inputs.append(item)
    depends = tuple(copy.id for id_ in step.depends_on for copy in copies.get(id_, ()))
    return step.model_copy(update={"inputs": tuple(inputs), "depends_on": depends})
