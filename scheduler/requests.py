"""What a task may ask: checked the same way at the door (`scheduler.submit`) and at pick-up (SQL inserts)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from db.alike import did_you_mean
from db.blobs import AttachmentRef, kind_of
from db.errors import InvalidRequest
from db.plan import OfAttachment, OfRequest, Plan, Reference, Step
from db.registry import CapabilityEntry, Registry
from db.settings import Settings
from scheduler.selectors import checked_selectors
from worker.judges.expecting import Expect, fault_of, lacks_components
from worker.planners.checking import checked, tools_of

DEEPEST = 32  # levels of options; Postgres and Python both stop far above
LARGEST_INTEGER = 2**63
DEFAULT_CAPABILITY = "text-generation"  # a request without a capability, until a planner splits it


class TaskOptions(BaseModel):
    """What a caller may set per task; everything has a default. Unknown keys are refused, with the known ones named."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    candidates: int | None = Field(None, ge=1, le=16, description="models per subtask, instead of BAKEOFF_CANDIDATES")
    models: tuple[str, ...] = Field((), max_length=16, description="these models and no others")
    selectors: tuple[str, ...] = Field((), max_length=8, description="who proposes models, instead of the capability's")
    adaptive: float | None = Field(
        None, gt=0, le=1, description="as few of the candidates as give this chance that the right answer is among them"
    )
    judge: str | tuple[str, ...] | None = Field(
        None, description="a judge of the registry, instead of the capability's, or several: the next where one fails"
    )
    expect: Expect | None = Field(None, description="what an answer must hold: hard checks, components by weight")
    quorum: int = Field(1, ge=1, le=16, description="answers that a judge needs when the deadline or the grace is over")
    grace: float | None = Field(
        None, ge=0, le=86_400, description="seconds that the others have once the quorum is in; then they are cancelled"
    )
    min_confidence: float | None = Field(
        None, ge=0, le=1, description="a verdict below it, or that nobody judged, is flagged `needs_review`"
    )
    max_calls: int | None = Field(
        None, ge=1, le=4096, description="candidates of the whole task; subtasks get fewer where they are too many"
    )
    cache: bool = Field(default=True, description="false: run the models even where their outputs are stored")
    params: dict[str, Any] = Field({}, description="handed to every model: max_new_tokens, temperature, language ...")
    planner: str | None = Field(
        None, description="a planner of the registry, or `none`: the request is one text-generation subtask"
    )
    subtasks: tuple[Step, ...] | None = Field(
        None, min_length=1, max_length=256, description="the plan, where the caller has it: id, capability, inputs"
    )
    integrate: str | None = Field(
        None, description="an integrator of the registry, or `none`: the results are the answer, as they are"
    )

    @property
    def judges(self) -> tuple[str, ...]:
        """The judges named, in the order in which they are asked."""
        return (self.judge,) if isinstance(self.judge, str) else self.judge or ()


#: Options that a step of a plan may have for itself; what it leaves out, its task's options say.
STEP_OPTIONS = frozenset(
    {"candidates", "models", "selectors", "adaptive", "judge", "expect", "quorum", "grace", "min_confidence", "cache",
     "params"}
)  # fmt: skip
NOBODY = "none"
MOST_JUDGES = 8


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
        if first["loc"][0] == "expect":
            raise InvalidRequest(fault_of(error)) from None
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = ", ".join(TaskOptions.model_fields)
            raise InvalidRequest(f"options.{key} is not an option; there are: {known}.") from None
        shown = json.dumps(first["input"], default=str)[:200]
        if first["loc"][0] == "judge":
            raise InvalidRequest(
                f"options.judge = {shown} is neither the name of a judge nor a list of names."
            ) from None
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
) -> Plan | None:
    """Whether a task can run: its plan, where it is known already; None where a planner has to be asked first.

    `media_types` holds (name, media type) of each attachment. Raises `InvalidRequest`, a sentence with the field, the
    value and the way out.
    """
    _check_sizes(settings, request, options, len(media_types))
    for key, name, known in (
        ("planner", options.planner, registry.planners),
        ("integrate", options.integrate, registry.integrators),
    ):
        if name not in {None, NOBODY, *known}:
            hint = did_you_mean(str(name), [*known, NOBODY])
            raise InvalidRequest(
                f"options.{key} = {name!r} is unknown; there are: {', '.join([*known, NOBODY])}.{hint}"
            )
    checked_selectors(options.selectors)
    named = options.subtasks is None and (capability is not None or planner_of(registry, options) is None)
    if not named and not request and not media_types:
        raise InvalidRequest("The request is empty and nothing is attached; say in words what is wanted.")
    if options.subtasks is not None:
        plan = _explicit(registry, settings, request, capability, options, media_types)
    elif capability is None and planner_of(registry, options) is not None:
        _check_known(registry, options)
        return None
    else:
        plan = only_step(registry, request, capability, media_types)
    for step in plan.steps:
        check_step(registry, settings, step, options, inner=step.id in plan.inner)
    if options.max_calls is not None and options.max_calls < len(plan.steps):
        raise InvalidRequest(
            f"options.max_calls = {options.max_calls} is below one call for each of the {len(plan.steps)} subtasks."
        )
    return plan


def _check_known(registry: Registry, options: TaskOptions) -> None:
    """Whether models and judge exist at all: whom a step can ask is seen when the steps are known."""
    for name in options.models:
        if name not in registry.models:
            raise InvalidRequest(f"options.models names {name!r}; there are: {', '.join(sorted(registry.models))}.")
    _check_judges(registry, options)


def _check_judges(registry: Registry, options: TaskOptions) -> None:
    if options.judge is not None and not options.judges:
        raise InvalidRequest("options.judge = [] names nobody; name a judge, several, or leave it out.")
    for number, name in enumerate(options.judges):
        if name not in registry.judges:
            hint = did_you_mean(name, registry.judges)
            raise InvalidRequest(f"options.judge = {name!r} is unknown; there are: {', '.join(registry.judges)}.{hint}")
        if name in options.judges[:number]:
            raise InvalidRequest(f"options.judge names {name!r} twice; a judge that failed is not asked again.")
    if len(options.judges) > MOST_JUDGES:
        raise InvalidRequest(f"options.judge names {len(options.judges)} judges; {MOST_JUDGES} are enough.")


def judges_of(entry: CapabilityEntry, options: TaskOptions) -> tuple[str, ...]:
    """Who judges a step, in the order in which they are asked: whom the caller names, else the capability's."""
    return options.judges or entry.judges


def planner_of(registry: Registry, options: TaskOptions) -> str | None:
    """Who plans a task that names no capability: the caller's choice, else the profile's."""
    name = options.planner or registry.planner
    return None if name == NOBODY else name


def integrator_of(registry: Registry, options: TaskOptions, *, planned: bool, steps: int) -> str | None:
    """Who writes the answer: the caller's choice; else the profile's, where a planner made several steps of it."""
    if options.integrate is not None:
        return None if options.integrate == NOBODY else options.integrate
    return registry.integrator if planned and steps > 1 else None


def options_of(step: Step, options: TaskOptions, *, inner: bool = False) -> TaskOptions:
    """A task's options as they hold for one step. Raises `InvalidRequest`, which names the step.

    What the task expects is about its answer: not about an `inner` step, whose output another one reads.
    """
    if inner and options.expect is not None:
        options = options.model_copy(update={"expect": None})
    if not step.options:
        return options
    unknown = sorted(set(step.options) - STEP_OPTIONS)
    if unknown:
        raise InvalidRequest(
            f"subtask {step.id!r}: options.{unknown[0]} is not an option of a step; there are: "
            f"{', '.join(sorted(STEP_OPTIONS))}."
        )
    try:
        own = parse_options(step.options)
    except InvalidRequest as error:
        raise InvalidRequest(f"subtask {step.id!r}: {error}") from None
    return options.model_copy(update={key: getattr(own, key) for key in step.options})


def check_step(
    registry: Registry, settings: Settings, step: Step, options: TaskOptions, *, inner: bool = False
) -> TaskOptions:
    """Whether a step can run here; returns its options. Raises `InvalidRequest`."""
    own = options_of(step, options, inner=inner)
    if inner and "judge" not in step.options:
        own = _without_markers(registry, own)
    entry = served(registry, step.capability)
    _check_names(registry, entry, own)
    checked_selectors(own.selectors)
    if own.quorum > (wanted := candidates_of(entry, own, settings)):
        raise InvalidRequest(
            f"options.quorum = {own.quorum} can never be met: {wanted} model(s) are asked; see options.candidates."
        )
    return own


def _without_markers(registry: Registry, options: TaskOptions) -> TaskOptions:
    """The options without those of the task's judges that mark components: an inner step has none of the task's."""
    able = tuple(
        name
        for name in options.judges
        if name not in registry.judges or not lacks_components(registry.judges[name], options.expect)
    )
    return options if able == options.judges else options.model_copy(update={"judge": able or None})


def _check_sizes(settings: Settings, request: str, options: TaskOptions, attachments: int) -> None:
    if len(request) > settings.max_request_chars:
        raise InvalidRequest(
            f"The request has {len(request)} characters; BAKEOFF_MAX_REQUEST_CHARS allows {settings.max_request_chars}."
        )
    if attachments > settings.max_attachments:
        raise InvalidRequest(
            f"The task has {attachments} attachments; BAKEOFF_MAX_ATTACHMENTS allows {settings.max_attachments}."
        )
    size = len(json.dumps(options.model_dump(mode="json", exclude_defaults=True)))
    if size > settings.max_options_bytes:
        raise InvalidRequest(
            f"options has {size} bytes as JSON; BAKEOFF_MAX_OPTIONS_BYTES allows {settings.max_options_bytes}."
        )


def only_step(registry: Registry, request: str, capability: str | None, media_types: Sequence[tuple[str, str]]) -> Plan:
    """The plan of a request that names its capability: one step, which reads everything."""
    entry = served(registry, capability or DEFAULT_CAPABILITY)
    _check_inputs(entry, request, media_types)
    inputs: list[Reference] = [OfRequest()] if request else []
    inputs += [OfAttachment(attachment=number) for number in range(len(media_types))]
    return Plan(steps=(Step(id=entry.name, capability=entry.name, inputs=tuple(inputs)),))


def _explicit(
    registry: Registry,
    settings: Settings,
    request: str,
    capability: str | None,
    options: TaskOptions,
    media_types: Sequence[tuple[str, str]],
) -> Plan:
    """The plan that the caller wrote: checked, and nothing in it changed but the order of its dependencies."""
    if capability is not None:
        raise InvalidRequest(f"capability = {capability!r} and options.subtasks exclude each other; leave one out.")
    if options.planner is not None:
        raise InvalidRequest(f"options.planner = {options.planner!r} and options.subtasks exclude each other.")
    plan, _ = checked(
        Plan(steps=options.subtasks or ()),
        tools=tools_of(registry),
        kinds=[kind_of(media_type) or "file" for _, media_type in media_types],
        has_request=bool(request.strip()),
        max_steps=settings.max_subtasks,
        repair=False,
    )
    return plan


def candidates_of(entry: CapabilityEntry, options: TaskOptions, settings: Settings) -> int:
    """How many models a subtask asks: what the caller says, else the models named, the capability's, the setting."""
    return options.candidates or len(options.models) or entry.candidates or settings.candidates


def served(registry: Registry, name: str) -> CapabilityEntry:
    """A capability that a model of this installation serves. Raises `InvalidRequest` with those there are."""
    if name not in registry.capabilities:
        variants = [known for known in registry.capabilities if known.partition("/")[0] == name]
        hint = (
            f" Did you mean {' or '.join(sorted(variants))}?"
            if variants
            else f" There are: {', '.join(sorted(registry.served))}.{did_you_mean(name, registry.served)}"
        )
        raise InvalidRequest(f"No capability {name!r}.{hint}")
    if name not in registry.served:
        raise InvalidRequest(
            f"No model of this installation serves {name!r}; it serves: {', '.join(sorted(registry.served))}. "
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
    able = sorted(model.name for model in registry.candidates_for(entry.name))
    for name in options.models:
        if name not in able:
            raise InvalidRequest(
                f"options.models names {name!r}, which does not serve {entry.name}; use: {', '.join(able)}."
            )
    _check_judges(registry, options)
    for name in judges_of(entry, options):
        if lacks_components(registry.judges[name], options.expect):
            raise InvalidRequest(
                f"Judge {name!r} of {entry.name} marks components and has none of its own; say what an answer is to do "
                'in options.expect.components, as in [{"description": "names the river"}], or choose another judge.'
            )
