"""Who is alive: heartbeats of workers, and the models of the registry as the scheduler sees them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text

from db.revision import check_schema
from db.states import WorkerState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from db.registry import ModelEntry, Registry


@dataclass(frozen=True, kw_only=True)
class LiveWorker:
    """A worker whose heartbeat is young enough. `age` is seconds since the last one."""

    name: str
    host: str
    pid: int
    queues: list[str]
    status: str
    error: str | None
    age: float


def beat(connection: Connection, *, name: str, host: str, pid: int, queues: Sequence[str]) -> None:
    """A worker's parent process says that it is alive. A new process (another pid) starts over as `starting`."""
    connection.execute(
        text(
            """
            INSERT INTO worker (name, host, pid, queues, status) VALUES (:name, :host, :pid, :queues, 'starting')
            ON CONFLICT (name) DO UPDATE SET
                host = excluded.host, queues = excluded.queues, heartbeat_at = now(), pid = excluded.pid,
                status = CASE WHEN worker.pid = excluded.pid AND worker.host = excluded.host THEN worker.status
                              ELSE 'starting' END,
                error = CASE WHEN worker.pid = excluded.pid AND worker.host = excluded.host THEN worker.error END
            """
        ),
        {"name": name, "host": host, "pid": pid, "queues": list(queues)},
    )


def set_worker_state(connection: Connection, name: str, state: WorkerState, error: str | None = None) -> None:
    """A worker's child says whether its model is loaded."""
    connection.execute(
        text("UPDATE worker SET status = :state, error = :error, heartbeat_at = now() WHERE name = :name"),
        {"name": name, "state": str(state), "error": error},
    )


def remove_worker(connection: Connection, name: str, pid: int) -> None:
    """A worker stopped in order."""
    connection.execute(text("DELETE FROM worker WHERE name = :name AND pid = :pid"), {"name": name, "pid": pid})


def live_workers(connection: Connection, timeout: float) -> list[LiveWorker]:
    """Workers heard of within `timeout` seconds."""
    rows = connection.execute(
        text(
            """
            SELECT name, host, pid, queues, status, error,
                   extract(epoch FROM now() - heartbeat_at)::double precision AS age
            FROM worker WHERE heartbeat_at > now() - make_interval(secs => :timeout) ORDER BY name
            """
        ),
        {"timeout": timeout},
    )
    return [LiveWorker(**row._mapping) for row in rows]  # noqa: SLF001 - the documented name


def live_queues(workers: Iterable[LiveWorker], *, ready_only: bool = False) -> Counter[str]:
    """Queues that somebody consumes, and how many do. A broken or stopping worker serves nobody."""
    states = {WorkerState.READY} if ready_only else {WorkerState.READY, WorkerState.STARTING}
    return Counter(queue for worker in workers if worker.status in states for queue in worker.queues)


def sync_models(connection: Connection, models: Iterable[ModelEntry]) -> None:
    """Bring the table `model` to what the registry says; states and counters stay. One statement."""
    connection.execute(
        text(
            """
            INSERT INTO model (name, capability, backend, source, queue, revision, facts)
            SELECT name, capability, backend, source, queue, revision, facts
            FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (
                name text, capability text, backend text, source text, queue text, revision text, facts jsonb)
            ORDER BY name
            ON CONFLICT (name) DO UPDATE SET
                capability = excluded.capability, backend = excluded.backend, source = excluded.source,
                revision = excluded.revision, facts = excluded.facts
            WHERE (model.capability, model.backend, model.source, model.revision, model.facts) IS DISTINCT FROM
                  (excluded.capability, excluded.backend, excluded.source, excluded.revision, excluded.facts)
            """
        ),
        {"rows": json.dumps([_model_json(model) for model in models])},
    )


def sync_registry(connection: Connection, registry: Registry) -> None:
    """Bring the tables `model` and `judge` to what the registry says: what each process does first of all.

    Raises `SchemaBehind` where the database lacks what this version of the code reads and writes.
    """
    check_schema(connection)
    sync_models(connection, registry.models.values())
    connection.execute(
        text(
            """
            INSERT INTO judge (name) SELECT name FROM unnest(CAST(:names AS text[])) AS j (name) ORDER BY name
            ON CONFLICT (name) DO NOTHING
            """
        ),
        {"names": sorted(registry.judges)},
    )


def _model_json(model: ModelEntry) -> dict[str, Any]:
    return {
        "name": model.name,
        "capability": model.capability,
        "backend": model.backend,
        "source": str(model.source),
        "queue": model.queue,
        "revision": model.revision,
        "facts": model.metadata,
    }


@dataclass(frozen=True, kw_only=True)
class ModelRow:
    """What decides whether a model is chosen and sent, and how much of it.

    `probe_due`: suspended, and may be asked once now. `seconds_per_item`: measured; None before its first batch.
    """

    name: str
    status: str
    probe_due: bool
    seconds_per_item: float | None


def model_states(connection: Connection, names: Sequence[str], *, lock: bool = False) -> dict[str, ModelRow]:
    """The states of these models. `lock`: their rows, in name order, so that two schedulers fill no window twice."""
    rows = connection.execute(
        text(
            f"""
            SELECT name, status, status = 'suspended' AND coalesce(probe_after <= now(), true) AS probe_due,
                   seconds_per_item
            FROM model
            WHERE name = ANY(CAST(:names AS text[])) ORDER BY name {"FOR NO KEY UPDATE" if lock else ""}
            """  # noqa: S608 - one of two constants
        ),
        {"names": list(names)},
    )
    return {row.name: ModelRow(**row._mapping) for row in rows}  # noqa: SLF001 - the documented name


def note_speed(connection: Connection, model: str, seconds_per_item: float) -> bool:
    """Say how long a model takes per item; not while a scheduler holds its row. Returns whether it was written."""
    written = connection.execute(
        text(
            """
            UPDATE model SET seconds_per_item = :seconds
            WHERE name = (SELECT name FROM model WHERE name = :name FOR NO KEY UPDATE SKIP LOCKED)
            """
        ),
        {"name": model, "seconds": seconds_per_item},
    )
    return written.rowcount > 0
