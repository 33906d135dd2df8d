"""Which stages there are, and what a recipe's table of each may say."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from pydantic import BaseModel, ConfigDict


class StageOptions(BaseModel):
    """What a recipe's table of a stage may say; an unknown key is an error, not silence."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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


def stage_type(name: str) -> Any:
    """The class of a stage."""
    module, _, kind = STAGES[name].partition(":")
    return getattr(import_module(module), kind)


def options_type(name: str) -> type[StageOptions]:
    """What the table of a stage may say."""
    options: type[StageOptions] = stage_type(name).Options
    return options
