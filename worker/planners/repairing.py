"""Repairs of a plan that are certain: one reading of it can run. Each is said in a sentence; nothing is guessed.

| fault | repair |
|---|---|
| a capability spelled differently, or without its variant | the only one served that fits |
| `<GENERATED>-3`, `<resource-3>` in a text; a step's id spelled differently | the output of that step |
| a step that waits for, or reads, itself | the reference is removed |
| a step that reads files: none named, or a wrong one | the only attachment of its kind |
| a text step that reads a file | the output of the only step that reads the file, where there is one |
| a text step that waits for a step which it does not read | its output becomes an input |
| a text step without an input | it reads the request |
| the request is read, and is empty | the reference is removed, where others remain |
| two steps that are the same | one |
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from db.plan import OfAttachment, OfOutput, OfRequest, OfText, Plan, Reference, Step
from worker.planners.faults import FILES, WORDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from db.plan import Tool
    from worker.planners.faults import Ground

GENERATED = re.compile(
    r"<(?:GENERATED|resource|node|output)(?:>-|-)([A-Za-z0-9_./-]+?)(?:>|(?![A-Za-z0-9_./-]))", re.IGNORECASE
)
ALIKE = 0.9  # similarity from which two names are one name and a slip of the pen


def repaired(plan: Plan, ground: Ground) -> tuple[Plan, list[str]]:
    """The plan with everything mended that has one certain repair, and the repairs in sentences."""
    said: list[str] = []
    steps = tuple(_capability(step, ground, said) for step in plan.steps)
    ids = [*(step.id for step in steps), *ground.finished]
    plan = Plan(steps=tuple(_references(step, ids, said) for step in steps))
    plan = Plan(steps=tuple(_inputs(plan, step, ground, said) for step in plan.steps))
    return _merged(plan, said), said


def _changed(step: Step, inputs: Iterable[Reference], **more: object) -> Step:
    return step.model_copy(update={"inputs": tuple(dict.fromkeys(inputs)), **more})


# --- names --------------------------------------------------------------------------------------------------------


def _capability(step: Step, ground: Ground, said: list[str]) -> Step:
    if step.capability in ground.tools:
        return step
    name = only_fit(step.capability, list(ground.tools))
    if name is None:
        return step
    said.append(f"Step {step.id}: {step.capability!r} is {name!r}, the only capability served that fits.")
    return step.model_copy(update={"capability": name})


def only_fit(wanted: str, names: Sequence[str]) -> str | None:
    """The only name that the wanted one can be: another spelling, the variant alone, or a name without its variant."""
    for kind in (_letters, _base, _variant):
        fits = [name for name in names if kind(name) and kind(name) == (kind(wanted) or _letters(wanted))]
        if len(fits) == 1:
            return fits[0]
        if fits:
            return None
    alike = difflib.get_close_matches(wanted, names, n=2, cutoff=ALIKE)
    return alike[0] if len(alike) == 1 else None


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _base(name: str) -> str:
    return _letters(name.partition("/")[0])


def _variant(name: str) -> str:
    return _letters(name.partition("/")[2])


def _references(step: Step, ids: Sequence[str], said: list[str]) -> Step:
    """References by the right id, out of texts, and none to the step itself."""
    inputs: list[Reference] = []
    for item in step.inputs:
        inputs += _split(step, item, ids, said) if isinstance(item, OfText) else [_renamed(step, item, ids, said)]
    depends = [_known(step, id_, ids, said) for id_ in step.depends_on]
    if OfOutput(output=step.id) in inputs or step.id in depends:
        said.append(f"Step {step.id} no longer waits for itself.")
    return _changed(
        step,
        (item for item in inputs if item != OfOutput(output=step.id)),
        depends_on=tuple(dict.fromkeys(id_ for id_ in depends if id_ != step.id)),
    )


def _renamed(step: Step, item: Reference, ids: Sequence[str], said: list[str]) -> Reference:
    return OfOutput(output=_known(step, item.output, ids, said)) if isinstance(item, OfOutput) else item


def _known(step: Step, id_: str, ids: Sequence[str], said: list[str]) -> str:
    found = _by_id(id_, ids)
    if found is None or found == id_:
        return id_
    said.append(f"Step {step.id}: {id_!r} is step {found!r}.")
    return found


def _by_id(wanted: str, ids: Sequence[str]) -> str | None:
    """The step that an id means: itself, else the only one with the same letters, else with the same number."""
    if wanted in ids:
        return wanted
    for kind in (_letters, _number):
        fits = {id_ for id_ in ids if kind(id_) and kind(id_) == kind(wanted)}
        if len(fits) == 1:
            return fits.pop()
    return None


def _number(id_: str) -> str:
    """The number of `3`, `s3`, `step-3`; empty for an id that says more than its number."""
    match = re.fullmatch(r"(?:s|step|t|task|node)?[ _-]?(\d+)", id_.lower())
    return match[1] if match else ""


def _split(step: Step, item: OfText, ids: Sequence[str], said: list[str]) -> list[Reference]:
    """A text with `<GENERATED>-3` in it as texts and outputs."""
    parts: list[Reference] = []
    place = 0
    for match in GENERATED.finditer(item.text):
        found = _by_id(match[1], ids)
        if found is not None:
            words = item.text[place : match.start()].strip()
            parts += [OfText(text=words)] if words else []
            parts.append(OfOutput(output=found))
            place = match.end()
            said.append(f"Step {step.id}: {match[0]!r} in its text is the output of step {found!r}.")
    rest = item.text[place:].strip(" \n.'\"") if parts else item.text
    return [*parts, OfText(text=rest)] if rest else parts


# --- what a step reads --------------------------------------------------------------------------------------------


def _inputs(plan: Plan, step: Step, ground: Ground, said: list[str]) -> Step:
    tool = ground.tools.get(step.capability)
    if tool is None:
        return step
    step = _file_step(plan, step, tool, ground, said) if tool.input in FILES else _text_step(plan, step, ground, said)
    others = [item for item in step.inputs if not isinstance(item, OfRequest)]
    if not ground.has_request and others and len(others) < len(step.inputs):
        said.append(f"Step {step.id} no longer reads the request, which is empty.")
        return _changed(step, others)
    return step


def _file_step(plan: Plan, step: Step, tool: Tool, ground: Ground, said: list[str]) -> Step:
    only = ground.only(tool.input)
    if only is None:
        return step
    right = OfAttachment(attachment=only)
    named = [item for item in step.inputs if isinstance(item, OfAttachment)]
    wrong = [item for item in named if item != right]
    said += [
        f"Step {step.id} reads attachment {only}, not {item.attachment}: it is the only one of kind {tool.input}."
        for item in wrong
    ]
    if wrong:
        return _changed(step, (right if item in wrong else item for item in step.inputs))
    if named or any(ground.writes(plan, id_) == tool.input for id_ in step.reads):
        return step
    said.append(f"Step {step.id} named no file; it reads attachment {only}, the only one of kind {tool.input}.")
    return _changed(step, (right, *step.inputs))


def _text_step(plan: Plan, step: Step, ground: Ground, said: list[str]) -> Step:
    inputs: list[Reference] = []
    for item in step.inputs:
        reader = _only_reader(plan, step, item.attachment, ground) if isinstance(item, OfAttachment) else None
        if reader is not None:
            said.append(f"Step {step.id} reads what step {reader!r} says of the file, not the file.")
        inputs.append(item if reader is None else OfOutput(output=reader))
    for id_ in step.depends_on:
        if id_ not in step.reads and ground.writes(plan, id_) in WORDS and OfOutput(output=id_) not in inputs:
            said.append(f"Step {step.id} waits for step {id_!r}; it now reads its output.")
            inputs.append(OfOutput(output=id_))
    if not inputs and ground.has_request:
        said.append(f"Step {step.id} had no input; it reads the request.")
        inputs.append(OfRequest())
    return _changed(step, inputs)


def _only_reader(plan: Plan, step: Step, attachment: int, ground: Ground) -> str | None:
    """The only other step that reads an attachment and says something of it in words."""
    readers = [
        other.id
        for other in plan.steps
        if other.id != step.id
        and OfAttachment(attachment=attachment) in other.inputs
        and (tool := ground.tools.get(other.capability)) is not None
        and tool.input in FILES
        and tool.output in WORDS
    ]
    return readers[0] if len(readers) == 1 and attachment < len(ground.kinds) else None


# --- duplicates ---------------------------------------------------------------------------------------------------


def _merged(plan: Plan, said: list[str]) -> Plan:
    """Equal steps as one, until no two are equal: what reads either may have become equal itself."""
    while True:
        first: dict[str, Step] = {}
        renamed: dict[str, str] = {}
        for step in plan.steps:
            key = step.model_copy(update={"id": "same"}).model_dump_json()
            if key not in first:
                first[key] = step
            else:
                renamed[step.id] = first[key].id
                said.append(f"Step {step.id} is the same as step {first[key].id!r}; it is done once.")
        if not renamed:
            return plan
        plan = Plan(steps=tuple(_redirected(step, renamed) for step in first.values()))


def _redirected(step: Step, renamed: dict[str, str]) -> Step:
    inputs = [
        OfOutput(output=renamed.get(item.output, item.output)) if isinstance(item, OfOutput) else item
        for item in step.inputs
    ]
    return _changed(step, inputs, depends_on=tuple(dict.fromkeys(renamed.get(id_, id_) for id_ in step.depends_on)))
