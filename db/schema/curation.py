"""The tables of curation jobs: what came in, how far each record is, what became of it and why.

A record's `stage` is how many stages it has passed, `step` how far it is in the next one (`Step`); both are rows, so a
job that is killed goes on where its last transaction ended. Records are never deleted: what was thrown away stays, with
the rule and the sentence that threw it away.
"""

from __future__ import annotations

from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, BigInteger, CheckConstraint, ForeignKey, Index, SmallInteger, text
from sqlalchemy.orm import Mapped, mapped_column

from db.schema.base import NEW_ID, NOW, Base, one_of


class JobState(StrEnum):
    """running → done | failed; more input sets a job that is done running again."""

    RUNNING = "running"  # its records are read and pass through its stages, or would if somebody ran it
    DONE = "done"  # every record is kept or dropped
    FAILED = "failed"  # it cannot go on as it stands, `error` says why


class Fate(StrEnum):
    """What became of a record."""

    PENDING = "pending"  # it has stages before it
    KEPT = "kept"  # it passed them all
    DROPPED = "dropped"  # `rule` and `reason` say why


class Step(IntEnum):
    """How far a pending record is in its next stage."""

    NEW = 0  # nothing was done
    ASKED = 1  # its tasks are stored
    SCORED = 2  # its tasks ended and were read; it waits for the others


class CurationJob(Base):
    """One recipe on one input. `token` and `lease_until` say which process runs it."""

    __tablename__ = "curation_job"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=NEW_ID)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    name: Mapped[str] = mapped_column(unique=True)
    recipe: Mapped[dict[str, Any]]
    recipe_hash: Mapped[str]
    inputs: Mapped[list[Any]]  # [{"path", "name", "sha256", "read", "records"}]; sha256 once it is read whole
    status: Mapped[str] = mapped_column(server_default=text("'running'"))
    stage: Mapped[str | None]  # the stage that is worked on
    counts: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))  # seconds by stage, notes
    error: Mapped[str | None]
    token: Mapped[UUID | None]
    lease_until: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint(one_of("status", JobState), name="status"),
        CheckConstraint("name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'", name="name"),
        CheckConstraint("(token IS NULL) = (lease_until IS NULL)", name="lease_whole"),
        CheckConstraint("(status = 'running') = (finished_at IS NULL)", name="final_finished"),
        CheckConstraint("status <> 'failed' OR error IS NOT NULL", name="failed_error"),
    )


class CurationRecord(Base):
    """One record of a job's input. `data` is `json`, not `jsonb`: it leaves as it came, keys in their order."""

    __tablename__ = "curation_record"

    job_id: Mapped[UUID] = mapped_column(ForeignKey("curation_job.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    key: Mapped[str]  # sha256 of its image and its turns
    type: Mapped[str]
    data: Mapped[Any] = mapped_column(JSON)
    stage: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    step: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    fate: Mapped[str] = mapped_column(server_default=text("'pending'"))
    rule: Mapped[str | None]
    reason: Mapped[str | None]
    scores: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))  # stage → score
    found: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))  # what stages wrote: answers, pairs

    __table_args__ = (
        CheckConstraint(one_of("fate", Fate), name="fate"),
        CheckConstraint("step BETWEEN 0 AND 2", name="step"),
        CheckConstraint("(fate = 'dropped') = (rule IS NOT NULL AND reason IS NOT NULL)", name="dropped_reason"),
        Index(
            "ix_curation_record_pending",
            "job_id",
            "stage",
            "step",
            "position",
            postgresql_where=text("fate = 'pending'"),
        ),
        Index("ix_curation_record_kept", "job_id", "position", postgresql_where=text("fate = 'kept'")),
        Index("ix_curation_record_job_id_key", "job_id", "key"),
    )


class CurationBand(Base):
    """A band of a record's MinHash signature. Two records that share one are compared.

    Millions of narrow rows: no time, and no foreign key, whose check would take longer than the row itself. They go
    with their job (`db.curation.delete_job`).
    """

    __tablename__ = "curation_band"

    job_id: Mapped[UUID] = mapped_column(primary_key=True)
    hash: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    position: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)


__all__ = ["Base", "CurationBand", "CurationJob", "CurationRecord", "Fate", "JobState", "Step"]
