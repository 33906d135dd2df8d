"""result cache: what a model read, beside what it answered

Only adds columns and an index: the code of 0002 runs beside it, and leaves them empty.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("subtask", sa.Column("input_key", sa.LargeBinary(), nullable=True))
    op.add_column("candidate", sa.Column("input_key", sa.LargeBinary(), nullable=True))
    op.create_index(
        "ix_candidate_cache",
        "candidate",
        ["model", "input_key"],
        unique=False,
        postgresql_where=sa.text("input_key IS NOT NULL AND status = 'done'"),
    )


def downgrade() -> None:
    op.drop_index("ix_candidate_cache", table_name="candidate")
    op.drop_column("candidate", "input_key")
    op.drop_column("subtask", "input_key")
