"""keys of the HTTP API, and webhooks

New tables only: the code of 0009 runs beside it.

Revision ID: 0010
Revises: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
ID = postgresql.UUID(as_uuid=True)


def upgrade() -> None:
    op.create_table(
        "api_key",
        sa.Column("id", ID, server_default=sa.text("bakeoff_uuid7()"), nullable=False),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("source", sa.Text(), nullable=True),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("last_used_at", TIME, nullable=True),
        sa.Column("revoked_at", TIME, nullable=True),
        sa.CheckConstraint("length(name) BETWEEN 1 AND 100", name=op.f("ck_api_key_name")),
        sa.CheckConstraint(
            "scopes <> '{}' AND scopes <@ ARRAY['submit', 'read', 'admin']", name=op.f("ck_api_key_scopes")
        ),
        sa.CheckConstraint("length(source) BETWEEN 1 AND 100", name=op.f("ck_api_key_source")),
        sa.CheckConstraint("octet_length(digest) = 32", name=op.f("ck_api_key_digest")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_key")),
    )
    _webhooks()


def _webhooks() -> None:
    op.create_table(
        "webhook",
        sa.Column("id", ID, server_default=sa.text("bakeoff_uuid7()"), nullable=False),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=True),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("seen_xid", sa.BigInteger(), nullable=False),
        sa.Column("seen_task", ID, nullable=False),
        sa.Column("stopped_at", TIME, nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.CheckConstraint("length(url) BETWEEN 1 AND 2000", name=op.f("ck_webhook_url")),
        sa.CheckConstraint("length(source) BETWEEN 1 AND 100", name=op.f("ck_webhook_source")),
        sa.CheckConstraint("(stopped_at IS NULL) = (reason IS NULL)", name=op.f("ck_webhook_stopped_reason")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook")),
    )
    op.create_table(
        "webhook_delivery",
        sa.Column("id", ID, server_default=sa.text("bakeoff_uuid7()"), nullable=False),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("webhook_id", ID, nullable=False),
        sa.Column("task_id", ID, nullable=False),
        sa.Column("status", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
        sa.Column("attempt", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("not_before", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("answered", sa.SmallInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("finished_at", TIME, nullable=True),
        sa.CheckConstraint("status IN ('pending', 'delivered', 'failed')", name=op.f("ck_webhook_delivery_status")),
        sa.CheckConstraint(
            "(status = 'pending') = (finished_at IS NULL)", name=op.f("ck_webhook_delivery_pending_open")
        ),
        sa.CheckConstraint("attempt >= 0", name=op.f("ck_webhook_delivery_attempt")),
        sa.ForeignKeyConstraint(["task_id"], ["task.id"], name=op.f("fk_webhook_delivery_task_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhook.id"], name=op.f("fk_webhook_delivery_webhook_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_delivery")),
        sa.UniqueConstraint("webhook_id", "task_id", name=op.f("uq_webhook_delivery_webhook_id_task_id")),
        postgresql_with={"fillfactor": 70},
    )
    op.create_index(
        "ix_webhook_delivery_due", "webhook_delivery", ["not_before"], postgresql_where=sa.text("status = 'pending'")
    )
    op.create_index("ix_webhook_delivery_task_id", "webhook_delivery", ["task_id"])


def downgrade() -> None:
    op.drop_table("webhook_delivery")
    op.drop_table("webhook")
    op.drop_table("api_key")
