"""What a task may ask: checked the same way at the door (`scheduler.submit`) and at pick-up (SQL inserts)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from db.blobs import AttachmentRef
from db.errors import InvalidRequest
from db.registry import CapabilityEntry, Registry
from db.settings import Settings
from scheduler.media import kind_of

DEEPEST = 32  # levels of options; Postgres and Python both stop far above
LARGEST_INTEGER = 2**63
DEFAULT_CAPABILITY = "text-generation"  # a request without a capability, until a planner splits it


class TaskOptions(BaseModel):
    """What a caller may set per task; everything has a default. Unknown keys are refused, with the known ones named."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    candidates: int | None = Field(None, ge=1, le=16, description="models per subtask, instead of BAKEOFF_CANDIDATES")
    models: tuple[str, ...] = Field((), max_length=16, description="these models and no others")
    judge: str | None = Field(None, description="a judge of the registry, instead of the capability's")
    quorum: int = Field(1, ge=1, le=16, description="answers that a judge needs when the deadline passes")
    cache: bool = Field(default=True, description="false: run the models even where their outputs are stored")
    params: dict[str, Any] = Field({}, description="handed to every model: max_new_tokens, temperature, language ...")


def check_storable(field: str, value: Any, depth: int = 0) -> None:  # noqa: C901 - one branch per kind of value
    """Whether Postgres and JSON can hold a value. Raises `InvalidRequest`, which says what is wrong with it."""
    if depth > DEEPEST:
        raise InvalidRequest(f"{field} is nested over {DEEPEST} levels deep.")
    if isinstance(value, str):
        if "\x00" in value:
            raise InvalidRequest(f"{field} holds a zero character (U+0000), which Postgres does not; remove it.")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest(f"{field} is not valid Unicode at character {error.start}.") from None
    elif isinstance(value, Mapping):
        for key, item in value.items():
            check_storable(field, key, depth + 1)
            check_storable(field, item, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            check_storable(field, item, depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise InvalidRequest(f"{field} holds {value}, which is no JSON number.")
    elif isinstance(value, int) and abs(value) > LARGEST_INTEGER:
        raise InvalidRequest(f"{field} holds a whole number of over 64 bits.")
    elif value is not None and not isinstance(value, bool | int | float):
        raise InvalidRequest(f"{field} holds a {type(value).__name__}, which is not JSON.")


def parse_options(options: Mapping[str, Any]) -> TaskOptions:
    """Check a task's options. Raises `InvalidRequest`, which names the key, the value and the way out."""
    check_storable("options", options)
    try:
        return TaskOptions.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = ", ".join(TaskOptions.model_fields)
            raise InvalidRequest(f"options.{key} is not an option; there are: {known}.") from None
        shown = json.dumps(first["input"], default=str)[:200]
        raise InvalidRequest(f"options.{key} = {shown}: {first['msg']}.") from None


def parse_attachments(attachments: Sequence[Any]) -> list[AttachmentRef]:
    """Check a task's attachment references. Raises `InvalidRequest`."""
    try:
        return [AttachmentRef.model_validate(item) for item in attachments]
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "element"
        raise InvalidRequest(
            f"attachments: {key}: {first['msg']}; each element is an object with sha256 (of an uploaded file) and name."
        ) from None


def check_request(
    registry: Registry,
    settings: Settings,
    *,
    request: str,
    capability: str | None,
    options: TaskOptions,
    media_types: Sequence[tuple[str, str]],
) -> CapabilityEntry:
    """Whether a task can run, and as what. `media_types` holds (name, media type) of each attachment.

    Raises `InvalidRequest`, a sentence with the field, the value and the way out.
    """
    entry = _capability(registry, capability or DEFAULT_CAPABILITY)
    if len(request) > settings.max_request_chars:
        raise InvalidRequest(
            f"The request has {len(request)} characters; BAKEOFF_MAX_REQUEST_CHARS allows {settings.max_request_chars}."
        )
    if len(media_types) > settings.max_attachments:
        raise InvalidRequest(
            f"The task has {len(media_types)} attachments; BAKEOFF_MAX_ATTACHMENTS allows {settings.max_attachments}."
        )
    size = len(json.dumps(options.model_dump(mode="json")))
    if size > settings.max_options_bytes:
        raise InvalidRequest(
            f"options has {size} bytes as JSON; BAKEOFF_MAX_OPTIONS_BYTES allows {settings.max_options_bytes}."
        )
    _check_inputs(entry, request, media_types)
    _check_names(registry, entry, options)
    if options.quorum > (wanted := candidates_of(entry, options, settings)):
        raise InvalidRequest(
            f"options.quorum = {options.quorum} can never be met: {wanted} model(s) are asked; see options.candidates."
        )
    return entry


def candidates_of(entry: CapabilityEntry, options: TaskOptions, settings: Settings) -> int:
    """How many models a subtask asks: what the caller says, else the models named, the capability's, the setting."""
    return options.candidates or len(options.models) or entry.candidates or settings.candidates


def _capability(registry: Registry, name: str) -> CapabilityEntry:
    served = sorted({model.capability for model in registry.models.values()})
    if name not in registry.capabilities:
        variants = [known for known in registry.capabilities if known.partition("/")[0] == name]
        hint = f" Did you mean {' or '.join(sorted(variants))}?" if variants else f" There are: {', '.join(served)}."
        raise InvalidRequest(f"No capability {name!r}.{hint}")
    if name not in served:
        raise InvalidRequest(
            f"No model of this installation serves {name!r}; it serves: {', '.join(served)}. "
            "Add a model to models.toml, or choose another profile with BAKEOFF_PROFILE."
        )
    return registry.capabilities[name]


def _check_inputs(entry: CapabilityEntry, request: str, media_types: Sequence[tuple[str, str]]) -> None:
    if entry.input == "text":
        if not request.strip():
            raise InvalidRequest(f"{entry.name} reads text, and the request is empty; say what you want.")
        if media_types:
            raise InvalidRequest(f"{entry.name} reads no files; leave the attachments out, or name another capability.")
        return
    if not media_types:
        raise InvalidRequest(
            f"{entry.name} reads {_article(entry.input)} file, and none is attached; use --attach FILE."
        )
    if len(media_types) > entry.files:
        raise InvalidRequest(
            f"{entry.name} reads {entry.files} file(s) per task, and {len(media_types)} are attached; "
            "send a task for each."
        )
    for name, media_type in media_types:
        if kind_of(media_type) != entry.input:
            raise InvalidRequest(
                f"{entry.name} reads {_article(entry.input)} file, and {name or 'the attachment'} is {media_type} "
                "by its content."
            )


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _check_names(registry: Registry, entry: CapabilityEntry, options: TaskOptions) -> None:
    able = sorted(model.name for model in registry.models.values() if model.capability == entry.name)
    for name in options.models:
        if name not in able:
            raise InvalidRequest(
                f"options.models names {name!r}, which does not serve {entry.name}; use: {', '.join(able)}."
            )
    if options.judge is not None and options.judge not in registry.judges:
        raise InvalidRequest(f"options.judge = {options.judge!r} is unknown; there are: {', '.join(registry.judges)}.")
