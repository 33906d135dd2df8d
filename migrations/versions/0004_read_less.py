"""indexes that no claim of a candidate touches, and one for every list that people read; vacuum by rows

The code of 0003 runs beside it and finds the same rows, some of them more slowly. Indexes are made anew in one
transaction: with a million tasks writers wait for some seconds.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

#: name, table, columns, old condition, new condition
CHANGED = (
    ("ix_candidate_in_flight", "candidate", ["model", "message_id"], "status IN ('sent', 'running')",
     "message_id IS NOT NULL AND finished_at IS NULL"),
    ("ix_candidate_chosen", "candidate", ["model", "not_before"], "status = 'chosen'",
     "message_id IS NULL AND finished_at IS NULL"),
    ("ix_candidate_failed", "candidate", ["model", "finished_at"], "status IN ('error', 'dead')",
     "error IS NOT NULL AND finished_at IS NOT NULL"),
    ("ix_candidate_cache", "candidate", ["model", "input_key"], "input_key IS NOT NULL AND status = 'done'",
     "input_key IS NOT NULL AND output IS NOT NULL"),
    ("ix_task_finished_at_id", "task", ["finished_at", "id"], "finished_at IS NOT NULL", None),
    ("ix_task_finished_xid_id", "task", ["finished_xid", "id"], "finished_at IS NOT NULL", "finished_xid IS NOT NULL"),
)  # fmt: skip

CHOSEN_WAITS = "(status = 'chosen') = (message_id IS NULL AND finished_at IS NULL)"

#: A queue's rows change by tens of thousands per hour, whatever the table has grown to: not by shares of it.
AUTOVACUUM = {
    "autovacuum_vacuum_scale_factor": 0.02,
    "autovacuum_vacuum_threshold": 5000,
    "autovacuum_vacuum_insert_scale_factor": 0.01,
    "autovacuum_vacuum_insert_threshold": 5000,
    "autovacuum_analyze_scale_factor": 0.02,
    "autovacuum_analyze_threshold": 5000,
}

#: The same ids as before in one expression, which is inlined: 48 bits of milliseconds and 12 of their fraction make 15
#: digits, the version goes between them; what follows is the rest of a random id. Names are bound when it is created.
SHORT_UUID7 = """
CREATE OR REPLACE FUNCTION bakeoff_uuid7() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE
RETURN (overlay(lpad(to_hex((extract(epoch FROM clock_timestamp()) * 4096000)::bigint), 15, '0')
                PLACING '7' FROM 13 FOR 0) || right(gen_random_uuid()::text, 17))::uuid
"""

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


def upgrade() -> None:
    for name, table, columns, _, condition in CHANGED:
        op.drop_index(name, table_name=table)
        op.create_index(name, table, columns, postgresql_where=sa.text(condition) if condition else None)
    op.create_index("ix_task_source_id", "task", ["source", "id"])
    op.create_index("ix_task_status_id", "task", ["status", "id"])
    op.drop_index("ix_task_open", table_name="task")
    op.execute(f"ALTER TABLE candidate ADD CONSTRAINT ck_candidate_chosen_waits CHECK ({CHOSEN_WAITS})")
    op.execute("ALTER TABLE candidate SET (fillfactor = 50)")
    for table in ("task", "subtask", "candidate"):
        op.execute(f"ALTER TABLE {table} SET ({', '.join(f'{name} = {value}' for name, value in AUTOVACUUM.items())})")
    op.execute(SHORT_UUID7)


def downgrade() -> None:
    op.execute(UUID7.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"))
    for table in ("task", "subtask", "candidate"):
        op.execute(f"ALTER TABLE {table} RESET ({', '.join(AUTOVACUUM)})")
    op.execute("ALTER TABLE candidate SET (fillfactor = 70)")
    op.execute("ALTER TABLE candidate DROP CONSTRAINT ck_candidate_chosen_waits")
    op.create_index(
        "ix_task_open", "task", ["id"], postgresql_where=sa.text("status IN ('planning', 'running', 'integrating')")
    )
    op.drop_index("ix_task_status_id", table_name="task")
    op.drop_index("ix_task_source_id", table_name="task")
    for name, table, columns, condition, _ in CHANGED:
        op.drop_index(name, table_name=table)
        op.create_index(name, table, columns, postgresql_where=sa.text(condition))
