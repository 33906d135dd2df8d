"""The stages of a curation job. One file per stage, registered by name in `STAGES`; a recipe names them in its order.

A stage takes every record that stands before it and lets it pass or drops it. It may be killed at any moment: what it
has done is in the records' rows, and it finds there what is left.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from scheduler.curation.run import Run


class StageOptions(BaseModel):
    """What a recipe's table of a stage may say; an unknown key is an error, not silence."""

    model_config = ConfigDict(extra="forbid", frozen=True)


O = TypeVar("O", bound=StageOptions)  # noqa: E741 - options


class Stage(ABC, Generic[O]):
    """One stage of one job. `number` is its place in the recipe, 0 first."""

    Options: ClassVar[type[StageOptions]] = StageOptions

    def __init__(self, name: str, number: int, options: O) -> None:
        self.name = name
        self.number = number
        self.options = options

    @abstractmethod
    def run(self, run: Run) -> None:
        """Take every record that stands before this stage through it. Raises `BakeoffError` where it cannot."""


#: name in a recipe → "module:class"
STAGES = {
    "validate": "scheduler.curation.stages.validate:Validate",
    "exact": "scheduler.curation.stages.exact:Exact",
    "near": "scheduler.curation.stages.near:Near",
    "leakage": "scheduler.curation.stages.leakage:Leakage",
    "questions": "scheduler.curation.stages.questions:Questions",
    "answers": "scheduler.curation.stages.answers:Answers",
    "rewrite": "scheduler.curation.stages.rewrite:Rewrite",
    "review": "scheduler.curation.stages.review:Review",
    "ifd": "scheduler.curation.stages.ifd:IFD",
    "diversity": "scheduler.curation.stages.diversity:Diversity",
}


def stage_type(name: str) -> type[Stage[Any]]:
    """The class of a stage."""
    module, _, kind = STAGES[name].partition(":")
    found: type[Stage[Any]] = getattr(import_module(module), kind)
    return found


def options_type(name: str) -> type[StageOptions]:
    """What the table of a stage may say."""
    return stage_type(name).Options


def create_stage(name: str, number: int, table: dict[str, Any]) -> Stage[Any]:
    """A stage of a recipe that was checked."""
    kind = stage_type(name)
    return kind(name, number, kind.Options.model_validate(table))
