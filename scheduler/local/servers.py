"""The embedded servers by name, and both at once for tests."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from scheduler.local.embedded_server import EmbeddedServer
from scheduler.local.postgres_server import EmbeddedPostgres
from scheduler.local.redis_server import EmbeddedRedis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["EmbeddedPostgres", "EmbeddedRedis", "EmbeddedServer", "embedded"]


@contextmanager
def embedded(folder: Path, *, durable: bool = False) -> Iterator[tuple[str, str]]:
    """Both servers for the length of a block: (database_url, redis_url). Not durable unless asked: for tests."""
    postgres = EmbeddedPostgres(folder / "postgres", durable=durable)
    redis = EmbeddedRedis(folder / "redis", durable=durable)
    try:
        yield postgres.start(), redis.start()
    finally:
        redis.stop()
        postgres.stop()
