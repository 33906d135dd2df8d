"""Why a plan cannot run: capabilities, references, types along every edge, cycles."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from db.plan import OfAttachment, OfOutput, OfRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from db.plan import Plan, Step, Tool

WORDS = frozenset({"text", "labels"})  # kinds of output that can be read as text
FILES = frozenset({"image", "audio"})


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What a plan stands on. `finished`: capability of each step that ended before this plan, by id."""

    tools: Mapping[str, Tool]
    kinds: Sequence[str]
    has_request: bool
    max_steps: int
    finished: Mapping[str, str] = field(default_factory=dict)

    def only(self, kind: str) -> int | None:
        """The attachment of a kind, where exactly one is."""
        places = [place for place, found in enumerate(self.kinds) if found == kind]
        return places[0] if len(places) == 1 else None

    def writes(self, plan: Plan, id_: str) -> str | None:
        """Kind of a step's output; None for a step or a capability that nobody knows."""
        capability = next((step.capability for step in plan.steps if step.id == id_), self.finished.get(id_))
        tool = self.tools.get(capability or "")
        return None if tool is None else tool.output


def faults(plan: Plan, ground: Ground) -> list[str]:
    """Why a plan cannot run, one sentence per fault; empty where it can."""
    found: list[str] = []
    if len(plan.steps) > ground.max_steps:
        found.append(f"The plan has {len(plan.steps)} steps; {ground.max_steps} are allowed.")
    times = Counter(step.id for step in plan.steps)
    found += [f"{count} steps are called {id_!r}; give each its own id." for id_, count in times.items() if count > 1]
    found += [f"A step called {id_!r} has already ended; choose another id." for id_ in times if id_ in ground.finished]
    for step in plan.steps:
        found += _references(step, set(times) | set(ground.finished))
        tool = ground.tools.get(step.capability)
        if tool is None:
            known = ", ".join(sorted(ground.tools)) or "none"
            found.append(f"Step {step.id}: no capability {step.capability!r} is served here; there are: {known}.")
        else:
            found += _types(plan, step, tool, ground)
    return found + _cycle(plan)


def _references(step: Step, known: set[str]) -> list[str]:
    found = []
    for id_ in dict.fromkeys((*step.reads, *step.depends_on)):
        verb = "reads the output of" if id_ in step.reads else "waits for"
        if id_ == step.id:
            found.append(f"Step {step.id} {verb} itself.")
        elif id_ not in known:
            steps = ", ".join(sorted(known - {step.id})) or "none"
            found.append(f"Step {step.id} {verb} {id_!r}, which is no step; there are: {steps}.")
    return found


def _types(plan: Plan, step: Step, tool: Tool, ground: Ground) -> list[str]:
    """Faults of what one step reads, by kind."""
    found: list[str] = []
    files = words = 0
    for item in step.inputs:
        if isinstance(item, OfAttachment):
            files += 1
            found += _attachment(step, item.attachment, tool, ground)
        elif isinstance(item, OfOutput):
            kind = ground.writes(plan, item.output)
            files += kind == tool.input and kind in FILES
            words += kind in WORDS
            if kind is not None and kind not in WORDS and kind != tool.input:
                found.append(f"Step {step.id}: {tool.name} cannot read the {kind} that {item.output} writes.")
        else:
            words += 1
            if isinstance(item, OfRequest) and not ground.has_request:
                found.append(f"Step {step.id} reads the request, which is empty.")
    if tool.input in FILES and files == 0 and not found:
        found.append(f"Step {step.id}: {tool.name} reads {tool.input} files, and the step names none.")
    if tool.input in FILES and files > tool.files:
        found.append(
            f"Step {step.id} reads {files} files; {tool.name} takes {tool.files} at a time: add a step for each."
        )
    if tool.input == "text" and words + files == 0 and not step.reads:
        found.append(f"Step {step.id}: {tool.name} reads text, and the step has no input.")
    return found


def _attachment(step: Step, number: int, tool: Tool, ground: Ground) -> list[str]:
    if number >= len(ground.kinds):
        there = f"the task has {len(ground.kinds)}, counted from 0" if ground.kinds else "the task has none"
        return [f"Step {step.id} reads attachment {number}; {there}."]
    kind = ground.kinds[number]
    if tool.input == "text":
        return [f"Step {step.id}: {tool.name} reads text and no files; attachment {number} is {kind}."]
    if kind != tool.input:
        return [f"Step {step.id}: {tool.name} reads {tool.input}, and attachment {number} is {kind}."]
    return []


def _cycle(plan: Plan) -> list[str]:
    waits: dict[str, set[str]] = {step.id: set() for step in plan.steps}
    for before, after in plan.edges:
        if before != after and before in waits:
            waits[after].add(before)
    try:
        TopologicalSorter(waits).prepare()
    except CycleError as error:
        around = [str(id_) for id_ in error.args[1]]
        return [f"Steps wait for each other in a circle: {' → '.join(around)}."]
    return []
