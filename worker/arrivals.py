"""What a worker's parent says of each message that comes: which tasks, subtasks and model it is about."""

from __future__ import annotations

from typing import Any

from celery.signals import task_received

from db.logs import get_logger

log = get_logger(__name__)

#: Arguments of our messages that are ids and names; of `bakeoff.submit` none is named, a caller wrote them.
TOLD = ("model", "task", "tasks", "subtasks")
OURS = frozenset({"bakeoff.run_candidates", "bakeoff.judge_subtasks", "bakeoff.plan_task", "bakeoff.integrate_task"})


@task_received.connect(weak=False)  # type: ignore[untyped-decorator] # celery has no types
def _tell(request: Any, **_: object) -> None:
    arguments = request.kwargs if request.name in OURS and isinstance(request.kwargs, dict) else {}
    named = {name: arguments[name] for name in TOLD if name in arguments}
    log.info(f"Took {request.name}", action="message_taken", message=request.id, **named)
