"""Database roles for other systems: one that may only enqueue, one that may only read.

They are NOLOGIN groups named with the database (roles belong to the whole server); an operator grants them to logins.
"""

from __future__ import annotations

from psycopg import sql
from sqlalchemy import Connection, text

#: The columns of `task` that a caller may write: never states, ids or times of ours.
ENQUEUE_COLUMNS = (
    "request",
    "capability",
    "source",
    "priority",
    "options",
    "attachments",
    "idempotency_key",
    "run_at",
    "deadline",
    "traceparent",
)
VIEWS = ("results", "candidates", "verdicts", "backlog")


def create_roles(connection: Connection) -> list[str]:
    """Create or mend the two roles of this database; returns their names.

    `DATABASE_bakeoff_enqueue` may insert the columns of `ENQUEUE_COLUMNS` into `task` and read back the new id;
    `DATABASE_bakeoff_read` may select from the views `results`, `candidates`, `verdicts` and `backlog`.
    """
    database, schema = connection.execute(text("SELECT current_database(), current_schema()")).one()
    enqueue, read = f"{database}_bakeoff_enqueue", f"{database}_bakeoff_read"
    for role in (enqueue, read):
        exists = connection.execute(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role}).scalar()
        if not exists:
            _run(connection, sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(role)))
        _run(connection, sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(sql.Identifier(schema), sql.Identifier(role)))
    columns = sql.SQL(", ").join(sql.Identifier(column) for column in ENQUEUE_COLUMNS)
    _run(connection, sql.SQL("REVOKE ALL ON task FROM {}").format(sql.Identifier(enqueue)))
    _run(connection, sql.SQL("GRANT INSERT ({}), SELECT (id) ON task TO {}").format(columns, sql.Identifier(enqueue)))
    views = sql.SQL(", ").join(sql.Identifier(view) for view in VIEWS)
    _run(connection, sql.SQL("GRANT SELECT ON {} TO {}").format(views, sql.Identifier(read)))
    return [enqueue, read]


def _run(connection: Connection, statement: sql.Composed) -> None:
    driver = connection.connection.driver_connection
    connection.exec_driver_sql(statement.as_string(driver))
