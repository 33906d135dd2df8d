"""curation jobs, their records, and the bands by which near duplicates are found

The code of 0007 runs beside it: the tables are new.

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

EMPTY = sa.text("'{}'")


def upgrade() -> None:
    _jobs()
    _records()
    op.create_table(
        "curation_band",
        sa.Column("job_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("hash", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "hash", "position", name=op.f("pk_curation_band")),
    )


def _jobs() -> None:
    op.create_table(
        "curation_job",
        sa.Column("id", postgresql.UUID(as_uuid=True), server_default=sa.text("bakeoff_uuid7()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("recipe", postgresql.JSONB(), nullable=False),
        sa.Column("recipe_hash", sa.Text(), nullable=False),
        sa.Column("inputs", postgresql.JSONB(), nullable=False),
        sa.Column("status", sa.Text(), server_default=sa.text("'running'"), nullable=False),
        sa.Column("stage", sa.Text(), nullable=True),
        sa.Column("counts", postgresql.JSONB(), server_default=EMPTY, nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("token", postgresql.UUID(as_uuid=True), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("status IN ('done', 'failed', 'running')", name=op.f("ck_curation_job_status")),
        sa.CheckConstraint("name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'", name=op.f("ck_curation_job_name")),
        sa.CheckConstraint("(token IS NULL) = (lease_until IS NULL)", name=op.f("ck_curation_job_lease_whole")),
        sa.CheckConstraint("(status = 'running') = (finished_at IS NULL)", name=op.f("ck_curation_job_final_finished")),
        sa.CheckConstraint("status <> 'failed' OR error IS NOT NULL", name=op.f("ck_curation_job_failed_error")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_curation_job")),
        sa.UniqueConstraint("name", name=op.f("uq_curation_job_name")),
    )


def _records() -> None:
    op.create_table(
        "curation_record",
        sa.Column("job_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("stage", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("step", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("fate", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
        sa.Column("rule", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("scores", postgresql.JSONB(), server_default=EMPTY, nullable=False),
        sa.Column("found", postgresql.JSONB(), server_default=EMPTY, nullable=False),
        sa.CheckConstraint("fate IN ('dropped', 'kept', 'pending')", name=op.f("ck_curation_record_fate")),
        sa.CheckConstraint("step BETWEEN 0 AND 2", name=op.f("ck_curation_record_step")),
        sa.CheckConstraint(
            "(fate = 'dropped') = (rule IS NOT NULL AND reason IS NOT NULL)",
            name=op.f("ck_curation_record_dropped_reason"),
        ),
        sa.ForeignKeyConstraint(
            ["job_id"], ["curation_job.id"], name=op.f("fk_curation_record_job_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "position", name=op.f("pk_curation_record")),
    )
    op.create_index(
        "ix_curation_record_pending",
        "curation_record",
        ["job_id", "stage", "step", "position"],
        postgresql_where=sa.text("fate = 'pending'"),
    )
    op.create_index(
        "ix_curation_record_kept", "curation_record", ["job_id", "position"], postgresql_where=sa.text("fate = 'kept'")
    )
    op.create_index("ix_curation_record_job_id_key", "curation_record", ["job_id", "key"])


def downgrade() -> None:
    for table in ("curation_band", "curation_record", "curation_job"):
        op.drop_table(table)
