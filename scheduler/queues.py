"""How long the broker's queues are, asked without Celery."""

from __future__ import annotations

from collections.abc import Sequence

import redis

from db.settings import Settings


def broker_client(settings: Settings) -> redis.Redis:
    """A client that gives up after `BAKEOFF_PUBLISH_TIMEOUT`. Raises `Unreachable` where no broker is known."""
    timeout = settings.publish_timeout
    client: redis.Redis = redis.Redis.from_url(settings.broker, socket_timeout=timeout, socket_connect_timeout=timeout)
    return client


def queue_lengths(client: redis.Redis, queues: Sequence[str]) -> dict[str, int]:
    """Messages waiting on each queue, in one round trip. Raises `redis.RedisError`."""
    with client.pipeline(transaction=False) as pipe:
        for queue in queues:
            pipe.llen(queue)
        return dict(zip(queues, pipe.execute(), strict=True))
