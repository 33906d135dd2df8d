"""Curation jobs: made, taken, held, ended, set going again. What happens to their records is in `db.curation_records`.

A job is run by one process at a time: it holds the job's lease, and every transaction that changes something begins
with `hold`, which renews the lease and locks the job's row. A process that lost the lease changes nothing any more.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, text

from db.errors import NotFound, RefusedNow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

COLUMNS = """id, name, recipe, recipe_hash, inputs, status, stage, counts, error, created_at, finished_at,
             extract(epoch FROM lease_until - now())::float8 AS lease_left"""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job as it is stored. `lease_left`: seconds that its runner's lease still holds, None where nobody runs it."""

    id: UUID
    name: str
    recipe: dict[str, Any]
    recipe_hash: str
    inputs: list[dict[str, Any]]
    status: str
    stage: str | None
    counts: dict[str, Any]
    error: str | None
    created_at: datetime
    finished_at: datetime | None
    lease_left: float | None

    @property
    def source(self) -> str:
        """Whose its tasks are."""
        return f"curation:{self.name}"


class LeaseLost(RefusedNow):
    """Another process runs the job now."""

    code = "lease_lost"


def create_job(
    connection: Connection, name: str, recipe: Mapping[str, Any], recipe_hash: str, inputs: Sequence[Mapping[str, Any]]
) -> Job:
    """The job of this name: a new one, or the one that there is, whatever its recipe."""
    connection.execute(
        text(
            """
            INSERT INTO curation_job (name, recipe, recipe_hash, inputs)
            VALUES (:name, CAST(:recipe AS jsonb), :hash, CAST(:inputs AS jsonb)) ON CONFLICT (name) DO NOTHING
            """
        ),
        {"name": name, "recipe": json.dumps(recipe), "hash": recipe_hash, "inputs": json.dumps(list(inputs))},
    )
    return read_job(connection, name)


def read_job(connection: Connection, name: str) -> Job:
    """A job by its name. Raises `NotFound`."""
    row = connection.execute(
        text(f"SELECT {COLUMNS} FROM curation_job WHERE name = :name"),  # noqa: S608 - a constant
        {"name": name},
    ).one_or_none()
    if row is None:
        raise NotFound(f"No curation job {name!r}; `bakeoff curate status` lists them.")
    return Job(**row._mapping)  # noqa: SLF001 - the documented name


def list_jobs(connection: Connection, limit: int) -> list[Job]:
    """The newest jobs."""
    rows = connection.execute(
        text(f"SELECT {COLUMNS} FROM curation_job ORDER BY id DESC LIMIT :limit"),  # noqa: S608 - a constant
        {"limit": limit},
    )
    return [Job(**row._mapping) for row in rows]  # noqa: SLF001 - the documented name


def jobs_before(connection: Connection, before: UUID | None, limit: int, name: str | None = None) -> list[Job]:
    """The newest jobs, or those that are older than one; of this name only, where one is said."""
    rows = connection.execute(
        text(
            f"""
            SELECT {COLUMNS} FROM curation_job
            WHERE (CAST(:before AS uuid) IS NULL OR id < :before) AND (CAST(:name AS text) IS NULL OR name = :name)
            ORDER BY id DESC LIMIT :limit
            """  # noqa: S608 - a constant
        ),
        {"before": before, "limit": limit, "name": name},
    )
    return [Job(**row._mapping) for row in rows]  # noqa: SLF001 - the documented name


def claim_next(connection: Connection, seconds: float) -> tuple[Job, UUID] | None:
    """Take the oldest job that is to run and that nobody runs, with the token of its lease; None where there is none.

    Two that ask at the same time get two jobs.
    """
    token = uuid4()
    row = connection.execute(
        text(
            f"""
            UPDATE curation_job SET token = :token, lease_until = now() + make_interval(secs => :seconds)
            WHERE id = (SELECT id FROM curation_job
                        WHERE status = 'running' AND (lease_until IS NULL OR lease_until <= now())
                        ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
            RETURNING {COLUMNS}
            """  # noqa: S608 - a constant
        ),
        {"token": token, "seconds": seconds},
    ).one_or_none()
    return None if row is None else (Job(**row._mapping), token)  # noqa: SLF001 - the documented name


def claim_job(connection: Connection, job: UUID, seconds: float) -> UUID | None:
    """Take a job that nobody runs, or whose runner's lease ran out. Returns the token, or None.

    Who has its row locked is at work, for minutes where a statement is about all records: nobody waits for that.
    """
    token = uuid4()
    rows = connection.execute(
        text(
            """
            UPDATE curation_job SET token = :token, lease_until = now() + make_interval(secs => :seconds)
            WHERE id IN (SELECT id FROM curation_job WHERE id = :job AND (lease_until IS NULL OR lease_until <= now())
                         FOR UPDATE SKIP LOCKED)
            RETURNING id
            """
        ),
        {"job": job, "token": token, "seconds": seconds},
    )
    return token if rows.scalar() else None


def hold(connection: Connection, job: UUID, token: UUID, seconds: float) -> None:
    """Hold the job `seconds` longer, and lock its row until the transaction ends. Raises `LeaseLost`."""
    held = connection.execute(
        text(
            """
            UPDATE curation_job SET lease_until = now() + make_interval(secs => :seconds)
            WHERE id = :job AND token = :token
            """
        ),
        {"job": job, "token": token, "seconds": seconds},
    ).rowcount
    if not held:
        raise LeaseLost("Another process runs this job now; this one changed nothing since it lost the lease.")


def release_job(connection: Connection, job: UUID, token: UUID) -> None:
    """Give the job back as it stands."""
    connection.execute(
        text("UPDATE curation_job SET token = NULL, lease_until = NULL WHERE id = :job AND token = :token"),
        {"job": job, "token": token},
    )


def note_stage(connection: Connection, job: UUID, stage: str) -> None:
    """Say which stage is worked on."""
    connection.execute(
        text("UPDATE curation_job SET stage = :stage WHERE id = :job"),
        {"job": job, "stage": stage},
    )


def note_counts(connection: Connection, job: UUID, counts: Mapping[str, Any]) -> None:
    """Keep what a stage has to say beside its records: seconds, rows that it could not use."""
    connection.execute(
        text("UPDATE curation_job SET counts = counts || CAST(:counts AS jsonb) WHERE id = :job"),
        {"job": job, "counts": json.dumps(counts)},
    )


def note_input(connection: Connection, job: UUID, number: int, values: Mapping[str, Any]) -> None:
    """How far an input is read, in the transaction that stores what was read."""
    connection.execute(
        text(
            """
            UPDATE curation_job SET inputs = jsonb_set(inputs, ARRAY[CAST(:number AS text)],
                                                       (inputs -> CAST(:number AS integer)) || CAST(:values AS jsonb))
            WHERE id = :job
            """
        ),
        {"job": job, "number": number, "values": json.dumps(values)},
    )


def add_input(connection: Connection, job: UUID, entry: Mapping[str, Any]) -> None:
    """More input: the job is to run again."""
    connection.execute(
        text(
            """
            UPDATE curation_job SET inputs = inputs || CAST(:entry AS jsonb), status = 'running', finished_at = NULL,
                                    error = NULL
            WHERE id = :job
            """
        ),
        {"job": job, "entry": json.dumps([entry])},
    )


def reopen_job(connection: Connection, job: UUID) -> None:
    """Set a job going that had failed: whatever it failed for may be mended."""
    connection.execute(
        text(
            """
            UPDATE curation_job SET status = 'running', finished_at = NULL, error = NULL
            WHERE id = :job AND status = 'failed'
            """
        ),
        {"job": job},
    )


def finish_job(connection: Connection, job: UUID) -> None:
    """Every record has passed all stages or was dropped."""
    connection.execute(
        text("UPDATE curation_job SET status = 'done', stage = NULL, finished_at = now() WHERE id = :job"),
        {"job": job},
    )


def fail_job(connection: Connection, job: UUID, error: str) -> None:
    """It cannot go on as it stands."""
    connection.execute(
        text("UPDATE curation_job SET status = 'failed', finished_at = now(), error = :error WHERE id = :job"),
        {"job": job, "error": error},
    )


def delete_job(connection: Connection, job: UUID) -> None:
    """Forget a job, its records and their bands. Its tasks stay, as results of its source, until they are pruned."""
    connection.execute(text("SET LOCAL statement_timeout = '15min'"))
    connection.execute(text("DELETE FROM curation_band WHERE job_id = :job"), {"job": job})
    connection.execute(text("DELETE FROM curation_job WHERE id = :job"), {"job": job})
