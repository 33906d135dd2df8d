"""`bakeoff why`: what a task waits for, in one sentence, from what the rows, the workers and the breakers say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from db.registry import Registry
from db.states import ModelState, SubtaskState, TaskState

OPEN = ("chosen", "sent", "running")
#: state → queue, and what is done there
THINKERS = {TaskState.PLANNING: ("planner", "planned"), TaskState.INTEGRATING: ("integrator", "answered")}
HEALTHY = {"status": ModelState.ACTIVE, "reason": None}


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What is known of everybody else: live queues, states of models and judges, whether a scheduler works."""

    registry: Registry
    scheduler: bool
    live: frozenset[str]
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    judges: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    bind_wait: float = 120.0


def why(task: Mapping[str, Any], around: Surroundings) -> str:
    """One sentence about a task's situation (`db.queries.task_situation`)."""
    state = TaskState(task["status"])
    if state.final:
        return _ended(task, state)
    sentence = _waits(task, state, around)
    deadline = task["deadline_in"]
    if deadline is not None:
        sentence += f" Its deadline is in {span(deadline)}." if deadline > 0 else " Its deadline has passed."
    return sentence if around.scheduler else f"No scheduler works (start `bakeoff scheduler`); beyond that: {sentence}"


def _ended(task: Mapping[str, Any], state: TaskState) -> str:
    if state is TaskState.DONE:
        winners = ", ".join(dict.fromkeys(winner["model"] for winner in (task["winners"] or {}).values()))
        return f"It waits for nothing: it is done, answered by {winners or 'nobody'}."
    return f"It waits for nothing: it is {state}. {(task['error'] or {}).get('message', '')}".rstrip()


def _waits(task: Mapping[str, Any], state: TaskState, around: Surroundings) -> str:
    if state is TaskState.PENDING:
        starts = task["starts_in"]
        if starts is not None and starts > 0:
            return f"It waits for its run_at, in {span(starts)}."
        return "It waits for a scheduler to look at it."
    if state in THINKERS:
        return _thinks(task, state, around)
    open_ones = [s for s in task["subtasks"] if not _is_final(s)]
    if not open_ones:
        return "All of its subtasks have ended; a scheduler is about to put its answer together."
    first = next((s for s in open_ones if s["status"] != SubtaskState.BLOCKED), open_ones[0])
    more = f" {len(open_ones) - 1} more of its subtasks are open." if len(open_ones) > 1 else ""
    return f"{first['name']} {_subtask(first, around)}.{more}"


def _thinks(task: Mapping[str, Any], state: TaskState, around: Surroundings) -> str:
    who, does = THINKERS[state]
    if task["held"]:
        return f"It is being {does}."
    if who not in around.live:
        return f"It waits to be {does}, and no worker does that: start `bakeoff worker --{who}`."
    if (task["due_in"] or 0) > 0:
        reason = (task["error"] or {}).get("message", "its process was lost")
        return f"It waits to be {does}, tried again in {span(task['due_in'])} ({reason})."
    return f"It waits to be {does}; " + ("its message is on the queue." if task["sent"] else "its turn has not come.")


def _is_final(subtask: Mapping[str, Any]) -> bool:
    return subtask["status"] in {"done", "failed", "skipped", "expired", "cancelled"}


def _subtask(subtask: Mapping[str, Any], around: Surroundings) -> str:
    match SubtaskState(subtask["status"]):
        case SubtaskState.BLOCKED:
            return f"waits for the result of {_list(subtask['needs'] or ['what it needs'])}"
        case SubtaskState.READY:
            return _ready(subtask, around)
        case SubtaskState.JUDGING:
            return f"is being judged by {subtask['judge']}{_asked_before(subtask)}"
        case _:
            open_ones = [c for c in subtask["candidates"] or () if c["status"] in OPEN]
            return f"waits for {_list(list(_candidates(open_ones, around)))}" if open_ones else _judge(subtask, around)


def _ready(subtask: Mapping[str, Any], around: Surroundings) -> str:
    only = subtask["options"].get("models")
    able = [model for model in around.registry.candidates_for(subtask["capability"]) if not only or model.name in only]
    if any(model.queue in around.live and _state(around.models, model.name) == ModelState.ACTIVE for model in able):
        return "waits for its turn: the queues of its models are full"
    if not able:
        return "waits for a model: no model of this registry may serve it"
    return f"waits for a model: {_list([f'{model.name} {_away(model.name, around)}' for model in able])}"


def _candidates(candidates: Sequence[Mapping[str, Any]], around: Surroundings) -> Iterator[str]:
    for candidate in candidates:
        name = candidate["model"]
        if candidate["status"] == "running":
            yield f"{name}, which is at work on it"
            continue
        away = _away(name, around)
        if away:
            wait = f"; after {span(around.bind_wait)} another model is asked, where there is one"
            yield f"{name}, which {away}{wait}"
        elif candidate["status"] == "sent":
            yield f"{name}, sent {span(candidate['sent'] or 0)} ago and not taken yet"
        elif (candidate["due_in"] or 0) > 0:
            reason = (candidate["error"] or {}).get("message", "its message was lost")
            yield f"{name}, tried again in {span(candidate['due_in'])} ({reason})"
        else:
            yield f"{name}, whose queue is full"


def _judge(subtask: Mapping[str, Any], around: Surroundings) -> str:
    return _judge_alone(subtask, around) + _asked_before(subtask)


def _asked_before(subtask: Mapping[str, Any]) -> str:
    failed = [f"{one['judge']} gave no verdict ({one['error']})" for one in subtask["failed_judges"]]
    return f"; before it, {_list(failed)}" if failed else ""


def _judge_alone(subtask: Mapping[str, Any], around: Surroundings) -> str:
    name = subtask["judge"]
    row = around.judges.get(name, HEALTHY)
    if row["status"] == ModelState.SUSPENDED:
        after = next((one for one in subtask["next_judges"] if _state(around.judges, one) == "active"), None)
        then = f"{after} is asked instead" if after else f"it is probed in {span(row['probe_in'])}"
        return f"waits for judge {name}, which is suspended ({row['reason']}); {then}"
    if "judge" not in around.live:
        return f"waits for judge {name}, and no worker judges: start `bakeoff worker --judge`"
    if (subtask["due_in"] or 0) > 0:
        reason = (subtask["error"] or {}).get("message", "its process was lost")
        return f"waits for judge {name}, asked again in {span(subtask['due_in'])} ({reason})"
    return f"waits for judge {name}, on whose queue it is"


def _away(model: str, around: Surroundings) -> str:
    """Why a model cannot be had, or nothing where it can."""
    row = around.models.get(model, HEALTHY)
    entry = around.registry.models.get(model)
    if row["status"] == ModelState.PAUSED:
        return f"is paused ({row['reason']})" if row["reason"] else "is paused"
    if row["status"] == ModelState.SUSPENDED:
        return f"is suspended ({row['reason']}) and probed in {span(row['probe_in'])}"
    if entry is None:
        return "is not in this registry"
    if entry.queue not in around.live:
        return f"has no live worker (start `bakeoff worker {model}`)"
    return "is draining" if row["status"] == ModelState.DRAINING else ""


def _state(rows: Mapping[str, Mapping[str, Any]], name: str) -> str:
    return str(rows.get(name, HEALTHY)["status"])


def _list(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{'; '.join(parts[:-1])}; and {parts[-1]}"


def span(seconds: float | None) -> str:
    """A length of time for people."""
    value = max(0.0, seconds or 0.0)
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if value >= 2 * size:
            return f"{value / size:.0f} {name}"
    return f"{value:.0f} s"
