"""The pool of a model worker: Celery's prefork, which notices sooner that its child is dead, or done."""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any

from celery.concurrency.asynpool import AsynPool
from celery.concurrency.prefork import TaskPool

LOOK = 0.5  # seconds; a dead child that slips through Celery's own watch is found after this, not after 5
UNHEARD = 16  # messages that a child may have sent since its pipe was read: for one job it sends two


class AttentivePool(AsynPool):  # type: ignore[misc] # celery has no types
    """Looks after its processes twice a second."""

    @property
    def timers(self) -> dict[Callable[[], None], float]:
        """What the event loop calls, and how often."""
        return {self.maintain_pool: LOOK}

    def _on_soft_timeout(self, job: Any, soft: float, hard: float, hub: Any) -> None:
        self._hear_children()
        super()._on_soft_timeout(job, soft, hard, hub)

    def _on_hard_timeout(self, job: Any) -> None:
        self._hear_children()
        super()._on_hard_timeout(job)

    def _hear_children(self) -> None:
        """Read what the children have said, before one is ended for saying nothing.

        While the broker is away Celery's event loop stands still. When it goes on, the timers that ran out come first:
        a child that was done long ago would be killed, and its model loaded again.
        A message that the loop has read in part is read to its end first: its rest is no message of its own.
        """
        finish = self._result_handler._finish_partial_read  # noqa: SLF001 - celery's, for the same case at its end
        for pipe, process in list(self._fileno_to_outq.items()):
            for _ in range(UNHEARD):
                if finish(pipe, process) or not select.select([pipe], [], [], 0)[0]:
                    break
                self.handle_result_event(pipe)
            finish(pipe, process)


class ModelPool(TaskPool):  # type: ignore[misc] # celery has no types
    """Named by `CELERY_CUSTOM_WORKER_POOL`."""

    Pool = AttentivePool
