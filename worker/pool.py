"""The pool of a model worker: Celery's prefork, which notices sooner that its child is dead."""

from __future__ import annotations

from collections.abc import Callable

from celery.concurrency.asynpool import AsynPool
from celery.concurrency.prefork import TaskPool

LOOK = 0.5  # seconds; a dead child that slips through Celery's own watch is found after this, not after 5


class AttentivePool(AsynPool):  # type: ignore[misc] # celery has no types
    """Looks after its processes twice a second."""

    @property
    def timers(self) -> dict[Callable[[], None], float]:
        """What the event loop calls, and how often."""
        return {self.maintain_pool: LOOK}


class ModelPool(TaskPool):  # type: ignore[misc] # celery has no types
    """Named by `CELERY_CUSTOM_WORKER_POOL`."""

    Pool = AttentivePool
