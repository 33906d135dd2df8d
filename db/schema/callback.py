"""Celery tasks of other applications that are called once a task of ours has ended (`db.callbacks`)."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, SmallInteger, text
from sqlalchemy.orm import Mapped, mapped_column

from db.schema.base import HOT, NOW, Base


class Callback(Base):
    """What is to be called about one task. `not_before` is the lease too: who sends it moves it on first."""

    __tablename__ = "callback"

    task_id: Mapped[UUID] = mapped_column(ForeignKey("task.id", ondelete="CASCADE"), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    name: Mapped[str]  # of the Celery task
    queue: Mapped[str]
    args: Mapped[list[Any]] = mapped_column(server_default=text("'[]'"))
    kwargs: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    immutable: Mapped[bool] = mapped_column(server_default=text("false"))  # it gets its own arguments alone
    status: Mapped[str] = mapped_column(server_default=text("'waiting'"))
    attempt: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    not_before: Mapped[datetime | None]
    error: Mapped[str | None]  # why the last attempt did not succeed
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("status IN ('waiting', 'due', 'sent', 'failed')", name="status"),
        CheckConstraint("(status IN ('sent', 'failed')) = (finished_at IS NOT NULL)", name="final_finished"),
        CheckConstraint("(status = 'waiting') = (not_before IS NULL)", name="waiting_open"),
        CheckConstraint("length(name) BETWEEN 1 AND 200 AND length(queue) BETWEEN 1 AND 200", name="names"),
        CheckConstraint("jsonb_typeof(args) = 'array' AND jsonb_typeof(kwargs) = 'object'", name="arguments"),
        CheckConstraint("attempt >= 0", name="attempt"),
        Index("ix_callback_due", "not_before", postgresql_where=text("status = 'due'")),
        Index("ix_callback_waiting", "task_id", postgresql_where=text("status = 'waiting'")),
        HOT,
    )


class CallbackPlace(Base):
    """Up to where in the row of ended tasks every callback is due (`db.watching.Place`). One row."""

    __tablename__ = "callback_place"

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, server_default=text("1"), autoincrement=False)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    seen_xid: Mapped[int] = mapped_column(BigInteger)
    seen_task: Mapped[UUID]

    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)
