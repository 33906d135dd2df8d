"""where a task's trace began, and counts that never go back

New tables, a column that may be null and two indexes: the code of 0012 runs beside it.

Revision ID: 0013
Revises: 0012
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "tally",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("value", sa.Float(53), nullable=False),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("name", "label", "kind", name=op.f("pk_tally")),
    )
    op.create_table(
        "tally_place",
        sa.Column("id", sa.SmallInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("seen_xid", sa.BigInteger(), nullable=False),
        sa.Column("seen_task", postgresql.UUID(as_uuid=True), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_tally_place_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tally_place")),
    )
    op.execute("INSERT INTO tally_place (seen_xid, seen_task) VALUES (0, '00000000-0000-0000-0000-000000000000')")
    op.create_index(
        "ix_webhook_delivery_failed",
        "webhook_delivery",
        ["webhook_id"],
        postgresql_where=sa.text("status = 'failed'"),
    )
    op.create_index(
        "ix_preference_human_created_at",
        "preference",
        ["capability", "created_at"],
        postgresql_where=sa.text("origin = 'human' AND subtask_id IS NOT NULL"),
    )
    # Last: it locks every task until the end, for which nobody needs to wait while an index is built.
    op.add_column("task", sa.Column("traceparent", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_index("ix_preference_human_created_at", table_name="preference")
    op.drop_index("ix_webhook_delivery_failed", table_name="webhook_delivery")
    op.drop_table("tally_place")
    op.drop_table("tally")
    op.drop_column("task", "traceparent")
