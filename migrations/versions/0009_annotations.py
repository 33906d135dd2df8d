"""sets of groups that people score

New tables only: the code of 0008 runs beside it.

Revision ID: 0009
Revises: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
ID = postgresql.UUID(as_uuid=True)


def upgrade() -> None:
    op.create_table(
        "annotation_set",
        sa.Column("id", ID, server_default=sa.text("bakeoff_uuid7()"), nullable=False),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("criteria", postgresql.JSONB(), nullable=False),
        sa.CheckConstraint("length(name) BETWEEN 1 AND 100", name=op.f("ck_annotation_set_name")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_annotation_set")),
        sa.UniqueConstraint("name", name=op.f("uq_annotation_set_name")),
    )
    op.create_table(
        "annotation_group",
        sa.Column("id", ID, server_default=sa.text("bakeoff_uuid7()"), nullable=False),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("set_id", ID, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("field", sa.Text(), nullable=False),
        sa.Column("input", postgresql.JSONB(), nullable=False),
        sa.Column("items", postgresql.JSONB(), nullable=False),
        sa.Column("wanted", sa.SmallInteger(), nullable=False),
        sa.Column("taken", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("jsonb_typeof(items) = 'array'", name=op.f("ck_annotation_group_items_array")),
        sa.CheckConstraint("wanted BETWEEN 1 AND 100 AND taken >= 0", name=op.f("ck_annotation_group_counts")),
        sa.ForeignKeyConstraint(
            ["set_id"], ["annotation_set.id"], name=op.f("fk_annotation_group_set_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_annotation_group")),
        sa.UniqueConstraint("set_id", "key", name=op.f("uq_annotation_group_set_id_key")),
        sa.UniqueConstraint("set_id", "position", name=op.f("uq_annotation_group_set_id_position")),
        postgresql_with={"fillfactor": 70},
    )
    op.create_table(
        "annotation",
        sa.Column("group_id", ID, nullable=False),
        sa.Column("annotator", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Text(), server_default=sa.text("'open'"), nullable=False),
        sa.Column("assigned_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("scores", postgresql.JSONB(), nullable=True),
        sa.Column("finished_at", TIME, nullable=True),
        sa.CheckConstraint("status IN ('open', 'done', 'skipped', 'lapsed')", name=op.f("ck_annotation_status")),
        sa.CheckConstraint("(status = 'done') = (finished_at IS NOT NULL)", name=op.f("ck_annotation_done_finished")),
        sa.CheckConstraint("status <> 'done' OR scores IS NOT NULL", name=op.f("ck_annotation_done_scores")),
        sa.CheckConstraint("length(annotator) BETWEEN 1 AND 100", name=op.f("ck_annotation_annotator")),
        sa.CheckConstraint("jsonb_typeof(scores) = 'array'", name=op.f("ck_annotation_scores_array")),
        sa.ForeignKeyConstraint(
            ["group_id"], ["annotation_group.id"], name=op.f("fk_annotation_group_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("group_id", "annotator", name=op.f("pk_annotation")),
    )
    op.create_index("ix_annotation_annotator", "annotation", ["annotator", "assigned_at"])


def downgrade() -> None:
    op.drop_table("annotation")
    op.drop_table("annotation_group")
    op.drop_table("annotation_set")
