"""nothing is lost: breaker of judges, deadlines, fair order, admission, prune

Only adds columns, a table and indexes, and swaps indexes: the code of 0001 runs beside it.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

STATES = "status IN ('active', 'draining', 'paused', 'suspended')"

#: name, table, columns, condition
NEW_INDEXES = (
    (
        "ix_task_pending_fair",
        "task",
        [sa.text("priority DESC"), "source", "created_at"],
        "status = 'pending' AND run_at IS NULL",
    ),
    ("ix_task_scheduled", "task", ["run_at"], "status = 'pending' AND run_at IS NOT NULL"),
    ("ix_task_unfinished_source", "task", ["source"], "finished_at IS NULL"),
    ("ix_task_pending_deadline", "task", ["deadline"], "status = 'pending' AND deadline IS NOT NULL"),
    (
        "ix_subtask_ready_fair",
        "subtask",
        ["capability", sa.text("priority DESC"), "source", "created_at"],
        "status = 'ready'",
    ),
    ("ix_subtask_running", "subtask", ["id"], "status IN ('running', 'judging')"),
    ("ix_subtask_blocked", "subtask", ["id"], "status = 'blocked'"),
    ("ix_subtask_deadline", "subtask", ["deadline"], "finished_at IS NULL AND deadline IS NOT NULL"),
)
OLD_INDEXES = (
    ("ix_task_pending", "task", [sa.text("priority DESC"), "created_at"], "status = 'pending'"),
    ("ix_subtask_ready", "subtask", [sa.text("priority DESC"), "created_at"], "status = 'ready'"),
    ("ix_subtask_ready_capability", "subtask", ["capability"], "status = 'ready'"),
    ("ix_subtask_open", "subtask", ["id"], "status IN ('blocked', 'running', 'judging')"),
)


def upgrade() -> None:
    op.create_table(
        "judge",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("status", sa.Text(), server_default=sa.text("'active'"), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("consecutive_failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("suspended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("probe_after", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(STATES, name=op.f("ck_judge_status")),
        sa.CheckConstraint("status <> 'suspended' OR reason IS NOT NULL", name=op.f("ck_judge_suspended_reason")),
        sa.CheckConstraint("consecutive_failures >= 0", name=op.f("ck_judge_consecutive_failures")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_judge")),
    )
    op.add_column("candidate", sa.Column("sends", sa.SmallInteger(), server_default=sa.text("0"), nullable=False))
    op.add_column("candidate", sa.Column("in_chord", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("subtask", sa.Column("sends", sa.SmallInteger(), server_default=sa.text("0"), nullable=False))
    op.add_column(
        "artifact", sa.Column("used_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False)
    )
    for name, table, columns, condition in NEW_INDEXES:
        op.create_index(name, table, columns, unique=False, postgresql_where=sa.text(condition))
    op.create_index(
        "ix_task_attachments",
        "task",
        ["attachments"],
        unique=False,
        postgresql_using="gin",
        postgresql_ops={"attachments": "jsonb_path_ops"},
        postgresql_where=sa.text("attachments <> '[]'"),
    )
    op.create_index("ix_verdict_created_at", "verdict", ["created_at"], unique=False)
    for name, table, _, _ in OLD_INDEXES:
        op.drop_index(name, table_name=table)


def downgrade() -> None:
    for name, table, columns, condition in OLD_INDEXES:
        op.create_index(name, table, columns, unique=False, postgresql_where=sa.text(condition))
    op.drop_index("ix_verdict_created_at", table_name="verdict")
    op.drop_index("ix_task_attachments", table_name="task")
    for name, table, _, _ in NEW_INDEXES:
        op.drop_index(name, table_name=table)
    op.drop_column("artifact", "used_at")
    op.drop_column("subtask", "sends")
    op.drop_column("candidate", "in_chord")
    op.drop_column("candidate", "sends")
    op.drop_table("judge")
