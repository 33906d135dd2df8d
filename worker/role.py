"""What one worker process is for; its child, a fresh interpreter, reads it from the environment."""

from __future__ import annotations

import os
from functools import cached_property
from typing import Self

from pydantic import BaseModel, ConfigDict

from db.registry import Registry

VARIABLE = "BAKEOFF_WORKER"
JUDGE_QUEUE = "judge"
PLANNER_QUEUE = "planner"
INTEGRATOR_QUEUE = "integrator"
INTAKE_QUEUES = ("intake", "celery")


class WorkerRole(BaseModel):
    """Models that candidates run on, whether judges, planners, integrators run here too, and more Celery tasks."""

    model_config = ConfigDict(frozen=True)

    name: str
    models: tuple[str, ...] = ()
    judge: bool = False
    planner: bool = False
    integrator: bool = False
    intake: bool = False
    imports: tuple[str, ...] = ()

    @cached_property
    def queues(self) -> list[str]:
        """Every queue that this worker consumes."""
        queues = [f"model.{model}" for model in self.models]
        queues += [JUDGE_QUEUE] if self.judge else []
        queues += [PLANNER_QUEUE] if self.planner else []
        queues += [INTEGRATOR_QUEUE] if self.integrator else []
        if self.intake:
            queues.extend(INTAKE_QUEUES)
        return queues

    @property
    def computes(self) -> bool:
        """Whether it has a child that holds models."""
        return bool(self.models) or self.judge or self.planner or self.integrator

    def held(self, registry: Registry) -> set[str]:
        """Models that its process loads: those it answers with, and those that its judges, planner, integrator ask."""
        held = set(self.models)
        held |= registry.asked_by_judges() if self.judge else set()
        held |= set(registry.planners[registry.planner].asks) if self.planner and registry.planner else set()
        held |= (
            set(registry.integrators[registry.integrator].asks) if self.integrator and registry.integrator else set()
        )
        return held

    def announce(self) -> None:
        """Leave the role where this process's child, a fresh interpreter, finds it."""
        os.environ[VARIABLE] = self.model_dump_json()

    @classmethod
    def of_this_process(cls) -> Self | None:
        """The role, or None in a process that is no worker: a scheduler, a test, Flower."""
        text = os.environ.get(VARIABLE)
        return cls.model_validate_json(text) if text else None
