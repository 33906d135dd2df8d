"""tasks that are planned and integrated; what a step may set for itself

The code of 0004 runs beside it: the new columns have defaults, and a task that waits for a planner is none of its.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

RESULTS = """
CREATE OR REPLACE VIEW results AS
SELECT id AS task_id, source, status, request, answer, artifacts, winners, confidence, fallback, error, finished_at,
       retry_of, created_at, finished_xid{more}
FROM task
"""


def upgrade() -> None:
    op.add_column("task", sa.Column("planned", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("task", sa.Column("integration", postgresql.JSONB(), nullable=True))
    op.add_column("task", sa.Column("needs_review", sa.Boolean(), nullable=True))
    op.create_check_constraint(
        op.f("ck_task_planned"), "task", "NOT planned OR (status = 'planning' AND plan IS NOT NULL AND token IS NULL)"
    )
    op.create_index(
        "ix_task_thinking", "task", ["status", "id"], postgresql_where=sa.text("status IN ('planning', 'integrating')")
    )
    op.create_index("ix_task_plans", "task", ["id"], postgresql_where=sa.text("plan IS NOT NULL"))
    op.create_index("ix_task_planned", "task", [sa.text("priority DESC"), "id"], postgresql_where=sa.text("planned"))
    op.add_column("subtask", sa.Column("max_candidates", sa.SmallInteger(), nullable=True))
    op.add_column("subtask", sa.Column("note", sa.Text(), nullable=True))
    op.add_column("subtask", sa.Column("grace", sa.Float(53), nullable=True))
    op.add_column("subtask", sa.Column("min_confidence", sa.Float(53), nullable=True))
    op.create_check_constraint(op.f("ck_subtask_max_candidates"), "subtask", "max_candidates BETWEEN 1 AND 64")
    op.create_check_constraint(op.f("ck_subtask_grace"), "subtask", "grace >= 0")
    op.create_check_constraint(op.f("ck_subtask_min_confidence"), "subtask", "min_confidence BETWEEN 0 AND 1")
    op.create_index(
        "ix_subtask_grace", "subtask", ["id"], postgresql_where=sa.text("status = 'running' AND grace IS NOT NULL")
    )
    op.create_index(
        "ix_subtask_done", "subtask", ["capability", "finished_at"], postgresql_where=sa.text("status = 'done'")
    )
    op.execute(RESULTS.format(more=", needs_review"))


def downgrade() -> None:
    # What has subtasks runs: the code of 0004 finishes it from those. The rest is looked at anew.
    op.execute(
        """
        UPDATE task SET status = CASE WHEN EXISTS (SELECT FROM subtask AS s WHERE s.task_id = task.id)
                                      THEN 'running' ELSE 'pending' END,
               plan = NULL, planned = false, token = NULL, lease_until = NULL, attempt = 0, message_id = NULL,
               sent_at = NULL, not_before = NULL, error = NULL
        WHERE status IN ('planning', 'integrating')
        """
    )
    op.execute("DROP VIEW results")
    op.execute(RESULTS.format(more=""))
    op.drop_index("ix_subtask_done", table_name="subtask")
    op.drop_index("ix_subtask_grace", table_name="subtask")
    for column in ("min_confidence", "grace", "note", "max_candidates"):
        op.drop_column("subtask", column)
    op.drop_index("ix_task_plans", table_name="task")
    op.drop_index("ix_task_planned", table_name="task")
    op.drop_index("ix_task_thinking", table_name="task")
    op.drop_constraint(op.f("ck_task_planned"), "task")
    for column in ("needs_review", "integration", "planned"):
        op.drop_column("task", column)
