"""The system under measurement: servers, scheduler, judge, planner and a worker per model of its own, in one folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from db.engine import engine_of, transaction
from db.queries import task_story
from db.registry import parse_registry
from scheduler.evaluation.pipeline.registry import PROFILE, WANTED
from scheduler.evaluation.running import System, as_toml

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from db.registry import Registry
    from db.settings import Settings
    from scheduler.evaluation.running import Progress
    from scheduler.submit import NewTask

READY_WITHIN = 600.0  # seconds; weights are loaded on a machine that others may use too
PATIENCE = 3600.0  # seconds for one round of tasks


class Running(System):
    """A running system; use it as a context."""

    def __init__(self, settings: Settings, folder: Path, tables: dict[str, Any]) -> None:
        own = {
            "BAKEOFF_CACHE": str(settings.cache),
            "BAKEOFF_CANDIDATES": str(len(WANTED[0])),
            "HF_HUB_OFFLINE": "1",
        }
        self.registry = parse_registry(tables, PROFILE).restricted_to(PROFILE)
        super().__init__(
            folder, as_toml(tables), own, profile=PROFILE, workers=workers_of(self.registry), ready_within=READY_WITHIN
        )

    def ask(self, tasks: Sequence[NewTask], progress: Progress) -> list[dict[str, Any]]:
        """Submit tasks, wait until all have ended, return their stories in order."""
        if not tasks:
            return []
        ids = self.submit(tasks)
        self.wait(ids, PATIENCE, progress)
        with transaction(engine_of(self.settings.dsn, "wait")) as connection:
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
