"""the name of a model decides alone

A queue is named after its model, so a constraint of its own said nothing; but processes that bring a new registry in at
the same moment met at it, and `ON CONFLICT (name)` does not wait there: one of them ended with a duplicate key. The
code of 0005 runs beside it.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_constraint(op.f("uq_model_queue"), "model")


def downgrade() -> None:
    op.create_unique_constraint(op.f("uq_model_queue"), "model", ["queue"])
