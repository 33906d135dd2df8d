"""Connections of workers to a broker that was away: asked for soon and often, for everybody waits for them."""

from __future__ import annotations

from typing import Any

from celery.app.amqp import AMQP
from kombu import Connection

FIRST, STEP, LONGEST = 0.2, 0.3, 2.0  # seconds between two tries; kombu's own are 2, 4, 6 ... 30


class EagerConnection(Connection):  # type: ignore[misc] # kombu has no types
    """Tries again within two seconds, however long the broker was away."""

    def ensure_connection(self, *arguments: Any, **options: Any) -> Any:
        """Connect, however often it takes."""
        pauses = {"interval_start": FIRST, "interval_step": STEP, "interval_max": LONGEST}
        return super().ensure_connection(*arguments, **(pauses | options))

    def as_uri(self, *arguments: Any, **options: Any) -> str:
        """The address with `redis` where kombu has the name of our transport: Flower knows brokers by it."""
        said, _, rest = super().as_uri(*arguments, **options).partition("://")
        scheme = ("rediss" if self.ssl else "redis") if ":" in said else said
        return f"{scheme}://{rest}"


class EagerAMQP(AMQP):  # type: ignore[misc] # celery has no types
    """Hands out such connections."""

    Connection = EagerConnection
