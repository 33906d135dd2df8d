"""Bring a database to the schema of this version."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import text

from db.engine import make_engine, transaction

MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"


def configuration(database_url: str) -> Config:
    """Alembic's configuration, without an ini file: the URL comes from the settings."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["database_url"] = database_url
    return config


def known(revision: str) -> bool:
    """Whether this version of the code has heard of a revision; of a newer version's it has not."""
    try:
        return ScriptDirectory.from_config(configuration("")).get_revision(revision) is not None
    except CommandError:
        return False


def upgrade(database_url: str, revision: str = "head") -> None:
    """Apply what is missing; does nothing on a database that is up to date. Safe when two run at once."""
    command.upgrade(configuration(database_url), revision)


def current(database_url: str) -> str | None:
    """Revision of the database, or None where it has no schema of ours."""
    with transaction(make_engine(database_url, application="migrate", pool_size=1)) as connection:
        if connection.execute(text("SELECT to_regclass('alembic_version')")).scalar() is None:
            return None
        revision: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        return revision


def head() -> str | None:
    """Revision that this version of the code wants."""
    return ScriptDirectory.from_config(configuration("")).get_current_head()
