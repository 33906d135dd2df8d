"""What one worker process is for; its child, a fresh interpreter, reads it from the environment."""

from __future__ import annotations

import os
from functools import cached_property
from typing import Self

from pydantic import BaseModel, ConfigDict

VARIABLE = "BAKEOFF_WORKER"
JUDGE_QUEUE = "judge"
INTAKE_QUEUES = ("intake", "celery")


class WorkerRole(BaseModel):
    """Models that candidates run on, whether judges run here too, and modules with more Celery tasks."""

    model_config = ConfigDict(frozen=True)

    name: str
    models: tuple[str, ...] = ()
    judge: bool = False
    intake: bool = False
    imports: tuple[str, ...] = ()

    @cached_property
    def queues(self) -> list[str]:
        """Every queue that this worker consumes."""
        queues = [f"model.{model}" for model in self.models]
        if self.judge:
            queues.append(JUDGE_QUEUE)
        if self.intake:
            queues.extend(INTAKE_QUEUES)
        return queues

    def announce(self) -> None:
        """Leave the role where this process's child, a fresh interpreter, finds it."""
        os.environ[VARIABLE] = self.model_dump_json()

    @classmethod
    def of_this_process(cls) -> Self | None:
        """The role, or None in a process that is no worker: a scheduler, a test, Flower."""
        text = os.environ.get(VARIABLE)
        return cls.model_validate_json(text) if text else None
