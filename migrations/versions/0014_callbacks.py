"""Celery tasks of other applications that are called once a task has ended

New tables only: the code of 0013 runs beside it.

Revision ID: 0014
Revises: 0013
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
ID = postgresql.UUID(as_uuid=True)


def upgrade() -> None:
    op.create_table(
        "callback",
        sa.Column("task_id", ID, nullable=False),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("args", postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("kwargs", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("immutable", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("status", sa.Text(), server_default=sa.text("'waiting'"), nullable=False),
        sa.Column("attempt", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("not_before", TIME, nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("finished_at", TIME, nullable=True),
        sa.CheckConstraint("status IN ('waiting', 'due', 'sent', 'failed')", name=op.f("ck_callback_status")),
        sa.CheckConstraint(
            "(status IN ('sent', 'failed')) = (finished_at IS NOT NULL)", name=op.f("ck_callback_final_finished")
        ),
        sa.CheckConstraint("(status = 'waiting') = (not_before IS NULL)", name=op.f("ck_callback_waiting_open")),
        sa.CheckConstraint(
            "length(name) BETWEEN 1 AND 200 AND length(queue) BETWEEN 1 AND 200", name=op.f("ck_callback_names")
        ),
        sa.CheckConstraint(
            "jsonb_typeof(args) = 'array' AND jsonb_typeof(kwargs) = 'object'", name=op.f("ck_callback_arguments")
        ),
        sa.CheckConstraint("attempt >= 0", name=op.f("ck_callback_attempt")),
        sa.ForeignKeyConstraint(["task_id"], ["task.id"], name=op.f("fk_callback_task_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_callback")),
        postgresql_with={"fillfactor": 70},
    )
    op.create_index("ix_callback_due", "callback", ["not_before"], postgresql_where=sa.text("status = 'due'"))
    op.create_index("ix_callback_waiting", "callback", ["task_id"], postgresql_where=sa.text("status = 'waiting'"))
    op.create_table(
        "callback_place",
        sa.Column("id", sa.SmallInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("seen_xid", sa.BigInteger(), nullable=False),
        sa.Column("seen_task", ID, nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_callback_place_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_callback_place")),
    )
    op.execute(
        """
        INSERT INTO callback_place (seen_xid, seen_task)
        SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint),
               '00000000-0000-0000-0000-000000000000'
        """
    )


def downgrade() -> None:
    op.drop_table("callback_place")
    op.drop_table("callback")
