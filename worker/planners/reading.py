"""A plan out of what a model wrote: its JSON is found and read, never evaluated.

A caller's plan (an object) must follow the schema to the letter. A model's text may say the same in other words: text
around the JSON, `task` for `capability`, numbers for ids, HuggingGPT's `dep` and `args`, a bare string for an input.
What is lost on the way is nothing but keys that no step has.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from db.plan import Plan, PlanError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LONGEST = 200_000  # characters of a text that is searched for a plan
MOST_STARTS = 500  # brackets tried as the beginning of one

ROOTS = ("steps", "plan", "tasks", "subtasks")
CAPABILITY = ("capability", "task", "tool", "action")
INPUTS = ("inputs", "input", "args", "arguments")
DEPENDS = ("depends_on", "dep", "deps", "dependencies")
KINDS = ("request", "attachment", "text", "output")
FILES = ("image", "audio", "file", "document", "video")
NONE = (-1, "-1", None, "")  # HuggingGPT's way to say that a step waits for nobody

#: pydantic's kinds of fault in our words, where its own do not fit a plan
FAULTS = {
    "extra_forbidden": "There is no such field here",
    "model_type": "This must be an object",
    "missing": "This field is missing",
}

ATTACHMENT = re.compile(r"<?attachment[ :#_-]*(\d{1,3})>?", re.IGNORECASE)


def read_plan(written: Any, *, names: Sequence[str] = ()) -> Plan:
    """The plan in a model's text, or the plan that an object is. `names` are what the attachments are called.

    Raises `PlanError`: no JSON, JSON that is no plan, or fields that no step has.
    """
    if isinstance(written, Plan):
        return written
    if not isinstance(written, str):
        return _validated({"steps": written} if isinstance(written, list | tuple) else written)
    steps = _found(written)
    ids = {str(_first(step, ("id",))) for step in steps}
    problems: list[str] = []
    read = [_step(step, number, names, ids, problems) for number, step in enumerate(steps, start=1)]
    if problems:
        raise PlanError(problems)
    return _validated({"steps": read})


def _validated(value: Any) -> Plan:
    try:
        return Plan.model_validate(value)
    except ValidationError as error:
        raise PlanError([_sentence(fault) for fault in error.errors()[:10]]) from None
    except RecursionError:
        raise PlanError(["The plan is nested too deep to be one."]) from None


def _sentence(fault: Any) -> str:
    parts = list(fault["loc"])
    # What follows an input's number is the form that it was read as, which nobody wrote.
    kept = [part for place, part in enumerate(parts) if place < 2 or parts[place - 2] != "inputs" or part not in KINDS]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in kept).lstrip(".") or "The plan"
    return f"{where}: {FAULTS.get(fault['type'], fault['msg'])} (given: {repr(fault.get('input'))[:80]})."


# --- finding ------------------------------------------------------------------------------------------------------


def _found(text: str) -> list[dict[str, Any]]:
    """The steps in a text: of the longest JSON value that is a plan, else of loose steps that stand in a row."""
    if text.strip() == "[]":
        return []
    loose: list[dict[str, Any]] = []
    best: list[dict[str, Any]] | None = None
    longest = end = 0
    for value, start, stop in _values(text[:LONGEST]):
        steps = _steps_of(value)
        if steps is None:
            continue
        if isinstance(value, dict) and steps and steps[0] is value:
            loose.append(value)
            end = stop
        elif stop - start > longest:
            best, longest = steps, stop - start
    if best is not None:
        return best
    if loose and "{" not in text[end:] and ("[" not in text or "]" in text[end:]):
        return loose
    if loose or re.search(r"[\[{]", text):
        raise PlanError(["The JSON of the plan is broken or cut off; write one JSON object, to its end."])
    raise PlanError(['The text holds no JSON; write {"steps": [...]} and nothing else.'])


def _values(text: str) -> Iterator[tuple[Any, int, int]]:
    decoder = json.JSONDecoder()
    place = 0
    for _ in range(MOST_STARTS):
        match = re.compile(r"[\[{]").search(text, place)
        if match is None:
            return
        try:
            value, place = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            place = match.start() + 1
        else:
            yield value, match.start(), place


def _steps_of(value: Any) -> list[dict[str, Any]] | None:
    """The steps of a value that is a plan, or a single step; None for another value."""
    if isinstance(value, dict):
        for root in ROOTS:
            if isinstance(value.get(root), list):
                return _steps_of(value[root]) if value[root] else []
        return [value] if isinstance(_first(value, CAPABILITY), str) else None
    if (
        isinstance(value, list)
        and value
        and all(isinstance(item, dict) and isinstance(_first(item, CAPABILITY), str) for item in value)
    ):
        return value
    return None


def _first(step: dict[str, Any], keys: Sequence[str]) -> Any:
    return next((step[key] for key in keys if key in step), None)


# --- reading ------------------------------------------------------------------------------------------------------


def _step(
    step: dict[str, Any], number: int, names: Sequence[str], ids: set[str], problems: list[str]
) -> dict[str, Any]:
    raw_id = step.get("id")
    name = _plain_id(number if raw_id in NONE or isinstance(raw_id, dict | list) else raw_id)
    inputs = _first(step, INPUTS)
    read = list(_references(inputs, names, ids)) if inputs is not None else []
    problems += [f"Step {name}: {item} is no input." for item in read if isinstance(item, str)]
    depends = _first(step, DEPENDS)
    listed = depends if isinstance(depends, list) else [depends]
    capability = re.sub(r"[\s_]+", "-", str(_first(step, CAPABILITY)).strip().lower())
    return {
        "id": name,
        "capability": re.sub(r"[^a-z0-9/-]+|(?<![a-z0-9])-|-(?![a-z0-9])", "", capability),
        "inputs": [item for item in read if not isinstance(item, str)],
        "depends_on": [_plain_id(item) for item in listed if not isinstance(item, dict | list) and item not in NONE],
    }


def _plain_id(value: Any) -> str:
    plain = re.sub(r"[^A-Za-z0-9_./-]+", "-", str(value).strip()).lstrip("_./-")
    return plain[:63]


def _references(value: Any, names: Sequence[str], ids: set[str]) -> Iterator[dict[str, Any] | str]:
    """The references that a value stands for; a string is what cannot be read."""
    if isinstance(value, list):
        for item in value:
            yield from _references(item, names, ids)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _named(key, item, names, ids)
    elif isinstance(value, str):
        yield from _words(value, names, ids)
    elif value is not None:
        yield repr(value)[:80]


def _named(key: str, item: Any, names: Sequence[str], ids: set[str]) -> Iterator[dict[str, Any] | str]:
    if key == "request":
        if item is not False:
            yield {"request": True}
    elif key == "attachment" and str(item).isdecimal():
        yield {"attachment": int(str(item)[:4])}
    elif key == "output" and isinstance(item, str | int) and not isinstance(item, bool):
        yield {"output": _plain_id(item)}
    elif key == "text" and isinstance(item, str):
        yield from _words(item, names, set())
    elif key in FILES and isinstance(item, str) and item not in names and "<" not in item:
        return  # a file by a name that nobody gave: which one is meant is for the check to say
    else:
        yield from _references(item, names, ids)


def _words(text: str, names: Sequence[str], ids: set[str]) -> Iterator[dict[str, Any]]:
    plain = text.strip()
    attachment = ATTACHMENT.fullmatch(plain)
    if plain in names:
        yield {"attachment": names.index(plain)}
    elif attachment:
        yield {"attachment": int(attachment[1])}
    elif plain in {"request", "<request>"}:
        yield {"request": True}
    elif plain in ids:
        yield {"output": _plain_id(plain)}
    elif plain:
        yield {"text": plain}
