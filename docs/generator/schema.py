"""The page of the schema: the views that others read, and every table, from a database that has just been migrated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import inspect
from sqlalchemy.dialects import registry

from db.schema import Base
from docs.generator.text import cell, code, comments_of, sentence, table
from docs.generator.views import meanings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Connection, Table

POSTGRES: Any = registry.load("postgresql")()
HEAD = """# The schema

Made from the tables' definitions and from a database that was just migrated. What other systems may rely on is the
[SQL contract](../sql.md): the views, and the columns of `task` that they may insert. The tables are ours, and change.
"""


def read_views(connection: Connection) -> dict[str, list[tuple[str, str]]]:
    """The views of a database in the order of their names, each with its columns and their types."""
    looked = inspect(connection)
    return {
        name: [(one["name"], _written(one["type"])) for one in looked.get_columns(name)]
        for name in sorted(looked.get_view_names())
    }


def page(found: Mapping[str, list[tuple[str, str]]]) -> str:
    """Views first, then the tables in the order of their names."""
    said = meanings()
    parts = [HEAD, "## Views", ""]
    for name, columns in found.items():
        of_view = said.get(name, {})
        rows = [(code(column), kind, of_view.get(column, "")) for column, kind in columns]
        about = of_view.get("", "").capitalize()
        parts += [f"### {name}", "", f"{about}.", "", table(("column", "type", "meaning"), rows)]
    parts += ["## Tables", ""]
    for kind in sorted(_classes(), key=lambda one: str(one.__tablename__)):
        parts.append(_section(kind))
    return "\n".join(parts)


def _classes() -> Iterable[Any]:
    return [mapper.class_ for mapper in Base.registry.mappers]


def _section(kind: Any) -> str:
    own: Table = kind.__table__
    comments = comments_of(kind)
    rows = [(code(c.name), _type(c), _default(c), _meaning(c, comments)) for c in own.columns]
    checks = sorted(str(one.sqltext) for one in own.constraints if hasattr(one, "sqltext"))
    parts = [f"### {own.name}", "", sentence(kind.__doc__), "", table(("column", "type", "default", "meaning"), rows)]
    if checks:
        parts += ["Checked on every write:", "", *(f"- `{cell(check)}`" for check in checks), ""]
    return "\n".join(parts)


def _type(column: Any) -> str:
    return _written(column.type) + ("" if column.nullable else ", not null")


def _written(kind: Any) -> str:
    return str(kind.compile(POSTGRES)).lower().replace("timestamp with time zone", "timestamptz")


def _default(column: Any) -> str:
    return code(column.server_default.arg) if column.server_default is not None else ""


def _meaning(column: Any, comments: Mapping[str, str]) -> str:
    points = ", ".join(f"{key.column.table.name}.{key.column.name}" for key in column.foreign_keys)
    return cell(column.comment or comments.get(column.name) or points)
