"""A Postgres of its own with a database per size: filled by a server that writes no log, measured by the usual one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
from sqlalchemy.engine import make_url

from benchmarks.harness import say
from benchmarks.scale import fill
from db import migrate
from scheduler.local.servers import EmbeddedPostgres

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

#: What is lost with a machine that loses power is made again.
_FILLING = {
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "checkpoint_timeout": "1h",
    "max_wal_size": "8GB",
    "shared_buffers": "256MB",
}


class FillingPostgres(EmbeddedPostgres):
    """The same server on the same folder, with settings for filling it."""

    def command(self, port: int) -> list[str]:
        options = [part for name, value in _FILLING.items() for part in ("-c", f"{name}={value}")]
        return [*super().command(port), *options]


def filled_server(folder: Path, sizes: Sequence[int]) -> EmbeddedPostgres:
    """A running server with a database per size; `url_of` says where each one is."""
    filling = FillingPostgres(folder)
    filling.start()
    try:
        migrate.upgrade(filling.url)
        for size in sorted(sizes, reverse=True):
            _fill(filling, size)
    finally:
        filling.stop()
    server = EmbeddedPostgres(folder, durable=False)  # the disk is still busy with gigabytes: not what is measured
    server.start()
    return server


def url_of(server: EmbeddedPostgres, size: int) -> str:
    """Where the database with so many finished tasks is."""
    return make_url(server.url).set(database=f"scale_{size}").render_as_string(hide_password=False)


def _fill(server: EmbeddedPostgres, size: int) -> None:
    url = url_of(server, size)
    database, template = make_url(url).database, make_url(server.url).database
    identifiers = psycopg.sql.Identifier(str(database)), psycopg.sql.Identifier(str(template))
    with psycopg.connect(make_url(url).set(database="postgres").render_as_string(hide_password=False)) as connection:
        connection.autocommit = True
        connection.execute(psycopg.sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*identifiers))
    fill.fill(url, size)
    say(f"{size:,} finished tasks are stored")
