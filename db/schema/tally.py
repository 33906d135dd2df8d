"""Counts of what has ended since ever, which `bakeoff prune` does not take back (`db.tally`)."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, SmallInteger, text
from sqlalchemy.orm import Mapped, mapped_column

from db.schema.base import NOW, Base


class Tally(Base):
    """One count: `name` says of what, `label` and `kind` of which."""

    __tablename__ = "tally"

    name: Mapped[str] = mapped_column(primary_key=True)
    label: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True, server_default=text("''"))
    value: Mapped[float]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)


class TallyPlace(Base):
    """Up to where in the row of ended tasks everything is counted (`db.watching.Place`). One row."""

    __tablename__ = "tally_place"

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, server_default=text("1"), autoincrement=False)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    seen_xid: Mapped[int] = mapped_column(BigInteger)
    seen_task: Mapped[UUID]

    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)
