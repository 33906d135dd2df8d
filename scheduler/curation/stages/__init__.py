"""The stages of a curation job. One file each; `scheduler.curation.options` names them, a recipe puts them in order.

A stage takes every record that stands before it and lets it pass or drops it. It may be killed at any moment: what it
has done is in the records' rows, and it finds there what is left.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from scheduler.curation.options import StageOptions, stage_type

if TYPE_CHECKING:
    from scheduler.curation.recipe import Input
    from scheduler.curation.run import Run


O = TypeVar("O", bound=StageOptions)  # noqa: E741 - options


class Stage(ABC, Generic[O]):
    """One stage of one job. `number` is its place in the recipe, 0 first; `names` is set where it reads records."""

    Options: ClassVar[type[StageOptions]] = StageOptions
    names: Input

    def __init__(self, name: str, number: int, options: O) -> None:
        self.name = name
        self.number = number
        self.options = options

    @abstractmethod
    def run(self, run: Run) -> None:
        """Take every record that stands before this stage through it. Raises `BakeoffError` where it cannot."""


def create_stage(name: str, number: int, table: dict[str, Any]) -> Stage[Any]:
    """A stage of a recipe that was checked."""
    kind = stage_type(name)
    stage: Stage[Any] = kind(name, number, kind.Options.model_validate(table))
    return stage
