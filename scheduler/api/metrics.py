"""`/metrics` for Prometheus. Every process gives the same figures: they are read from SQL, at most every few seconds.

Labels are names of the registry, states and kinds of error: their number grows with the registry, with nothing else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response
from fastapi.security import HTTPAuthorizationCredentials
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.concurrency import run_in_threadpool

from db.engine import transaction
from db.figures import judge_agreement, lost_leases, oldest_open, recent_failures, recent_work
from db.flight import in_flight
from db.keys import Scope
from db.queries import backlogs, judge_rows, model_rows, open_counts, recent_verdicts
from db.states import ModelState
from db.workers import live_queues, live_workers
from scheduler.api.access import Access, Bearer, Caller, is_loopback
from scheduler.api.problems import Forbidden
from scheduler.api.services import Services, Shared

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric
    from sqlalchemy import Connection

router = APIRouter(tags=["metrics"])

REMEMBERED = 5.0  # seconds
OWN_QUEUES = {"planning": "planner", "integrating": "integrator"}
RECENT = "of the last ten minutes"
RECENT_FIELDS = {
    "done": "Outputs of a model in subtasks judged",
    "cached": "Of those, answered from stored outputs,",
    "judged": "Outputs that were compared with others'",
    "wins": "Wins among them",
    "seconds": "Seconds spent in a model for the subtasks judged",
}


class Figures:
    """What is known of the system, remembered for some seconds; one request reads, those that come meanwhile wait."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lock = threading.Lock()
        self._text = b""
        self._until = float("-inf")

    def text(self) -> bytes:
        """The exposition format."""
        with self._lock:
            if time.monotonic() >= self._until:
                registry = CollectorRegistry(auto_describe=False)
                registry.register(self)
                self._text = generate_latest(registry)
                self._until = time.monotonic() + REMEMBERED
            return self._text

    def collect(self) -> Iterator[Metric]:
        """All figures, in one transaction."""
        with transaction(self._services.engine) as connection:
            yield from self._queues(connection)
            yield from self._models(connection)
            yield from self._judges(connection)

    def _queues(self, connection: Connection) -> Iterator[Metric]:
        counts, ages = open_counts(connection), oldest_open(connection)
        queues = self._services.settings.registry.queues
        waiting, flying = backlogs(connection), in_flight(connection)
        workers = live_workers(connection, self._services.settings.worker_timeout)
        live, ready = live_queues(workers), live_queues(workers, ready_only=True)
        names = [*queues.values(), "judge", "planner", "integrator", "intake"]
        yield gauge("tasks_open", "Tasks that have not ended.", "status", counts["task"].items())
        yield gauge("subtasks_open", "Subtasks that have not ended.", "status", counts["subtask"].items())
        yield gauge("task_oldest_seconds", "Age of the oldest task in a state.", "status", ages.items())
        backlog = [
            ((queue, state), getattr(waiting[model], state))
            for model, queue in queues.items()
            for state in ("chosen", "sent", "running")
            if model in waiting
        ]
        backlog += [((queue, "waiting"), counts["task"].get(state, 0)) for state, queue in OWN_QUEUES.items()]
        yield gauge("backlog", "Unfinished work of a queue.", "queue state", backlog)
        oldest = [(queue, waiting[model].oldest or 0.0) for model, queue in queues.items() if model in waiting]
        oldest += [(queue, ages.get(state, 0.0)) for state, queue in OWN_QUEUES.items()]
        yield gauge("backlog_oldest_seconds", "Age of the oldest unfinished work of a queue.", "queue", oldest)
        messages = [(queue, flying.get(model, 0)) for model, queue in queues.items()]
        yield gauge("in_flight_messages", "Unfinished messages of a queue.", "queue", messages)
        yield gauge("workers_live", "Workers that consume a queue.", "queue", [(name, live[name]) for name in names])
        yield gauge("workers_ready", "Workers whose model is loaded.", "queue", [(name, ready[name]) for name in names])
        schedulers = sum(worker.name.startswith("scheduler") for worker in workers)
        yield gauge("schedulers", "Schedulers that work.", "", [((), schedulers)])

    def _models(self, connection: Connection) -> Iterator[Metric]:
        known = self._services.settings.registry.models
        rows = {name: row for name, row in model_rows(connection).items() if name in known}
        states = [((name, state), row["status"] == state) for name, row in rows.items() for state in ModelState]
        yield gauge("model_state", "1 for the state that a model is in.", "model state", states)
        pace = [(name, row["seconds_per_item"]) for name, row in rows.items() if row["seconds_per_item"] is not None]
        yield gauge("model_seconds_per_item", "Moving average of a model's time per input.", "model", pace)
        recent = [one for one in recent_work(connection) if one.model in known]
        for field, says in RECENT_FIELDS.items():
            values = [(one.model, float(getattr(one, field))) for one in recent]
            yield gauge(f"model_{field}_recent", f"{says} {RECENT}.", "model", values)
        waves = [(one.model, one.inputs / one.messages) for one in recent if one.messages]
        yield gauge("wave_size_recent", f"Inputs per message, mean {RECENT}.", "model", waves)
        failed = {key: count for key, count in recent_failures(connection).items() if key[0] in known}
        yield gauge("candidates_failed_recent", f"Candidates that failed {RECENT}.", "model kind", failed.items())
        lost = lost_leases(connection)
        leases = [(name, lost.get(name, 0)) for name in rows]
        yield gauge("leases_lost", "Open candidates whose worker was lost, not finished again yet.", "model", leases)

    def _judges(self, connection: Connection) -> Iterator[Metric]:
        registry = self._services.settings.registry
        rows = {name: row for name, row in judge_rows(connection).items() if name in registry.judges}
        states = [((name, state), row["status"] == state) for name, row in rows.items() for state in ModelState]
        yield gauge("judge_state", "1 for the state that a judge is in.", "judge state", states)
        verdicts = recent_verdicts(connection)
        yield gauge("verdicts_recent", f"Verdicts {RECENT}.", "", [((), verdicts.verdicts)])
        yield gauge("verdicts_fallback_recent", f"Verdicts by fallback {RECENT}.", "", [((), verdicts.fallbacks)])
        people = [one for one in judge_agreement(connection, sorted(registry.served)) if one.judge in registry.judges]
        says = "Share of people's latest comparisons that a judge's verdict agrees with."
        yield gauge("judge_agreement", says, "judge", [(one.judge, one.agreed / one.compared) for one in people])
        yield gauge("judge_compared", "How many comparisons that is.", "judge", [(o.judge, o.compared) for o in people])


def gauge(
    name: str, says: str, labels: str, values: Iterable[tuple[str | tuple[str, ...], float | None]]
) -> GaugeMetricFamily:
    """A gauge of ours; `labels` are names with a space between them."""
    family = GaugeMetricFamily(f"bakeoff_{name}", says, labels=labels.split())
    for label, value in values:
        family.add_metric((label,) if isinstance(label, str) else label, float(value or 0))
    return family


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"description": "The exposition format.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    },
)
async def metrics(request: Request, shared: Shared, credentials: Bearer) -> Response:
    """Figures for Prometheus. Who may read them is the setting BAKEOFF_API_METRICS."""
    await _admit(request, shared, credentials)
    figures: Figures = request.app.state.figures
    return Response(await run_in_threadpool(figures.text), media_type=CONTENT_TYPE_LATEST)


async def _admit(request: Request, shared: Services, credentials: HTTPAuthorizationCredentials | None) -> None:
    who = shared.settings.api_metrics
    if who == "open" or (who == "loopback" and request.client is not None and is_loopback(request.client.host)):
        return
    access: Access = request.app.state.access
    caller: Caller = await access.caller(request, credentials.credentials if credentials else None)
    if caller.source is not None or (caller.key is not None and not caller.key.may(Scope.READ)):
        raise Forbidden("The figures are of every source: they need a key with the scope read that is bound to none.")
