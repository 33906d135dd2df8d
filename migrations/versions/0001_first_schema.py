"""first schema

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from db.schema import XID8

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


#: RFC 9562 version 7 on every Postgres from 15: 48 bits of milliseconds, then 12 bits of the fraction of the
#: millisecond (section 6.2, method 3), so that ids of one session sort by time; the rest is random.
UUID7 = """
CREATE FUNCTION bakeoff_uuid7() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE
SET search_path = pg_catalog AS $$
    SELECT encode(
        substring(int8send(moment.micros / 1000) FROM 3)
        || substring(int8send((7 << 12) | ((moment.micros % 1000) * 4096 / 1000)) FROM 7)
        || set_bit(set_bit(substring(uuid_send(gen_random_uuid()) FROM 9), 7, 1), 6, 0),
        'hex')::uuid
    FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS micros) AS moment
$$
"""

NOTIFY = (
    """
CREATE FUNCTION bakeoff_notify_task() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    PERFORM pg_notify('bakeoff', 'task');
    RETURN NULL;
END
$$
""",
    """
CREATE TRIGGER task_inserted AFTER INSERT ON task FOR EACH STATEMENT EXECUTE FUNCTION bakeoff_notify_task()
""",
)

VIEWS = (
    """
CREATE VIEW results AS
SELECT id AS task_id, source, status, request, answer, artifacts, winners, confidence, fallback, error, finished_at,
       retry_of, created_at, finished_xid
FROM task
""",
    """
CREATE VIEW candidates AS
SELECT c.id AS candidate_id, s.task_id, c.subtask_id, s.capability, c.model, c.status, c.rank, c.proposed_by,
       c.output, c.detail, c.usage, c.error, c.seconds, c.attempt, c.cached, (v.winner_id IS NOT NULL) AS winner,
       c.created_at, c.finished_at
FROM candidate AS c
JOIN subtask AS s ON s.id = c.subtask_id
LEFT JOIN verdict AS v ON v.subtask_id = c.subtask_id AND v.winner_id = c.id
""",
    """
CREATE VIEW verdicts AS
SELECT v.id AS verdict_id, s.task_id, v.subtask_id, s.capability, w.model AS winner, v.winner_id,
       (SELECT jsonb_agg(c.model ORDER BY place.n)
        FROM jsonb_array_elements_text(v.ranking) WITH ORDINALITY AS place (id, n)
        JOIN candidate AS c ON c.id = place.id::uuid) AS ranking,
       (SELECT jsonb_object_agg(c.model, score.value)
        FROM jsonb_each(v.scores) AS score JOIN candidate AS c ON c.id = score.key::uuid) AS scores,
       v.method, v.judge, v.judge_model, v.prompt_version, v.reason, v.confidence, v.fallback, v.seconds, v.created_at
FROM verdict AS v
JOIN subtask AS s ON s.id = v.subtask_id
JOIN candidate AS w ON w.id = v.winner_id
""",
)


def upgrade() -> None:
    op.execute(UUID7)
    op.create_table(
        "artifact",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name=op.f("ck_artifact_sha256")),
        sa.CheckConstraint("size >= 0", name=op.f("ck_artifact_size")),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_artifact")),
    )
    op.create_table(
        "model",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("capability", sa.Text(), nullable=False),
        sa.Column("backend", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("revision", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("facts", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("status", sa.Text(), server_default=sa.text("'active'"), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("consecutive_failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("suspended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("probe_after", sa.DateTime(timezone=True), nullable=True),
        sa.Column("seconds_per_item", sa.Float(precision=53), nullable=True),
        sa.CheckConstraint("status <> 'suspended' OR reason IS NOT NULL", name=op.f("ck_model_suspended_reason")),
        sa.CheckConstraint("status IN ('active', 'draining', 'paused', 'suspended')", name=op.f("ck_model_status")),
        sa.CheckConstraint("consecutive_failures >= 0", name=op.f("ck_model_consecutive_failures")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_model")),
        sa.UniqueConstraint("queue", name=op.f("uq_model_queue")),
    )
    op.create_table(
        "task",
        sa.Column("id", sa.UUID(), server_default=sa.text("bakeoff_uuid7()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("request", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("capability", sa.Text(), nullable=True),
        sa.Column("source", sa.Text(), server_default=sa.text("'sql'"), nullable=False),
        sa.Column("priority", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("options", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column(
            "attachments", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'[]'"), nullable=False
        ),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("run_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deadline", sa.DateTime(timezone=True), nullable=True),
        sa.Column("status", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
        sa.Column("plan", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("retry_of", sa.UUID(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("artifacts", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("winners", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("confidence", sa.Float(precision=53), nullable=True),
        sa.Column("fallback", sa.Boolean(), nullable=True),
        sa.Column("error", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_xid", XID8(), nullable=True),
        sa.Column("attempt", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("max_attempts", sa.SmallInteger(), server_default=sa.text("3"), nullable=False),
        sa.Column("token", sa.UUID(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("message_id", sa.UUID(), nullable=True),
        sa.CheckConstraint(
            "(status IN ('cancelled', 'done', 'expired', 'failed')) = (finished_at IS NOT NULL)",
            name=op.f("ck_task_final_finished"),
        ),
        sa.CheckConstraint("jsonb_typeof(attachments) = 'array'", name=op.f("ck_task_attachments_array")),
        sa.CheckConstraint("jsonb_typeof(options) = 'object'", name=op.f("ck_task_options_object")),
        sa.CheckConstraint("request <> '' OR attachments <> '[]'", name=op.f("ck_task_something_asked")),
        sa.CheckConstraint("run_at < '9000-01-01' AND deadline < '9000-01-01'", name=op.f("ck_task_times")),
        sa.CheckConstraint("source <> '' AND length(source) <= 100", name=op.f("ck_task_source")),
        sa.CheckConstraint("status <> 'done' OR answer IS NOT NULL", name=op.f("ck_task_done_answer")),
        sa.CheckConstraint("status <> 'failed' OR error IS NOT NULL", name=op.f("ck_task_failed_error")),
        sa.CheckConstraint(
            "status IN ('cancelled', 'done', 'expired', 'failed', 'integrating', 'pending', 'planning', 'running')",
            name=op.f("ck_task_status"),
        ),
        sa.CheckConstraint("token IS NULL OR status IN ('planning', 'integrating')", name=op.f("ck_task_lease_state")),
        sa.CheckConstraint("(finished_at IS NULL) = (finished_xid IS NULL)", name=op.f("ck_task_finished_xid")),
        sa.CheckConstraint("(token IS NULL) = (lease_until IS NULL)", name=op.f("ck_task_lease_whole")),
        sa.CheckConstraint(
            "attempt BETWEEN 0 AND 1000 AND max_attempts BETWEEN 1 AND 1000", name=op.f("ck_task_attempts")
        ),
        sa.CheckConstraint("deadline > run_at", name=op.f("ck_task_deadline_after_run_at")),
        sa.CheckConstraint("length(idempotency_key) BETWEEN 1 AND 200", name=op.f("ck_task_idempotency_key")),
        sa.CheckConstraint("priority BETWEEN -100 AND 100", name=op.f("ck_task_priority")),
        sa.ForeignKeyConstraint(["retry_of"], ["task.id"], name=op.f("fk_task_retry_of"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_task")),
        postgresql_with={"fillfactor": 70},
    )
    op.create_index(
        "ix_task_finished_at_id",
        "task",
        ["finished_at", "id"],
        unique=False,
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )
    op.create_index(
        "ix_task_finished_xid_id",
        "task",
        ["finished_xid", "id"],
        unique=False,
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )
    op.create_index(
        "ix_task_open",
        "task",
        ["id"],
        unique=False,
        postgresql_where=sa.text("status IN ('planning', 'running', 'integrating')"),
    )
    op.create_index(
        "ix_task_pending",
        "task",
        [sa.literal_column("priority DESC"), "created_at"],
        unique=False,
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index(
        "ix_task_retry_of", "task", ["retry_of"], unique=False, postgresql_where=sa.text("retry_of IS NOT NULL")
    )
    op.create_index(
        "uq_task_source_idempotency_key",
        "task",
        ["source", "idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.create_table(
        "worker",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("queues", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("status IN ('broken', 'ready', 'starting', 'stopping')", name=op.f("ck_worker_status")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_worker")),
    )
    op.create_index("ix_worker_heartbeat_at", "worker", ["heartbeat_at"], unique=False)
    op.create_table(
        "subtask",
        sa.Column("id", sa.UUID(), server_default=sa.text("bakeoff_uuid7()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("task_id", sa.UUID(), nullable=False),
        sa.Column("position", sa.SmallInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("capability", sa.Text(), nullable=False),
        sa.Column("inputs", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("options", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("candidates_wanted", sa.SmallInteger(), nullable=False),
        sa.Column("quorum", sa.SmallInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("judge", sa.Text(), nullable=False),
        sa.Column("deadline", sa.DateTime(timezone=True), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("needs_review", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("error", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempt", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("max_attempts", sa.SmallInteger(), server_default=sa.text("3"), nullable=False),
        sa.Column("token", sa.UUID(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("message_id", sa.UUID(), nullable=True),
        sa.CheckConstraint(
            "(status IN ('cancelled', 'done', 'expired', 'failed', 'skipped')) = (finished_at IS NOT NULL)",
            name=op.f("ck_subtask_final_finished"),
        ),
        sa.CheckConstraint("(token IS NOT NULL) = (status = 'judging')", name=op.f("ck_subtask_lease_state")),
        sa.CheckConstraint("jsonb_typeof(inputs) = 'array'", name=op.f("ck_subtask_inputs_array")),
        sa.CheckConstraint("status <> 'failed' OR error IS NOT NULL", name=op.f("ck_subtask_failed_error")),
        sa.CheckConstraint(
            "status IN ('blocked', 'cancelled', 'done', 'expired', 'failed', 'judging', 'ready', 'running', 'skipped')",
            name=op.f("ck_subtask_status"),
        ),
        sa.CheckConstraint("(token IS NULL) = (lease_until IS NULL)", name=op.f("ck_subtask_lease_whole")),
        sa.CheckConstraint(
            "attempt BETWEEN 0 AND 1000 AND max_attempts BETWEEN 1 AND 1000", name=op.f("ck_subtask_attempts")
        ),
        sa.CheckConstraint("candidates_wanted BETWEEN 1 AND 64", name=op.f("ck_subtask_candidates_wanted")),
        sa.CheckConstraint("quorum BETWEEN 1 AND 64", name=op.f("ck_subtask_quorum")),
        sa.ForeignKeyConstraint(["task_id"], ["task.id"], name=op.f("fk_subtask_task_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_subtask")),
        sa.UniqueConstraint("task_id", "name", name=op.f("uq_subtask_task_id_name")),
        sa.UniqueConstraint("task_id", "position", name=op.f("uq_subtask_task_id_position")),
        postgresql_with={"fillfactor": 70},
    )
    op.create_index(
        "ix_subtask_open",
        "subtask",
        ["id"],
        unique=False,
        postgresql_where=sa.text("status IN ('blocked', 'running', 'judging')"),
    )
    op.create_index(
        "ix_subtask_ready",
        "subtask",
        [sa.literal_column("priority DESC"), "created_at"],
        unique=False,
        postgresql_where=sa.text("status = 'ready'"),
    )
    op.create_index(
        "ix_subtask_ready_capability",
        "subtask",
        ["capability"],
        unique=False,
        postgresql_where=sa.text("status = 'ready'"),
    )
    op.create_index(
        "ix_subtask_unfinished", "subtask", ["task_id"], unique=False, postgresql_where=sa.text("finished_at IS NULL")
    )
    op.create_table(
        "candidate",
        sa.Column("id", sa.UUID(), server_default=sa.text("bakeoff_uuid7()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("subtask_id", sa.UUID(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("rank", sa.SmallInteger(), nullable=False),
        sa.Column(
            "proposed_by", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'[]'"), nullable=False
        ),
        sa.Column("isolate", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("status", sa.Text(), server_default=sa.text("'chosen'"), nullable=False),
        sa.Column("output", sa.Text(), nullable=True),
        sa.Column("detail", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("usage", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("error", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("seconds", sa.Float(precision=53), nullable=True),
        sa.Column("revision", sa.Text(), nullable=True),
        sa.Column("cached", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempt", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("max_attempts", sa.SmallInteger(), server_default=sa.text("3"), nullable=False),
        sa.Column("token", sa.UUID(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("message_id", sa.UUID(), nullable=True),
        sa.CheckConstraint("(status = 'done') = (output IS NOT NULL)", name=op.f("ck_candidate_done_output")),
        sa.CheckConstraint(
            "(status IN ('cancelled', 'dead', 'done', 'error')) = (finished_at IS NOT NULL)",
            name=op.f("ck_candidate_final_finished"),
        ),
        sa.CheckConstraint("(token IS NOT NULL) = (status = 'running')", name=op.f("ck_candidate_lease_state")),
        sa.CheckConstraint(
            "status <> 'sent' OR (message_id IS NOT NULL AND sent_at IS NOT NULL)",
            name=op.f("ck_candidate_sent_message"),
        ),
        sa.CheckConstraint(
            "status IN ('cancelled', 'chosen', 'dead', 'done', 'error', 'running', 'sent')",
            name=op.f("ck_candidate_status"),
        ),
        sa.CheckConstraint(
            "status NOT IN ('error', 'dead') OR error IS NOT NULL", name=op.f("ck_candidate_failed_error")
        ),
        sa.CheckConstraint("(token IS NULL) = (lease_until IS NULL)", name=op.f("ck_candidate_lease_whole")),
        sa.CheckConstraint(
            "attempt BETWEEN 0 AND 1000 AND max_attempts BETWEEN 1 AND 1000", name=op.f("ck_candidate_attempts")
        ),
        sa.CheckConstraint("rank >= 0", name=op.f("ck_candidate_rank")),
        sa.ForeignKeyConstraint(["model"], ["model.name"], name=op.f("fk_candidate_model")),
        sa.ForeignKeyConstraint(
            ["subtask_id"], ["subtask.id"], name=op.f("fk_candidate_subtask_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_candidate")),
        sa.UniqueConstraint("id", "subtask_id", name=op.f("uq_candidate_id_subtask_id")),
        sa.UniqueConstraint("subtask_id", "model", name=op.f("uq_candidate_subtask_id_model")),
        postgresql_with={"fillfactor": 70},
    )
    op.create_index(
        "ix_candidate_chosen",
        "candidate",
        ["model", "not_before"],
        unique=False,
        postgresql_where=sa.text("status = 'chosen'"),
    )
    op.create_index(
        "ix_candidate_failed",
        "candidate",
        ["model", "finished_at"],
        unique=False,
        postgresql_where=sa.text("status IN ('error', 'dead')"),
    )
    op.create_index(
        "ix_candidate_in_flight",
        "candidate",
        ["model", "message_id"],
        unique=False,
        postgresql_where=sa.text("status IN ('sent', 'running')"),
    )
    op.create_table(
        "preference",
        sa.Column("id", sa.UUID(), server_default=sa.text("bakeoff_uuid7()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("capability", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("annotator", sa.Text(), nullable=True),
        sa.Column("subtask_id", sa.UUID(), nullable=True),
        sa.Column("group_key", sa.Text(), nullable=False),
        sa.Column("input", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("better", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("worse", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.CheckConstraint("origin IN ('human', 'judge', 'import')", name=op.f("ck_preference_origin")),
        sa.CheckConstraint("better <> worse", name=op.f("ck_preference_not_itself")),
        sa.ForeignKeyConstraint(
            ["subtask_id"], ["subtask.id"], name=op.f("fk_preference_subtask_id"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_preference")),
    )
    op.create_index("ix_preference_capability_created_at", "preference", ["capability", "created_at"], unique=False)
    op.create_index(
        "ix_preference_subtask_id",
        "preference",
        ["subtask_id"],
        unique=False,
        postgresql_where=sa.text("subtask_id IS NOT NULL"),
    )
    op.create_table(
        "subtask_need",
        sa.Column("subtask_id", sa.UUID(), nullable=False),
        sa.Column("needs_id", sa.UUID(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("subtask_id <> needs_id", name=op.f("ck_subtask_need_not_itself")),
        sa.ForeignKeyConstraint(
            ["needs_id"], ["subtask.id"], name=op.f("fk_subtask_need_needs_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["subtask_id"], ["subtask.id"], name=op.f("fk_subtask_need_subtask_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("subtask_id", "needs_id", name=op.f("pk_subtask_need")),
    )
    op.create_index("ix_subtask_need_needs_id", "subtask_need", ["needs_id"], unique=False)
    op.create_table(
        "verdict",
        sa.Column("id", sa.UUID(), server_default=sa.text("bakeoff_uuid7()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("subtask_id", sa.UUID(), nullable=False),
        sa.Column("winner_id", sa.UUID(), nullable=False),
        sa.Column("ranking", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("scores", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("judge", sa.Text(), nullable=False),
        sa.Column("judge_model", sa.Text(), nullable=True),
        sa.Column("prompt_version", sa.Text(), nullable=True),
        sa.Column("orders", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("confidence", sa.Float(precision=53), nullable=True),
        sa.Column("fallback", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("seconds", sa.Float(precision=53), nullable=False),
        sa.CheckConstraint("reason <> ''", name=op.f("ck_verdict_reason")),
        sa.CheckConstraint("confidence BETWEEN 0 AND 1", name=op.f("ck_verdict_confidence")),
        sa.CheckConstraint("seconds >= 0", name=op.f("ck_verdict_seconds")),
        sa.ForeignKeyConstraint(["subtask_id"], ["subtask.id"], name=op.f("fk_verdict_subtask_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["winner_id", "subtask_id"],
            ["candidate.id", "candidate.subtask_id"],
            name=op.f("fk_verdict_winner_id_subtask_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_verdict")),
        sa.UniqueConstraint("subtask_id", name=op.f("uq_verdict_subtask_id")),
    )
    for statement in NOTIFY + VIEWS:
        op.execute(statement)


def downgrade() -> None:
    for view in ("verdicts", "candidates", "results"):
        op.execute(f"DROP VIEW {view}")
    op.execute("DROP TRIGGER task_inserted ON task")
    op.execute("DROP FUNCTION bakeoff_notify_task()")
    op.drop_table("verdict")
    op.drop_index("ix_subtask_need_needs_id", table_name="subtask_need")
    op.drop_table("subtask_need")
    op.drop_index(
        "ix_preference_subtask_id", table_name="preference", postgresql_where=sa.text("subtask_id IS NOT NULL")
    )
    op.drop_index("ix_preference_capability_created_at", table_name="preference")
    op.drop_table("preference")
    op.drop_index(
        "ix_candidate_in_flight", table_name="candidate", postgresql_where=sa.text("status IN ('sent', 'running')")
    )
    op.drop_index(
        "ix_candidate_failed", table_name="candidate", postgresql_where=sa.text("status IN ('error', 'dead')")
    )
    op.drop_index("ix_candidate_chosen", table_name="candidate", postgresql_where=sa.text("status = 'chosen'"))
    op.drop_table("candidate")
    op.drop_index("ix_subtask_unfinished", table_name="subtask", postgresql_where=sa.text("finished_at IS NULL"))
    op.drop_index("ix_subtask_ready_capability", table_name="subtask", postgresql_where=sa.text("status = 'ready'"))
    op.drop_index("ix_subtask_ready", table_name="subtask", postgresql_where=sa.text("status = 'ready'"))
    op.drop_index(
        "ix_subtask_open", table_name="subtask", postgresql_where=sa.text("status IN ('blocked', 'running', 'judging')")
    )
    op.drop_table("subtask")
    op.drop_index("ix_worker_heartbeat_at", table_name="worker")
    op.drop_table("worker")
    op.drop_index(
        "uq_task_source_idempotency_key", table_name="task", postgresql_where=sa.text("idempotency_key IS NOT NULL")
    )
    op.drop_index("ix_task_retry_of", table_name="task", postgresql_where=sa.text("retry_of IS NOT NULL"))
    op.drop_index("ix_task_pending", table_name="task", postgresql_where=sa.text("status = 'pending'"))
    op.drop_index(
        "ix_task_open", table_name="task", postgresql_where=sa.text("status IN ('planning', 'running', 'integrating')")
    )
    op.drop_index("ix_task_finished_xid_id", table_name="task", postgresql_where=sa.text("finished_at IS NOT NULL"))
    op.drop_index("ix_task_finished_at_id", table_name="task", postgresql_where=sa.text("finished_at IS NOT NULL"))
    op.drop_table("task")
    op.drop_table("model")
    op.drop_table("artifact")
    op.execute("DROP FUNCTION bakeoff_uuid7()")
