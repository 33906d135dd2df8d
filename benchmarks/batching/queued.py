"""The same model at the end of the queue: servers, a scheduler, a worker and a judge of its own, in a folder."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from benchmarks.batching.direct import ENVIRONMENT
from db.errors import BakeoffError
from db.states import TaskState
from scheduler.local.cluster import Cluster
from scheduler.submit import submit_many
from scheduler.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    from benchmarks.batching.samples import Sample

PATIENCE = 300.0  # seconds for one round of inputs

_INSIDE = """
SELECT coalesce(sum(c.seconds), 0)::double precision AS model_seconds, count(DISTINCT c.message_id) AS messages
FROM subtask AS s JOIN candidate AS c ON c.subtask_id = s.id WHERE s.task_id = ANY(CAST(:tasks AS uuid[]))
"""


class Queued:
    """A running installation with one candidate model. One thread computes, as in the direct calls."""

    def __init__(self, folder: Path, registry: str, model: str, capability: str, cache: Path, *, wave: int) -> None:
        """`wave`: subtasks that leave together, where so many wait."""
        settings = {"BAKEOFF_THREADS": "1", "BAKEOFF_CACHE": str(cache), "BAKEOFF_WAVE_SIZE": str(wave), **ENVIRONMENT}
        folder.chmod(0o755)  # Postgres runs as somebody else where we are root
        self._cluster = Cluster(folder, registry, settings)
        self._model = model
        self._capability = capability

    def __enter__(self) -> Self:
        """Start everything; returns when the model is loaded and warm."""
        try:
            self._cluster.start_servers()
            self._cluster.add("scheduler", "scheduler")
            self._cluster.add("judge", "worker", "--judge", "--name", "judge")
            self._cluster.add("model", "worker", self._model, "--name", "model")
            self._cluster.wait_ready()
        except BaseException:
            self._cluster.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cluster.stop()

    def run(self, samples: Sequence[Sample]) -> dict[str, float]:
        """Submit the samples and wait until the last one is done.

        Returns `seconds` from before the submission until all results are stored, `model_seconds` of them inside of
        the model, and the `messages` sent. Raises `BakeoffError` where a task is not done, or takes too long.
        """
        tasks = [sample.as_task(self._capability, "benchmark") for sample in samples]
        settings = self._cluster.settings()
        started = time.perf_counter()
        ids = submit_many(settings, tasks)
        states = wait_for(settings, ids, PATIENCE)
        seconds = time.perf_counter() - started
        if undone := [state for state in states.values() if state != TaskState.DONE]:
            raise BakeoffError(f"{self._model}: {len(undone)} of {len(ids)} tasks ended {undone[0]}.")
        (row,) = self._cluster.query(_INSIDE, tasks=ids)
        return {"seconds": seconds, "model_seconds": row.model_seconds, "messages": row.messages}
