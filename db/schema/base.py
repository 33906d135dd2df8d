"""What every table is made of: names of constraints, types of columns, the lease and the breaker."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    DateTime,
    Float,
    MetaData,
    SmallInteger,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import UUID as PGUUID
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import UserDefinedType


class XID8(UserDefinedType[int]):
    """A 64-bit transaction id, which never wraps (Postgres 13 and newer)."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Name of the type in SQL."""
        return "xid8"


ischema_names["xid8"] = XID8  # so that `alembic check` reads the column back

TIME = DateTime(timezone=True)
NOW = text("now()")
NEW_ID = text("bakeoff_uuid7()")
#: Updated rows find room on their own page. Where no index names a column that changes, not even in its condition, no
#: index is written either (HOT): a claim changes a candidate's state, token and lease, so no index of it says `status`.
HOT = {"postgresql_with": {"fillfactor": 70}}
HOTTEST = {"postgresql_with": {"fillfactor": 50}}  # three versions of a candidate in a minute, outputs and all


def one_of(column: str, states: Any) -> str:
    """A condition: the column is one of these states."""
    return f"{column} IN ({', '.join(repr(str(state)) for state in sorted(states))})"


class Base(DeclarativeBase):
    """Names every constraint, so that a migration can name it too."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own hook
        datetime: TIME,
        UUID: PGUUID(as_uuid=True),
        str: Text,
        dict[str, Any]: JSONB,
        list[Any]: JSONB,
        list[str]: ARRAY(Text),
        float: Float(53),
    }


class Lease:
    """Who works on a row, until when, and how often it was tried.

    `attempt` counts entries into a model, a judge, a planner; `token` fences late writes: it is set exactly while
    somebody works on the row.
    """

    attempt: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    max_attempts: Mapped[int] = mapped_column(SmallInteger, server_default=text("3"))
    token: Mapped[UUID | None]
    lease_until: Mapped[datetime | None]
    not_before: Mapped[datetime | None]
    sent_at: Mapped[datetime | None]
    message_id: Mapped[UUID | None]


class Breaker:
    """Whether a model or a judge is asked at all, and what its last calls were like (`db.breaker`)."""

    status: Mapped[str] = mapped_column(server_default=text("'active'"))
    reason: Mapped[str | None]
    consecutive_failures: Mapped[int] = mapped_column(server_default=text("0"))  # calls, not inputs
    suspended_at: Mapped[datetime | None]
    probe_after: Mapped[datetime | None]
