"""Whether the database has the schema of this version of the code. What changes a schema is `db.migrate`'s."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from sqlalchemy import Connection, text

from db.errors import SchemaBehind

VERSIONS = Path(__file__).resolve().parent.parent / "migrations" / "versions"


@cache
def wanted() -> str:
    """The newest revision that this version brings: the files are named in their order."""
    return max(file.name.partition("_")[0] for file in VERSIONS.glob("[0-9]*_*.py"))


def check_schema(connection: Connection) -> None:
    """Raises `SchemaBehind` where this version wants columns that the database may not have.

    A later schema is all right: a migration takes away nothing that the version before it used.
    """
    found = None
    if connection.execute(text("SELECT to_regclass('alembic_version')")).scalar() is not None:
        found = connection.execute(text("SELECT max(version_num) FROM alembic_version")).scalar()
    if found is None or found < wanted():
        raise SchemaBehind(found, wanted())
