"""Prompts of planners: versioned files, the care that quoted text needs, and the JSON schema of a reply.

A version never changes: a better prompt is a new file, so that a stored plan can be read beside what was asked.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import Field

from db.plan import OfOutput, OfText
from worker.params import Params, checked_params
from worker.templates import Prompts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from db.plan import Plan
    from db.registry import PlannerEntry
    from worker.planners import Asked, Example

PROMPTS = Prompts(Path(__file__).parent / "prompts", quotes=("request", "output", "reply", "attachments"), tidy=False)
quoted = PROMPTS.quoted
LONGEST_TEXT = 400  # characters of a step's own words


class PromptParams(Params):
    """`params` that every planner with a prompt takes."""

    prompt: str
    max_new_tokens: int = Field(500, ge=16)
    max_tools: int = Field(20, ge=1)  # capabilities that the model sees, short-listed by description
    examples: int = Field(3, ge=0, le=50)
    variety: float = Field(0.4, ge=0, le=1)  # of the examples: 0 takes the nearest, 1 the most different
    max_request_characters: int = Field(6000, ge=1)


P = TypeVar("P", bound=PromptParams)


def checked_prompt(entry: PlannerEntry, kind: type[P]) -> P:
    """The entry's `params` as `kind`. Raises `RegistryError`, also for a prompt that is no file."""
    params = checked_params(entry, kind)
    PROMPTS.check(params.prompt, f"planners.{entry.name}.params.prompt")
    return params


def render(params: PromptParams, asked: Asked, examples: Sequence[Example], **more: Any) -> str:
    """The prompt of a version, filled in; `asked.tools` are those that the model may use."""
    names = {place: name for place, name in enumerate(asked.names) if name}
    values = {
        "tools": asked.tools,
        "examples": [
            {"request": quoted(example.request), "kinds": example.kinds, "plan": as_json(example.plan)}
            for example in examples
        ],
        "attachments": [(kind, quoted(names.get(place, ""))[:100]) for place, kind in enumerate(asked.kinds)],
        "request": quoted(asked.request.strip()[: params.max_request_characters]),
        "finished": [],
        "error": None,
        "before": None,
    }
    return PROMPTS.render(params.prompt, **{**values, **more})


def as_json(plan: Plan) -> str:
    """A plan as a model should write it: without what is recomputed anyway."""
    steps = [
        {
            "id": step.id,
            "capability": step.capability,
            "inputs": [item.model_dump(mode="json") for item in step.inputs],
        }
        | ({"depends_on": waits} if (waits := [id_ for id_ in step.depends_on if id_ not in step.reads]) else {})
        for step in plan.steps
    ]
    return json.dumps({"steps": steps}, ensure_ascii=False, separators=(",", ":"))


def reply_schema(asked: Asked, *, ids: Sequence[str], before: Sequence[str] = ()) -> dict[str, Any]:
    """What a reply must be: steps by these ids, capabilities served, references that exist.

    `before` are steps that have ended. A schema cannot say which step may read which: that is checked afterwards.
    """
    kinds: list[dict[str, Any]] = []
    if asked.request.strip():
        kinds.append(_object({"request": {"const": True}}))
    if asked.kinds:
        kinds.append(_object({"attachment": {"enum": list(range(len(asked.kinds)))}}))
    kinds.append(_object({"text": {"type": "string", "minLength": 1, "maxLength": LONGEST_TEXT}}))
    readable = [*before, *ids] if len(ids) > 1 else list(before)
    if readable:
        kinds.append(_object({"output": {"enum": readable}}))
    step = _object(
        {
            "id": {"enum": list(ids)},
            "capability": {"enum": [tool.name for tool in asked.tools]},
            "inputs": {"type": "array", "items": {"anyOf": kinds}, "minItems": 1, "maxItems": 8},
        }
    )
    return _object({"steps": {"type": "array", "items": step, "maxItems": len(ids)}})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def renamed(plan: Plan, prefix: str) -> Plan:
    """The same plan with ids s1, s2 ... in its order, as prompts and schemas name them."""
    ids = {step.id: f"{prefix}{number}" for number, step in enumerate(plan.steps, start=1)}
    return plan.model_copy(
        update={
            "steps": tuple(
                step.model_copy(
                    update={
                        "id": ids[step.id],
                        "inputs": tuple(
                            OfOutput(output=ids.get(item.output, item.output)) if isinstance(item, OfOutput) else item
                            for item in step.inputs
                            if not isinstance(item, OfText) or item.text
                        ),
                        "depends_on": tuple(ids.get(id_, id_) for id_ in step.depends_on),
                    }
                )
                for step in plan.steps
            )
        }
    )
