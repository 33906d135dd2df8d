"""The tables of the HTTP API: keys, webhooks and their deliveries."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, LargeBinary, SmallInteger, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from db.schema.base import HOT, NEW_ID, NOW, Base


class ApiKey(Base):
    """A key of the HTTP API. What it opens is `scopes`; the key itself is stored nowhere (`db.keys`)."""

    __tablename__ = "api_key"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=NEW_ID)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    name: Mapped[str]
    scopes: Mapped[list[str]]
    source: Mapped[str | None]  # the only one whose tasks it writes and sees; null: every one
    digest: Mapped[bytes] = mapped_column(LargeBinary)  # sha256 of the secret half
    last_used_at: Mapped[datetime | None]  # to about a minute: not written per request
    revoked_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("length(name) BETWEEN 1 AND 100", name="name"),
        CheckConstraint("scopes <> '{}' AND scopes <@ ARRAY['submit', 'read', 'admin']", name="scopes"),
        CheckConstraint("length(source) BETWEEN 1 AND 100", name="source"),
        CheckConstraint("octet_length(digest) = 32", name="digest"),
    )


class Webhook(Base):
    """An address that hears of every task that ends, or of those of one source."""

    __tablename__ = "webhook"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=NEW_ID)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    url: Mapped[str]
    source: Mapped[str | None]
    secret: Mapped[bytes] = mapped_column(LargeBinary)  # what deliveries are signed with, so not a hash
    seen_xid: Mapped[int] = mapped_column(BigInteger)  # up to where in the row of ended tasks (`db.watching.Place`)
    seen_task: Mapped[UUID]
    stopped_at: Mapped[datetime | None]
    reason: Mapped[str | None]  # why it was stopped

    __table_args__ = (
        CheckConstraint("length(url) BETWEEN 1 AND 2000", name="url"),
        CheckConstraint("length(source) BETWEEN 1 AND 100", name="source"),
        CheckConstraint("(stopped_at IS NULL) = (reason IS NULL)", name="stopped_reason"),
    )


class WebhookDelivery(Base):
    """One task's end on its way to one webhook. `not_before` is the lease too: who sends it moves it on first."""

    __tablename__ = "webhook_delivery"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=NEW_ID)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    webhook_id: Mapped[UUID] = mapped_column(ForeignKey("webhook.id", ondelete="CASCADE"))
    task_id: Mapped[UUID] = mapped_column(ForeignKey("task.id", ondelete="CASCADE"))
    status: Mapped[str] = mapped_column(server_default=text("'pending'"))
    attempt: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    not_before: Mapped[datetime] = mapped_column(server_default=NOW)
    answered: Mapped[int | None] = mapped_column(SmallInteger)  # the HTTP status of the last attempt
    error: Mapped[str | None]  # why the last attempt did not succeed
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("status IN ('pending', 'delivered', 'failed')", name="status"),
        CheckConstraint("(status = 'pending') = (finished_at IS NULL)", name="pending_open"),
        CheckConstraint("attempt >= 0", name="attempt"),
        UniqueConstraint("webhook_id", "task_id"),
        Index("ix_webhook_delivery_due", "not_before", postgresql_where=text("status = 'pending'")),
        Index("ix_webhook_delivery_task_id", "task_id"),
        Index("ix_webhook_delivery_failed", "webhook_id", postgresql_where=text("status = 'failed'")),
        HOT,
    )
