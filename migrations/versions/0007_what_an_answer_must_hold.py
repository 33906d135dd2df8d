"""what an answer must hold, who judges where a judge fails, and what the judge saw of the files

The code of 0006 runs beside it: the new columns may be empty or have defaults.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

VERDICTS = """
CREATE OR REPLACE VIEW verdicts AS
SELECT v.id AS verdict_id, s.task_id, v.subtask_id, s.capability, w.model AS winner, v.winner_id,
       (SELECT jsonb_agg(c.model ORDER BY place.n)
        FROM jsonb_array_elements_text(v.ranking) WITH ORDINALITY AS place (id, n)
        JOIN candidate AS c ON c.id = place.id::uuid) AS ranking,
       (SELECT jsonb_object_agg(c.model, score.value)
        FROM jsonb_each(v.scores) AS score JOIN candidate AS c ON c.id = score.key::uuid) AS scores,
       v.method, v.judge, v.judge_model, v.prompt_version, v.reason, v.confidence, v.fallback, v.seconds,
       v.created_at{more}
FROM verdict AS v
JOIN subtask AS s ON s.id = v.subtask_id
JOIN candidate AS w ON w.id = v.winner_id
"""
#: `checks`: who was checked and how; `failed_judges`: who was asked before, and why it did not decide.
MORE = """, v.seen, jsonb_path_query_first(v.orders, '$[*].checks') AS checks,
       nullif(jsonb_path_query_array(v.orders, '$[*].failed[*]'), '[]') AS failed_judges"""
SEEN = "seen IN ('image', 'audio', 'transcript', 'caption', 'text', 'unseen')"


def upgrade() -> None:
    op.add_column("subtask", sa.Column("expect", postgresql.JSONB(), nullable=True))
    for column in ("next_judges", "failed_judges"):
        op.add_column("subtask", sa.Column(column, postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False))
    op.add_column("verdict", sa.Column("seen", sa.Text(), nullable=True))
    op.create_check_constraint(op.f("ck_subtask_expect_object"), "subtask", "jsonb_typeof(expect) = 'object'")
    op.create_check_constraint(
        op.f("ck_subtask_judges_arrays"),
        "subtask",
        "jsonb_typeof(next_judges) = 'array' AND jsonb_typeof(failed_judges) = 'array'",
    )
    op.create_check_constraint(op.f("ck_verdict_seen"), "verdict", SEEN)
    op.execute(VERDICTS.format(more=MORE))


def downgrade() -> None:
    op.execute("DROP VIEW verdicts")
    op.execute(VERDICTS.format(more=""))
    op.drop_constraint(op.f("ck_verdict_seen"), "verdict")
    op.drop_column("verdict", "seen")
    op.drop_constraint(op.f("ck_subtask_judges_arrays"), "subtask")
    op.drop_constraint(op.f("ck_subtask_expect_object"), "subtask")
    for column in ("failed_judges", "next_judges", "expect"):
        op.drop_column("subtask", column)
