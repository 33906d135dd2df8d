"""A language model writes the answer (arXiv 2308.16474: the LLM integrates the results of the subtasks).

It reads the request and every chosen result as quoted data, and is told what failed. What it must not get wrong is not
left to it: the sources and what is not available are added by us.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from db.errors import RegistryError
from worker.integrators import Integrated, Integrator
from worker.integrators.report import failures_of, sources_of
from worker.params import Params, checked_params
from worker.templates import Prompts
from worker.writing import write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from db.registry import IntegratorEntry
    from db.thinking import StepResult
    from worker.backends import Backend

PROMPTS = Prompts(Path(__file__).parent / "prompts", quotes=("request", "result"))


class IntegratorParams(Params):
    """`params` of an integrator. Longer texts are cut to the limit, with a mark."""

    prompt: str = "integrate-1"
    max_new_tokens: int = Field(400, ge=16)
    max_result_characters: int = Field(2000, ge=100)
    max_request_characters: int = Field(4000, ge=100)


class LLMIntegrator(Integrator):
    """Asks a language model."""

    def __init__(self, entry: IntegratorEntry, model: Backend | None) -> None:
        super().__init__(entry, model)
        self._params = checked_params(entry, IntegratorParams)
        PROMPTS.check(self._params.prompt, f"integrators.{entry.name}.params.prompt")
        if model is None:
            raise RegistryError(f"integrators.{entry.name}.method = 'llm' needs integrators.{entry.name}.model.")
        self._model = model

    def write(self, request: str, results: Sequence[StepResult]) -> Integrated:
        """See `Integrator`. Raises where the model fails, or writes nothing."""
        prompt = PROMPTS.render(
            self._params.prompt,
            request=_cut(request, self._params.max_request_characters),
            results=[
                {"name": r.name, "capability": r.capability, "text": _cut(r.output, self._params.max_result_characters)}
                for r in results
                if r.output is not None
            ],
            missing=[{"name": r.name, "why": r.error or r.status} for r in results if r.output is None],
        )
        written = write(self._model, prompt, max_new_tokens=self._params.max_new_tokens)
        text = written.text.strip()
        if not text:
            raise ValueError(f"{self._model.model.name} wrote nothing")
        return Integrated(
            text=text,
            notes="\n".join([sources_of(results), *failures_of(results)]),
            method="llm",
            model=self._model.model.name,
            prompt_version=self._params.prompt,
            usage=written.usage,
        )


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]} [cut]"
