"""What the peers share: tables of the plain way, written with the ORM, and a counter for those who store nothing."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from functools import cache
from uuid import UUID, uuid4

import psycopg
import redis
from sqlalchemy import DateTime, ForeignKey, Text, create_engine, func, select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from benchmarks.overhead.driver import MODELS, Submitter

DATABASE_URL = os.environ["PEERS_DATABASE_URL"]
REDIS_URL = os.environ["PEERS_REDIS_URL"]

COUNTER = "finished"


class Base(DeclarativeBase):
    """The tables of the plain way."""


class Request(Base):
    """A request and what became of it."""

    __tablename__ = "request"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    left: Mapped[int] = mapped_column(default=len(MODELS))  # for a fan-in by the database
    winner: Mapped[str | None]
    answer: Mapped[str | None] = mapped_column(Text)
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class Candidate(Base):
    """What one model said."""

    __tablename__ = "candidate"

    request_id: Mapped[UUID] = mapped_column(ForeignKey("request.id"), primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    output: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


@cache
def sessions() -> sessionmaker[Session]:
    """The pool of this process: first asked for after the fork."""
    return sessionmaker(create_engine(DATABASE_URL.replace("postgresql://", "postgresql+psycopg://")))


def store_request(text: str) -> str:
    """One insert."""
    key = uuid4()
    with sessions().begin() as session:
        session.add(Request(id=key, text=text))
    return str(key)


def store_candidate(key: str, model: str, output: str) -> None:
    """One insert."""
    with sessions().begin() as session:
        session.add(Candidate(request_id=UUID(key), model=model, output=output))


def store_candidate_and_count(key: str, model: str, output: str) -> int:
    """One insert, and one update that says how many candidates are left: a fan-in by the database."""
    with sessions().begin() as session:
        session.add(Candidate(request_id=UUID(key), model=model, output=output))
        session.flush()
        counted = update(Request).where(Request.id == UUID(key)).values(left=Request.left - 1).returning(Request.left)
        return session.execute(counted).scalar_one()


def stored_candidates(key: str) -> dict[str, str]:
    """Outputs by model, for a judge whose message does not bring them."""
    with sessions()() as session:
        found = session.execute(select(Candidate.model, Candidate.output).where(Candidate.request_id == UUID(key)))
        return {row.model: row.output for row in found}


def store_verdict(key: str, winner: str, output: str) -> None:
    """One update."""
    with sessions().begin() as session:
        session.execute(
            update(Request)
            .where(Request.id == UUID(key))
            .values(winner=winner, answer=output, finished_at=datetime.now(UTC))
        )


@cache
def redis_client() -> redis.Redis:
    """The connections of this process."""
    return redis.Redis.from_url(REDIS_URL, decode_responses=True)


class Storing(Submitter):
    """A system whose truth is the table."""

    def prepare(self) -> None:
        """Make the tables, or empty them."""
        Base.metadata.create_all(sessions().kw["bind"])
        self._connection = psycopg.connect(DATABASE_URL, autocommit=True)
        self._connection.execute("TRUNCATE request, candidate")

    def finished(self, key: str) -> bool:
        found = self._connection.execute("SELECT FROM request WHERE id = %s AND finished_at IS NOT NULL", (key,))
        return found.rowcount > 0

    def all_finished(self) -> bool:
        return self._connection.execute("SELECT FROM request WHERE finished_at IS NULL LIMIT 1").rowcount == 0


class Counting(Submitter):
    """A system that stores nothing: its judge adds one to a counter in Redis."""

    submitted = 0

    def prepare(self) -> None:
        """Start at 0."""
        redis_client().delete(COUNTER)

    def finished(self, key: str) -> bool:  # noqa: ARG002 - the last one is finished when all are
        return self.all_finished()

    def all_finished(self) -> bool:
        return int(redis_client().get(COUNTER) or 0) >= self.submitted


def count_finished() -> None:
    """Say that one more is finished."""
    redis_client().incr(COUNTER)
