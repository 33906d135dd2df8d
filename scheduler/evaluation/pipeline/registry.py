"""The registry of a run: the given one with a profile of the models whose weights are here, and a judge for each step.

A language model finds its own words likelier than anybody's: by `nll`, one that is itself a candidate picks itself
nearly always. So where a capability's judge asks one of the candidates, the candidates' agreement decides instead.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from db.errors import UsageError, WeightsError
from scheduler.evaluation.pipeline.items import STEPS
from worker.weights import locate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from db.registry import Registry
    from db.settings import Settings

PROFILE = "evaluate-pipeline"
AGREEMENT = "evaluate-agreement"
#: Models that are asked, of each step as many as a judge gets; those whose weights are not there are left out.
WANTED = (
    ("rapidocr", "rapidocr-onnxruntime", "ddddocr"),
    ("whisper-base", "whisper-tiny-en", "pocketsphinx-en-us"),
    ("smollm2-135m", "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"),
)


class Selection:
    """The models of a run: those wanted, in the registry's order, whose weights are there."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self.missing: list[str] = []
        self.models: dict[str, list[str]] = {}
        for step, wanted in zip(STEPS, WANTED, strict=True):
            known = [name for name in registry.models if name in wanted]
            self.models[step] = [name for name in known if self._is_there(settings, registry, name)]
            if len(self.models[step]) < 2:
                raise UsageError(
                    f"The step {step!r} needs two of {', '.join(wanted)} to compare; "
                    f"fetch them: `bakeoff models pull {' '.join(wanted)}`. {' '.join(self.missing)}"
                )

    def _is_there(self, settings: Settings, registry: Registry, name: str) -> bool:
        try:
            locate(registry.models[name], settings.cache)
        except WeightsError as error:
            self.missing.append(str(error))
            return False
        return True

    @property
    def names(self) -> list[str]:
        """All of them."""
        return [name for models in self.models.values() for name in models]


def judges_of(registry: Registry, models: Mapping[str, list[str]], judge: str | None) -> dict[str, str]:
    """Who judges each step: the caller's choice, else the capability's judge where it asks none of the candidates."""
    found = {}
    for step, capability in STEPS.items():
        name = judge or registry.capabilities[capability].judge
        partial = judge is None and registry.judges[name].model in models[step]
        found[step] = AGREEMENT if partial else name
    return found


def run_tables(
    tables: Mapping[str, Any], models: Mapping[str, list[str]], judges: Mapping[str, str], planner: str | None
) -> dict[str, Any]:
    """The tables of a registry, with the profile and the judges of a run."""
    out = copy.deepcopy(dict(tables))
    out["judges"][AGREEMENT] = {"method": "consensus"}
    for step, capability in STEPS.items():
        out["capabilities"][capability]["judge"] = judges[step]
    names = [name for chosen in models.values() for name in chosen]
    out["profiles"] = {PROFILE: {"models": names} | ({} if planner is None else {"planner": planner})}
    return out
