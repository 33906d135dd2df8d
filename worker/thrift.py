"""A Redis transport that keeps its client: kombu makes a new one for every message and every bundle of events.

That was a sixth of what a worker's parent spent on a message.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kombu.transport import redis


class Channel(redis.Channel):  # type: ignore[misc] # kombu has no types
    """One client per pool of connections. The client of the event loop is kombu's own affair."""

    _kept: tuple[Any, Any] | None = None  # a pool and its client

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        """The client that is given, or the one that is kept."""
        if client is None:
            pool = self.pool  # another one after the connection was lost
            if self._kept is None or self._kept[0] is not pool:
                self._kept = (pool, self._create_client())
            client = self._kept[1]
        yield client


class Transport(redis.Transport):  # type: ignore[misc] # kombu has no types
    """Of every process but intake workers."""

    Channel = Channel
