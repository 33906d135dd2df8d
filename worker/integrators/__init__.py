"""Who writes a task's answer from the chosen results. One file per method, registered by name in `METHODS`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from db.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from db.registry import IntegratorEntry
    from db.thinking import StepResult
    from worker.backends import Backend


@dataclass(frozen=True, kw_only=True)
class Integrated:
    """An answer, and how it came about. `notes` follow the text: where it is too long, they are what stays whole."""

    text: str
    notes: str = ""
    method: str
    model: str | None = None
    prompt_version: str | None = None
    usage: Mapping[str, float] = field(default_factory=dict)


class Integrator(ABC):
    """A way to write the answer."""

    def __init__(self, entry: IntegratorEntry, model: Backend | None) -> None:
        self.entry = entry
        self.model = model

    @abstractmethod
    def write(self, request: str, results: Sequence[StepResult]) -> Integrated:
        """The answer to a request from what became of its subtasks, in plan order; at least one of them succeeded.

        Raises where nothing can be written; the caller tries again, and at last gives the results as they are.
        """


#: method in models.toml → "module:class"
METHODS = {"llm": "worker.integrators.llm:LLMIntegrator", "report": "worker.integrators.report:Report"}


def create_integrator(entry: IntegratorEntry, model: Backend | None) -> Integrator:
    """The integrator that the registry names. Raises `RegistryError` for an unknown method."""
    try:
        module, _, name = METHODS[entry.method].partition(":")
    except KeyError:
        known = ", ".join(sorted(METHODS))
        raise RegistryError(
            f"integrators.{entry.name}.method = {entry.method!r} is unknown; there are: {known}."
        ) from None
    kind: Any = getattr(import_module(module), name)
    integrator: Integrator = kind(entry, model)
    return integrator
