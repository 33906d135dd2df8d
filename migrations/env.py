"""Runs migrations, one process at a time: an advisory lock makes a second one wait and then find nothing to do."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, text

from db.engine import make_engine
from db.schema import Base
from db.settings import load_settings

LOCK = 0x62616B65  # any number that nobody else locks


def run(connection: Connection) -> None:
    context.configure(
        connection=connection, target_metadata=Base.metadata, compare_type=True, compare_server_default=True
    )
    with context.begin_transaction():
        connection.execute(text("SET LOCAL lock_timeout = '30s'"))
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
        context.run_migrations()


url = context.config.attributes.get("database_url") or load_settings().dsn
engine = make_engine(url, application="migrate", pool_size=1)
with engine.connect() as connection:
    run(connection)
engine.dispose()
