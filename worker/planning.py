"""`bakeoff.plan_task`: split one request into steps, and rank models where a language model is to do it.

The plan is stored with its task; a scheduler makes subtasks of it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from db.blobs import artifacts_of, kind_of
from db.engine import transaction
from db.errors import RegistryError, Unreachable
from db.logs import get_logger
from db.plan import Plan, PlanError, Step
from db.states import TaskState
from db.thinking import Thought, refuse_plan, step_results, store_plan
from worker.app import app
from worker.cleaning import clean_json, clean_text
from worker.planners import Asked, Finished, Planned
from worker.planners.checking import tools_of
from worker.process import ModelProcess, this_process
from worker.ranking import rank_models
from worker.thinking import Store, think
from worker.traces import sender_of
from worker.writing import WritingError

if TYPE_CHECKING:
    from collections.abc import Mapping

log = get_logger(__name__)

RANKING = "llm"  # the selector whose proposals are made here
LONGEST = 20_000  # characters that are kept of what a language model wrote


@app.task(name="bakeoff.plan_task", bind=True, ignore_result=True)  # type: ignore[untyped-decorator] # celery has no types
def plan_task(self: Any, *, task: str) -> None:
    """Plan one task, where it still waits for it."""
    process = this_process()
    think(
        process,
        UUID(self.request.id),
        UUID(task),
        TaskState.PLANNING,
        partial(plan, process),
        partial(_timeout, process),
        sender_of(self.request),
    )


def _timeout(process: ModelProcess, thought: Thought) -> float:
    entry = process.registry.planners.get((thought.plan or {}).get("planner") or "")
    return entry.timeout if entry else process.settings.start_allowance


def plan(process: ModelProcess, thought: Thought) -> Store:
    """What is to be stored: a plan with its proposals, or why there is none."""
    stored = dict(thought.plan or {})
    try:
        if stored.get("method") != "explicit":
            stored = _planned(process, thought, stored)
        steps = Plan.model_validate({"steps": stored["steps"]}).steps
        known = set(stored.get("proposals") or {})
        rankings: dict[str, list[str]] = {}
        proposals = {
            step.id: {RANKING: names}
            for step in steps
            if step.id not in known and (names := _ranked(process, thought, step, stored["planner"], rankings))
        }
        if proposals:
            stored["proposals"] = {**(stored.get("proposals") or {}), **proposals}
    except PlanError as error:
        said = [text[:LONGEST] for text in getattr(error, "written", ())]
        reasons = {"code": error.code, "message": clean_text(str(error))[:1000], "reasons": list(error.reasons)[:50]}
        kept = clean_json({**stored, "written": [*(stored.get("written") or []), *said]})
        log.info("A plan was refused", action="plan_refused", task=str(thought.id), said=str(error)[:1000])
        return lambda connection: refuse_plan(connection, thought, clean_json(reasons), kept)
    return lambda connection: store_plan(connection, thought, clean_json(stored))


def _planned(process: ModelProcess, thought: Thought, stored: Mapping[str, Any]) -> dict[str, Any]:
    """The plan so far, with what the planner adds to it. Raises `PlanError`."""
    before = tuple(Plan.model_validate({"steps": stored.get("steps", [])}).steps)
    if stored["planner"] not in process.registry.planners:
        raise RegistryError(f"The planner {stored['planner']!r} has left the registry.")
    planner = process.planner(stored["planner"])
    planned = planner.plan(_asked(process, thought, finished=bool(before)))
    return {
        **stored,
        "method": planned.method,
        "steps": [step.model_dump(mode="json") for step in _joined(before, planned)],
        "reason": planned.reason,
        "repairs": [*stored.get("repairs", []), *planned.repairs],
        "written": [*stored.get("written", []), *(text[:LONGEST] for text in planned.written)],
        "model": planned.model,
        "prompt_version": planned.prompt_version,
        "usage": {
            key: planned.usage.get(key, 0) + (stored.get("usage") or {}).get(key, 0)
            for key in {*planned.usage, *(stored.get("usage") or {})}
        },
        **({"more": planned.more} if planned.more or "more" in stored else {}),
    }


def _joined(before: tuple[Step, ...], planned: Planned) -> tuple[Step, ...]:
    """Steps that ran already stay what they were; new ones follow them."""
    known = {step.id for step in before}
    return (*before, *(step for step in planned.plan.steps if step.id not in known))


def _asked(process: ModelProcess, thought: Thought, *, finished: bool) -> Asked:
    with transaction(process.engine) as connection:
        files = artifacts_of(connection, [item["sha256"] for item in thought.attachments])
        results = step_results(connection, thought.id) if finished else []
    return Asked(
        request=thought.request,
        tools=tools_of(process.registry),
        kinds=tuple(kind_of(files[item["sha256"]].media_type) or "file" for item in thought.attachments),
        names=tuple(item.get("name", "") for item in thought.attachments),
        max_steps=process.settings.max_subtasks,
        finished=tuple(
            Finished(id=result.name, capability=result.capability, output=result.output, error=result.error)
            for result in results
        ),
    )


def _ranked(
    process: ModelProcess, thought: Thought, step: Step, planner: str | None, rankings: dict[str, list[str]]
) -> list[str]:
    """The models of a step as a language model ranks them by their descriptions; none where nobody asked for it.

    `rankings` by capability: it is asked once for each.
    """
    entry = process.registry.capabilities[step.capability]
    selectors = process.settings.selectors_for(
        step.capability, step.options.get("selectors"), thought.options.get("selectors")
    )
    asks = process.registry.planners[planner].model if planner in process.registry.planners else None
    if RANKING not in selectors or asks is None:
        return []
    able = process.registry.candidates_for(step.capability)
    if entry.name not in rankings:
        try:
            rankings[entry.name] = rank_models(process.backend(asks), thought.request, entry, able)
        except (WritingError, Unreachable) as error:  # other selectors choose then
            log.warning("Models were not ranked", action="ranking_failed", task=str(thought.id), said=str(error))
            rankings[entry.name] = []
    return rankings[entry.name]
