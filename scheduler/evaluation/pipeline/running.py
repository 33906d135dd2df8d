"""The system under measurement: servers, scheduler, judge, planner and a worker per model of its own, in one folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from db.engine import engine_of, transaction
from db.queries import task_story
from db.registry import parse_registry
from scheduler.evaluation.pipeline.registry import PROFILE, WANTED, as_toml
from scheduler.local.cluster import Cluster
from scheduler.submit import submit_many
from scheduler.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from db.registry import Registry
    from db.settings import Settings
    from scheduler.submit import NewTask

READY_WITHIN = 600.0  # seconds; weights are loaded on a machine that others may use too
PATIENCE = 3600.0  # seconds for one round of tasks


class Running:
    """A running system; use it as a context."""

    def __init__(self, settings: Settings, folder: Path, tables: dict[str, Any]) -> None:
        own = {
            "BAKEOFF_CACHE": str(settings.cache),
            "BAKEOFF_THREADS": "1",
            "BAKEOFF_CANDIDATES": str(len(WANTED[0])),
            "HF_HUB_OFFLINE": "1",
        }
        folder.chmod(0o755)  # Postgres runs as somebody else where we are root
        self.cluster = Cluster(folder, as_toml(tables), own, profile=PROFILE)
        self.registry = parse_registry(tables, PROFILE).restricted_to(PROFILE)

    def __enter__(self) -> Self:
        """Start everything; returns when all models are loaded."""
        try:
            self.cluster.start_servers()
            self.cluster.add("scheduler", "scheduler")
            for name, arguments in workers_of(self.registry).items():
                self.cluster.add(name, "worker", *arguments, "--name", name)
            self.cluster.wait_ready(READY_WITHIN)
        except BaseException:
            self.cluster.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        settings = self.cluster.settings()
        engine_of(settings.dsn, "wait").dispose()
        self.cluster.stop()

    def ask(self, tasks: Sequence[NewTask], progress: Callable[[int, int], None]) -> list[dict[str, Any]]:
        """Submit tasks, wait until all have ended, return their stories in order."""
        if not tasks:
            return []
        settings = self.cluster.settings()
        ids = submit_many(settings, tasks)

        def look(states: Mapping[Any, str]) -> None:
            self.cluster.supervise()
            progress(sum(state in {"done", "failed", "expired", "cancelled"} for state in states.values()), len(ids))

        wait_for(settings, ids, PATIENCE, look)
        with transaction(engine_of(settings.dsn, "wait")) as connection:
            return [task_story(connection, task) for task in ids]


def workers_of(registry: Registry) -> dict[str, tuple[str, ...]]:
    """Arguments of each worker process: one per model; judge and planner go where the model is that they ask."""
    asked_by_judges = registry.asked_by_judges()
    planner = registry.planners[registry.planner] if registry.planner else None
    candidates = registry.profiles[PROFILE].models
    workers: dict[str, tuple[str, ...]] = {name: (name,) for name in candidates}
    judge_at = next((name for name in candidates if name in asked_by_judges), "judge")
    workers[judge_at] = (*workers.get(judge_at, ()), "--judge")
    if planner is not None:
        planner_at = next((name for name in candidates if name in planner.asks), "planner")
        workers[planner_at] = (*workers.get(planner_at, ()), "--planner")
    return workers
