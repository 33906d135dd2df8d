"""The tables of what serves: models and judges with their breakers, and the processes that said they live."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from db.schema.base import NOW, Base, Breaker, one_of
from db.states import ModelState, WorkerState


class Model(Breaker, Base):
    """What the scheduler knows of a model of the registry. Rows are never deleted: candidates name them."""

    __tablename__ = "model"

    name: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    capability: Mapped[str]
    backend: Mapped[str]
    source: Mapped[str]
    queue: Mapped[str]
    revision: Mapped[str] = mapped_column(server_default=text("''"))
    facts: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))  # the registry's `metadata`
    seconds_per_item: Mapped[float | None]  # moving average over batches

    __table_args__ = (
        CheckConstraint(one_of("status", ModelState), name="status"),
        CheckConstraint("status <> 'suspended' OR reason IS NOT NULL", name="suspended_reason"),
        CheckConstraint("consecutive_failures >= 0", name="consecutive_failures"),
    )


class Judge(Breaker, Base):
    """What the scheduler knows of a judge of the registry."""

    __tablename__ = "judge"

    name: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)

    __table_args__ = (
        CheckConstraint(one_of("status", ModelState), name="status"),
        CheckConstraint("status <> 'suspended' OR reason IS NOT NULL", name="suspended_reason"),
        CheckConstraint("consecutive_failures >= 0", name="consecutive_failures"),
    )


class Worker(Base):
    """What a worker process said last. `queues` is what it consumes."""

    __tablename__ = "worker"

    name: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    host: Mapped[str]
    pid: Mapped[int]
    queues: Mapped[list[str]]
    status: Mapped[str]
    error: Mapped[str | None]
    heartbeat_at: Mapped[datetime] = mapped_column(server_default=NOW)

    __table_args__ = (
        CheckConstraint(one_of("status", WorkerState), name="status"),
        Index("ix_worker_heartbeat_at", "heartbeat_at"),
    )
