"""From pending tasks to subtasks: at once where the plan is known, after a planner was asked where it is not."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from db.blobs import Artifact, AttachmentRef, artifacts_of
from db.cache import input_key
from db.errors import InvalidRequest
from db.logs import get_logger, portions
from db.plan import OfAttachment, OfRequest, OfText, Plan, Step
from db.planning import PlannedTask, begin_planning, end_plans, keep_plans, lock_planned, read_planned
from db.settings import Settings
from db.tasks import PendingTask, SubtaskRow, lock_pending, read_pending, reject_tasks, start_tasks
from scheduler.requests import (
    TaskOptions,
    candidates_of,
    check_request,
    check_step,
    integrator_of,
    judges_of,
    only_step,
    options_of,
    parse_attachments,
    parse_options,
    planner_of,
)
from worker.cleaning import clean_text
from worker.inputs import words_of

log = get_logger(__name__)

LOOK_SECONDS = 3.0  # of reading in one transaction: Postgres ends one that idles for ten
LONGEST_REASON = 1000  # characters of a refusal: it may quote what the caller wrote
COPIES = 10  # each subtask holds its params: of BAKEOFF_MAX_OPTIONS_BYTES so many times, for all together
TOO_MUCH = "54"  # Postgres's class of what is too large for it: the rows' fault, not the connection's
ASKS_A_MODEL = "llm"  # the selector whose ranking is made in the planner's process

One = TypeVar("One")


def plan_pending(connection: Connection, settings: Settings, limit: int) -> int:
    """Check up to `limit` pending tasks, and start those whose plan is known; what can never run fails.

    Returns how many it saw. Rows come from anybody who may insert: one that cannot even be read (a number of 5,000
    digits, objects nested a thousand deep) makes its batch be planned one by one, and fails alone.
    """
    pending = lock_pending(connection, limit)
    _each(connection, pending, lambda ids: _look_at(connection, settings, read_pending(connection, ids)))
    return len(pending)


def start_planned(connection: Connection, settings: Settings, limit: int) -> int:
    """Make subtasks of up to `limit` plans that planners have stored. Returns how many there were."""
    planned = lock_planned(connection, limit)
    _each(connection, planned, lambda ids: _start_planned(connection, settings, read_planned(connection, ids)))
    return len(planned)


def _each(connection: Connection, ids: Sequence[UUID], step: Callable[[Sequence[UUID]], None]) -> None:
    """Take a step for all of these tasks together, or for each alone where one of them cannot be read."""
    if not ids or _tried(connection, ids, step) is None:
        return
    for task in ids:
        problem = _tried(connection, [task], step)
        if problem is not None:
            reason = f"The task cannot be read ({type(problem).__name__}: {' '.join(str(problem).split())[:200]})."
            reject_tasks(connection, {task: {"code": InvalidRequest.code, "message": clean_text(reason)}})
            log.warning("A task cannot be read", action="task_unreadable", task=str(task), said=reason)


def _tried(connection: Connection, ids: Sequence[UUID], step: Callable[[Sequence[UUID]], None]) -> Exception | None:
    """Take a step in a savepoint; returns what a row's content raised, where nothing was stored then.

    Raises what a lost connection raises.
    """
    try:
        with connection.begin_nested():
            step(ids)
    except OperationalError as problem:
        if not (getattr(problem.orig, "sqlstate", None) or "").startswith(TOO_MUCH):
            raise
        return problem
    except Exception as problem:  # noqa: BLE001 - whatever a stranger's row makes Python or Postgres raise
        return problem
    return None


@dataclass(frozen=True, kw_only=True)
class _Read:
    """A task whose words are checked."""

    task: PendingTask
    options: TaskOptions
    references: list[AttachmentRef]
    files: list[Artifact]


def _look_at(connection: Connection, settings: Settings, tasks: Sequence[PendingTask]) -> None:
    known = _files_of(connection, tasks)
    rows: list[SubtaskRow] = []
    to_plan: dict[UUID, dict[str, Any]] = {}
    kept: dict[UUID, dict[str, Any]] = {}
    refused: dict[UUID, dict[str, str]] = {}
    for task in _while_there_is_time(tasks):
        try:
            read = _read(task, known)
            plan = check_request(
                settings.registry,
                settings,
                request=task.request,
                capability=task.capability,
                options=read.options,
                media_types=[
                    (reference.name, file.media_type)
                    for reference, file in zip(read.references, read.files, strict=True)
                ],
            )
            if plan is None or _needs_a_ranking(settings, plan, read.options):
                to_plan[task.id] = _to_be_planned(settings, plan, read.options)
                continue
            rows += _subtasks(settings, read, plan)
            integrator = integrator_of(settings.registry, read.options, planned=False, steps=len(plan.steps))
            if integrator is not None or read.options.subtasks is not None:
                kept[task.id] = {"method": "explicit", **plan.model_dump(mode="json"), "integrator": integrator}
        except InvalidRequest as error:
            refused[task.id] = _refusal(task, error)
    keep_plans(connection, kept)
    start_tasks(connection, rows, settings.max_subtasks)
    begin_planning(connection, to_plan)
    _tell("running", {row.task_id for row in rows})
    _tell("planning", to_plan)
    reject_tasks(connection, refused)


def _start_planned(connection: Connection, settings: Settings, tasks: Sequence[PlannedTask]) -> None:
    """Make subtasks of what a planner's process has stored; steps that are subtasks already stay what they are."""
    known = _files_of(connection, tasks)
    kept: dict[UUID, dict[str, Any]] = {}
    refused: dict[UUID, dict[str, str]] = {}
    rows: list[SubtaskRow] = []
    for task in _while_there_is_time(tasks):
        try:
            read = _read(task, known)
            plan = Plan.model_validate({"steps": task.plan["steps"]})
            if not plan.steps:
                plan = only_step(settings.registry, task.request, None, [])
            stored = {**task.plan, **plan.model_dump(mode="json")}
            new = _subtasks(settings, read, plan, task.known, task.plan)
            if len(new) + len(task.known) < len(plan.steps):
                stored |= {"more": False, "stopped": f"max_calls = {read.options.max_calls} calls are spent"}
            planned = task.plan.get("method") != "explicit"
            stored["integrator"] = integrator_of(
                settings.registry, read.options, planned=planned, steps=len(plan.steps)
            )
            kept[task.id] = stored
            rows += new
        except InvalidRequest as error:
            if task.known:  # what its earlier steps came to is the answer
                steps = [step for step in task.plan["steps"] if step["id"] in task.known]
                kept[task.id] = {**task.plan, "steps": steps, "more": False, "stopped": str(error)[:LONGEST_REASON]}
            else:
                refused[task.id] = _refusal(task, error)
    keep_plans(connection, kept)
    start_tasks(connection, rows, settings.max_subtasks, {task.id: task.known for task in tasks})
    _tell("running", {row.task_id for row in rows})
    reject_tasks(connection, refused)
    end_plans(connection, sorted(set(kept) - {row.task_id for row in rows}))


def _while_there_is_time(tasks: Sequence[One]) -> Iterator[One]:
    """These tasks, at least one, until the time of a look is over: the next look finds the others."""
    until = time.monotonic() + LOOK_SECONDS
    for place, task in enumerate(tasks):
        if place and time.monotonic() > until:
            return
        yield task


def _tell(state: str, tasks: Collection[UUID]) -> None:
    for some in portions(sorted(tasks)):
        log.info(f"{len(some)} {state}", action="tasks_moved", state=state, tasks=some)


def _refusal(task: PendingTask, error: InvalidRequest) -> dict[str, str]:
    log.info("Refused a task", action="task_refused", task=str(task.id), said=str(error)[:LONGEST_REASON])
    return {"code": error.code, "message": clean_text(str(error))[:LONGEST_REASON]}


def _files_of(connection: Connection, tasks: Sequence[PendingTask]) -> dict[str, Artifact]:
    digests = [item["sha256"] for task in tasks for item in task.attachments if _has_digest(item)]
    return artifacts_of(connection, digests) if digests else {}


def _has_digest(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("sha256"), str)


def _read(task: PendingTask, known: dict[str, Artifact]) -> _Read:
    options = parse_options(task.options)
    references = parse_attachments(task.attachments)
    for reference in references:
        if reference.sha256 not in known:
            raise InvalidRequest(f"attachments: no file {reference.sha256} is stored; upload it first.")
    files = [known[reference.sha256] for reference in references]
    return _Read(task=task, options=options, references=references, files=files)


def _needs_a_ranking(settings: Settings, plan: Plan, options: TaskOptions) -> bool:
    """Whether a language model is to rank models for one of the steps, and one is there to be asked."""
    planner = settings.registry.planners.get(settings.registry.planner or "")
    if planner is None or planner.model is None:
        return False
    return any(
        ASKS_A_MODEL in settings.selectors_for(step.capability, options_of(step, options).selectors)
        for step in plan.steps
    )


def _to_be_planned(settings: Settings, plan: Plan | None, options: TaskOptions) -> dict[str, Any]:
    """What a planner's process finds in `task.plan`: whom to ask, or the steps that the caller wrote."""
    found: dict[str, Any] = {"integrator": None, "planner": planner_of(settings.registry, options)}
    if plan is not None:
        found |= {"planner": settings.registry.planner, "method": "explicit", **plan.model_dump(mode="json")}
    return found


def _subtasks(
    settings: Settings,
    read: _Read,
    plan: Plan,
    known: Mapping[str, int] | None = None,
    stored: Mapping[str, Any] | None = None,
) -> list[SubtaskRow]:
    """The rows of a plan's new steps; of a plan that grows, those that `max_calls` still allows.

    Raises `InvalidRequest` where a step cannot run here.
    """
    known, stored = known or {}, stored or {}
    new = {
        step.id: check_step(settings.registry, settings, step, read.options, inner=step.id in plan.inner)
        for step in plan.steps
        if step.id not in known
    }
    copied = sum(len(json.dumps([options.params, _expected(options)])) for options in new.values())
    if copied > (most := COPIES * settings.max_options_bytes):
        raise InvalidRequest(
            f"The params of the plan's {len(new)} subtasks have {copied} bytes together, with what they expect; "
            f"{most} are allowed. Give them to the steps that need them."
        )
    wanted = {
        step.id: candidates_of(settings.registry.capabilities[step.capability], new[step.id], settings)
        for step in plan.steps
        if step.id in new
    }
    shares = shared_out(read.options.max_calls, wanted, spent=sum(known.values()), grows="more" in stored)
    starting = [(position, step) for position, step in enumerate(plan.steps) if step.id in shares]
    keyed = _size_of(read, [step for _, step in starting]) <= settings.cache_max_bytes
    return [
        _subtask(settings, read, step, position, new[step.id], wanted[step.id], shares[step.id], stored, keyed=keyed)
        for position, step in starting
    ]


def _size_of(read: _Read, steps: Sequence[Step]) -> int:
    """Characters and bytes that these steps read altogether, found without reading; not other steps' results."""
    return sum(
        len(read.task.request) if isinstance(item, OfRequest)
        else len(item.text) if isinstance(item, OfText)
        else read.files[item.attachment].size if isinstance(item, OfAttachment)
        else 0
        for step in steps
        for item in step.inputs
    )  # fmt: skip


def _subtask(
    settings: Settings,
    read: _Read,
    step: Step,
    position: int,
    options: TaskOptions,
    wanted: int,
    share: int | None,
    stored: Mapping[str, Any],
    *,
    keyed: bool,
) -> SubtaskRow:
    entry = settings.registry.capabilities[step.capability]
    inputs = [item.model_dump(mode="json") for item in step.inputs]
    fewer = share is not None and share < wanted
    judge, *next_judges = judges_of(entry, options)
    return SubtaskRow(
        task_id=read.task.id,
        position=position,
        name=step.id,
        capability=entry.name,
        inputs=inputs,
        options=_stored_options(options, (stored.get("proposals") or {}).get(step.id)),
        source=read.task.source,
        priority=read.task.priority,
        candidates_wanted=min(wanted, share or wanted),
        max_candidates=share,
        note=f"{share} of {wanted} candidates: max_calls = {read.options.max_calls}" if fewer else None,
        quorum=min(options.quorum, share or options.quorum),
        grace=options.grace,
        min_confidence=options.min_confidence,
        judge=judge,
        next_judges=tuple(next_judges),
        expect=_expected(options),
        deadline=read.task.deadline,
        input_key=_input_key(settings, read, step, inputs, options) if keyed else None,
        needs=tuple(sorted({*step.reads, *step.depends_on})),
    )


def shared_out(
    most: int | None, wanted: Mapping[str, int], *, spent: int = 0, grows: bool = False
) -> dict[str, int | None]:
    """How many candidates each step may have of the `most` that its task allows: one each, the rest by turns.

    `spent` is what earlier steps were given. A plan that grows spends at most half of what is left at a time, so that
    later steps get something; a step for which nothing is left is left out. Of any other plan it raises
    `InvalidRequest`.
    """
    if most is None:
        return dict.fromkeys(wanted)
    left = most - spent
    if left < len(wanted) and not grows:
        raise InvalidRequest(
            f"options.max_calls = {most} is below one call for each of the plan's {len(wanted)} subtasks."
        )
    shares = dict.fromkeys(list(wanted)[: max(0, left)], 1)
    left = (left // 2 if grows else left) - len(shares)
    while left > 0 and any(shares[name] < wanted[name] for name in shares):
        for name in shares:
            if left > 0 and shares[name] < wanted[name]:
                shares[name] += 1
                left -= 1
    return dict(shares)


def _expected(options: TaskOptions) -> dict[str, Any] | None:
    return options.expect.model_dump(mode="json", exclude_defaults=True) if options.expect else None


def _stored_options(options: TaskOptions, proposals: dict[str, list[str]] | None) -> dict[str, Any]:
    """What is needed of the options when candidates are chosen and run; what was left out stays out."""
    stored = {
        "params": options.params,
        "models": list(options.models),
        "selectors": list(options.selectors),
        "adaptive": options.adaptive,
        "proposals": proposals,
    }
    return {key: value for key, value in stored.items() if value or key in {"params", "models"}}


def _input_key(
    settings: Settings, read: _Read, step: Step, inputs: Sequence[dict[str, Any]], options: TaskOptions
) -> bytes | None:
    """The key of the result cache; None where the caller wants none, what is read is too much to keep, or not known
    yet: what other steps will have said."""
    numbers = [item["attachment"] for item in inputs if "attachment" in item]
    if not options.cache or step.reads:
        return None
    words = words_of(inputs, read.task.request, None)
    entry = settings.registry.capabilities[step.capability]
    return input_key(
        capability=entry.name,
        instruction=entry.instruction,
        texts=[words],
        files=[(read.references[number].sha256, read.references[number].name) for number in numbers],
        params=options.params,
    )
