"""`/metrics` for Prometheus. Every process gives the same figures: they are read from SQL, at most every few seconds.

So one scrape of the API tells of schedulers and workers too, also of those that are gone: they have no port to scrape,
and need none. Only requests are counted where they are served (`scheduler.api.traffic`). Labels are names of the
registry, states, routes and kinds of error: their number grows with the registry, with nothing else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response
from fastapi.security import HTTPAuthorizationCredentials
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeHistogramMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.concurrency import run_in_threadpool

from db.engine import transaction
from db.figures import (
    Standing,
    judge_agreement,
    judge_backlog,
    lost_leases,
    message_sizes,
    oldest_open,
    open_deliveries,
    recent_failures,
    recent_work,
    thinking_backlogs,
)
from db.flight import in_flight
from db.keys import Scope
from db.queries import backlogs, judge_rows, model_rows, open_counts, recent_verdicts
from db.states import FINAL_CANDIDATE, FINAL_TASK, ModelState
from db.tally import AT_ONCE, count_ended, counts
from db.workers import live_queues, live_workers
from scheduler.api.access import Access, Bearer, Caller, is_loopback
from scheduler.api.problems import Forbidden
from scheduler.api.services import Services, Shared
from scheduler.api.traffic import Traffic

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric
    from sqlalchemy import Connection

router = APIRouter(tags=["metrics"])

REMEMBERED = 5.0  # seconds
COUNTED_TOGETHER = 10  # statements of `db.tally` for one reading: what nobody read for long is caught up by and by
OWN_QUEUES = {"planning": "planner", "integrating": "integrator"}
STANDING = ("waiting", "sent", "running")
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
#: What `db.tally` counts per model: metric, what it says
PER_MODEL = {
    "cached": ("model_cached", "Outputs of a model that came from stored ones, since ever."),
    "seconds": ("model_seconds", "Seconds spent in a model for outputs that were kept, since ever."),
    "compared": ("model_compared", "Outputs of a model that were compared with others', since ever."),
    "wins": ("model_wins", "Wins among them, since ever."),
}
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
        for _ in range(COUNTED_TOGETHER):
            with transaction(self._services.engine) as connection:
                if count_ended(connection) < AT_ONCE:
                    break
        with transaction(self._services.engine) as connection:
            yield from self._since_ever(connection)
            yield from self._queues(connection)
            yield from self._webhooks(connection)
            yield from self._models(connection)
            yield from self._judges(connection)

    def _queues(self, connection: Connection) -> Iterator[Metric]:
        open_now, ages = open_counts(connection), oldest_open(connection)
        queues = self._services.settings.registry.queues
        waiting, flying = backlogs(connection), in_flight(connection)
        workers = live_workers(connection, self._services.settings.worker_timeout)
        live, ready = live_queues(workers), live_queues(workers, ready_only=True)
        names = [*queues.values(), "judge", "planner", "integrator", "intake"]
        yield gauge("tasks_open", "Tasks that have not ended.", "status", open_now["task"].items())
        yield gauge("subtasks_open", "Subtasks that have not ended.", "status", open_now["subtask"].items())
        yield gauge("task_oldest_seconds", "Age of the oldest task in a state.", "status", ages.items())
        backlog = [
            ((queue, state), getattr(waiting[model], state))
            for model, queue in queues.items()
            for state in ("chosen", "sent", "running")
            if model in waiting
        ]
        own = self._own(connection)
        backlog += [((queue, state), getattr(standing, state)) for queue, standing in own.items() for state in STANDING]
        yield gauge("backlog", "Unfinished work of a queue.", "queue state", backlog)
        oldest = [(queue, waiting[model].oldest or 0.0) for model, queue in queues.items() if model in waiting]
        oldest += [(queue, standing.oldest) for queue, standing in own.items()]
        yield gauge("backlog_oldest_seconds", "Age of the oldest unfinished work of a queue.", "queue", oldest)
        messages = [(queue, flying.get(model, 0)) for model, queue in queues.items()]
        yield gauge("in_flight_messages", "Unfinished messages of a queue.", "queue", messages)
        yield gauge("workers_live", "Workers that consume a queue.", "queue", [(name, live[name]) for name in names])
        yield gauge("workers_ready", "Workers whose model is loaded.", "queue", [(name, ready[name]) for name in names])
        schedulers = sum(worker.name.startswith("scheduler") for worker in workers)
        yield gauge("schedulers", "Schedulers that work.", "", [((), schedulers)])

    def _own(self, connection: Connection) -> dict[str, Standing]:
        """The queues of judges, planners and integrators."""
        thinking = thinking_backlogs(connection)
        own = {queue: thinking.get(state, Standing()) for state, queue in OWN_QUEUES.items()}
        return {"judge": judge_backlog(connection), **own}

    def _since_ever(self, connection: Connection) -> Iterator[Metric]:
        registry = self._services.settings.registry
        stored = counts(connection)
        ended = {state.value: 0.0 for state in sorted(FINAL_TASK)}
        ended |= {one.label: one.value for one in stored if one.name == "tasks"}
        yield counter("tasks_ended", "Tasks that ended, since ever.", "status", ended.items())
        ran = {(model, state.value): 0.0 for model in registry.models for state in sorted(FINAL_CANDIDATE)}
        ran |= {(one.label, one.kind): one.value for one in stored if one.name == "candidates"}
        yield counter("candidates", "Candidates of tasks that ended, since ever.", "model status", ran.items())
        for name, (metric, says) in PER_MODEL.items():
            of_model = dict.fromkeys(registry.models, 0.0)
            of_model |= {one.label: one.value for one in stored if one.name == name}
            yield counter(metric, says, "model", of_model.items())
        verdicts = {(judge, how): 0.0 for judge in registry.judges for how in ("judged", "fallback")}
        verdicts |= {(one.label, one.kind): one.value for one in stored if one.name == "verdicts"}
        yield counter("verdicts", "Verdicts of tasks that ended, since ever.", "judge how", verdicts.items())

    def _webhooks(self, connection: Connection) -> Iterator[Metric]:
        deliveries = open_deliveries(connection)
        states = [("pending", deliveries.pending), ("failed", deliveries.failed)]
        yield gauge("webhook_deliveries", "Webhooks on their way, and those that were given up.", "status", states)
        yield gauge("webhook_oldest_seconds", "Age of the oldest on its way.", "", [((), deliveries.oldest)])

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
        sizes = {model: found for model, found in message_sizes(connection).items() if model in known}
        yield histogram("message_inputs_recent", f"Inputs of a message {RECENT}.", sizes)
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


def counter(
    name: str, says: str, labels: str, values: Iterable[tuple[str | tuple[str, ...], float]]
) -> CounterMetricFamily:
    """A counter of ours, which never goes back."""
    family = CounterMetricFamily(f"bakeoff_{name}", says, labels=labels.split())
    for label, value in values:
        family.add_metric((label,) if isinstance(label, str) else label, value)
    return family


def histogram(name: str, says: str, values: Mapping[str, Sequence[int]]) -> GaugeHistogramMetricFamily:
    """How values are spread, per model: of a window, so its counts may go back."""
    family = GaugeHistogramMetricFamily(f"bakeoff_{name}", says, labels=["model"])
    for model, found in values.items():
        buckets = [(str(float(size)), float(sum(value <= size for value in found))) for size in SIZES]
        family.add_metric((model,), [*buckets, ("+Inf", float(len(found)))], float(sum(found)))
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
    traffic: Traffic = request.app.state.traffic
    text = await run_in_threadpool(lambda: figures.text() + traffic.text())
    return Response(text, media_type=CONTENT_TYPE_LATEST)


async def _admit(request: Request, shared: Services, credentials: HTTPAuthorizationCredentials | None) -> None:
    who = shared.settings.api_metrics
    if who == "open" or (who == "loopback" and request.client is not None and is_loopback(request.client.host)):
        return
    access: Access = request.app.state.access
    caller: Caller = await access.caller(request, credentials.credentials if credentials else None)
    if caller.source is not None or (caller.key is not None and not caller.key.may(Scope.READ)):
        raise Forbidden("The figures are of every source: they need a key with the scope read that is bound to none.")
