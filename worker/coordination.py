"""The result backend: Redis counts the parts of a chord, and nothing more."""

from __future__ import annotations

from typing import Any

from celery.backends.redis import RedisBackend

from db.logs import get_logger

log = get_logger(__name__)


class ChordCounter(RedisBackend):  # type: ignore[misc] # celery has no types
    """Redis as the counter of chords, without result subscriptions.

    Nobody calls `.get()` here: results are rows in Postgres. Celery 5.7 would keep, in every process that submits
    chords, one subscription and one AsyncResult per header for ever.
    """

    def on_chord_part_return(self, request: Any, state: str, result: Any, propagate: Any = None, **kwargs: Any) -> None:
        """Count a part, where Redis can be had. Where not, the rows say that it is done: the scheduler judges them.

        Raised, the error would be the part's own result: a traceback of a hundred kilobytes, which blocks the child in
        its pipe until the worker, that waits for the same Redis, reads it.
        """
        try:
            super().on_chord_part_return(request, state, result, propagate, **kwargs)
        except self.connection_errors as error:
            log.warning(f"A part of a chord was not counted: {error}", action="part_uncounted", message=request.id)

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
