"""The result backend: Redis counts the parts of a chord, and nothing more."""

from __future__ import annotations

from typing import Any

from celery.backends.redis import RedisBackend


class ChordCounter(RedisBackend):  # type: ignore[misc] # celery has no types
    """Redis as the counter of chords, without result subscriptions.

    Nobody calls `.get()` here: results are rows in Postgres. Celery 5.7 would keep, in every process that submits
    chords, one subscription and one AsyncResult per header for ever.
    """

    def add_pending_result(self, result: Any, weak: bool = False, start_drainer: bool = True) -> Any:  # noqa: ARG002, FBT001, FBT002
        """Keep nothing."""
        return result

    def add_pending_results(self, results: Any, weak: bool = False) -> Any:  # noqa: ARG002, FBT001, FBT002
        """Keep nothing."""
        return list(results)

    def remove_pending_result(self, result: Any) -> Any:
        """Nothing was kept."""
        return result

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Subscribe to nothing."""
