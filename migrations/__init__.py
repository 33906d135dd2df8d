"""Alembic migrations of the schema in `db`."""
