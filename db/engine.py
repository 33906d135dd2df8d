"""Connections. One engine per process, made after a fork or spawn, never shared with a child.

Every connection sets time-outs on the server, so that a lost client holds no lock, and TCP keepalives, so that a lost
server is noticed. Behind pgbouncer in transaction mode set `ignore_startup_parameters = options` there.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

import psycopg
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DisconnectionError, OperationalError
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

from db.errors import SettingsError, Unreachable
from db.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

#: One channel for every event; the payload only says what kind of look is worth it.
CHANNEL = "bakeoff"

PING_AFTER = 2.0  # seconds
PREPARE_AFTER = 5  # executions on one connection

T = TypeVar("T")

#: A process that stands still in a transaction (frozen, swapped out, cut off) holds up everybody who needs its rows:
#: ours do nothing but SQL in one, so a short time says that something is wrong with it.
SERVER_TIMEOUTS = (
    "-c random_page_cost=1.1 "  # disks that seek no more
    "-c lock_timeout=10s -c statement_timeout=60s -c idle_in_transaction_session_timeout=10s -c timezone=UTC"
)


def connect_arguments(application: str) -> dict[str, object]:
    """Arguments of every psycopg connection.

    Statements that come again are prepared: for a single task Postgres would spend more on planning than on the work.
    pgbouncer knows prepared statements in transaction mode since 1.22; before an older one they are switched off.
    """
    return {
        "application_name": f"bakeoff {application} {os.getpid()}"[:63],
        "connect_timeout": 5,
        "options": SERVER_TIMEOUTS,
        "keepalives": 1,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "prepare_threshold": PREPARE_AFTER if load_settings().prepared_statements else None,
    }


def make_engine(dsn: str, *, application: str = "", pool_size: int = 4) -> Engine:
    """An engine for this process. `dsn` is `postgresql://user:password@host:port/database`.

    Raises `SettingsError` where it is no such URL.
    """
    try:
        url = make_url(dsn)
    except ArgumentError:
        raise SettingsError(
            "BAKEOFF_DATABASE_URL is not a URL like postgresql://user:password@host/database."
        ) from None
    if url.get_backend_name() not in {"postgresql", "postgres"}:
        raise SettingsError(f"BAKEOFF_DATABASE_URL names {url.get_backend_name()!r}; Bakeoff needs postgresql://.")
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args=connect_arguments(application),
        pool_size=pool_size,
        max_overflow=2,
        pool_recycle=1800,
        hide_parameters=True,  # an error is logged; what callers and models wrote is not
    )
    event.listen(engine, "checkin", _note_time)
    event.listen(engine, "checkout", _ping_after_idling)
    return engine


def _note_time(_: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
    record.info["used_at"] = time.monotonic()


def _ping_after_idling(connection: DBAPIConnection, record: ConnectionPoolEntry, _: PoolProxiedConnection) -> None:
    """Ask a connection that lay idle whether it still works; one that worked a moment ago need not say so each time.

    Raises `DisconnectionError`, upon which the pool tries a fresh one.
    """
    if time.monotonic() - record.info.get("used_at", float("inf")) < PING_AFTER:
        return
    try:
        cursor = connection.cursor()
        cursor.execute("SELECT 1")
        cursor.close()
        connection.rollback()
    except psycopg.Error as error:
        raise DisconnectionError(str(error)) from error


@lru_cache(maxsize=4)
def engine_of(dsn: str, application: str = "") -> Engine:
    """The engine of this process for a URL, made once."""
    return make_engine(dsn, application=application)


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """One short transaction. Raises `Unreachable` where no connection can be had; nothing is stored then."""
    try:
        connection = engine.connect()
    except OperationalError as error:
        raise Unreachable(unreachable_sentence(engine, error)) from None
    with connection, connection.begin():
        yield connection


def wait_for_postgres(seconds: float) -> Callable[[Callable[[], T]], Callable[[], T]]:
    """Decorate a transaction that may be repeated: a lost connection is tried again for up to `seconds`."""
    return retry(
        retry=retry_if_exception_type((OperationalError, Unreachable)),
        wait=wait_exponential_jitter(multiplier=0.2, max=5),
        stop=stop_after_delay(seconds),
        reraise=True,
    )


def unreachable_sentence(engine: Engine, error: OperationalError) -> str:
    """One sentence without the password: which server, why, and the way out."""
    url = engine.url
    reason = str(error.orig).strip().splitlines()[0] if error.orig else "no answer"
    place = f"{url.host or url.query.get('host') or 'localhost'}:{url.port or 5432}"
    return f"Postgres at {place} does not answer ({reason}). Start it with `bakeoff up`, or check BAKEOFF_DATABASE_URL."


def connect(dsn: str, application: str, *, read_only: bool = False) -> psycopg.Connection[tuple[object, ...]]:
    """A connection of psycopg's own, outside of the pool. Raises `Unreachable`."""
    url = make_url(dsn).set(drivername="postgresql")
    arguments = connect_arguments(application)
    if read_only:
        arguments["options"] = f"{arguments['options']} -c default_transaction_read_only=on"
    try:
        return psycopg.connect(url.render_as_string(hide_password=False), **arguments)  # type: ignore[arg-type]
    except psycopg.OperationalError as error:
        reason = str(error).strip().splitlines()[0]
        raise Unreachable(
            f"Postgres does not answer ({reason}). Start it with `bakeoff up`, or check BAKEOFF_DATABASE_URL."
        ) from None


def listen(dsn: str) -> psycopg.Connection[tuple[object, ...]]:
    """A connection of its own that listens on `CHANNEL`; read it with `.notifies(timeout=..., stop_after=1)`.

    Raises `Unreachable`.
    """
    connection = connect(dsn, "listen")
    connection.autocommit = True
    connection.execute("SET idle_session_timeout = 0")
    connection.execute(f"LISTEN {CHANNEL}")
    return connection
