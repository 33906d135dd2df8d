"""No language model: every result under the name of its step, with its model, and what could not be had.

For machines whose language models are too small to be trusted with other models' results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.integrators import Integrated, Integrator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from db.thinking import StepResult


class Report(Integrator):
    """Lists the results."""

    def write(self, request: str, results: Sequence[StepResult]) -> Integrated:  # noqa: ARG002 - of the base class
        """See `Integrator`."""
        parts = [f"{result.name} ({result.model}):\n{result.output}" for result in results if result.output is not None]
        return Integrated(text="\n\n".join(parts), notes="\n".join(failures_of(results)), method="report")


def sources_of(results: Sequence[StepResult]) -> str:
    """One line that says which model each result is from."""
    return "Sources: " + "; ".join(f"[{result.name}] {result.model}" for result in results if result.output is not None)


def failures_of(results: Sequence[StepResult]) -> list[str]:
    """A line for what could not be had, where there is any."""
    missing = [f"[{result.name}] {result.error or result.status}" for result in results if result.output is None]
    return ["Not available: " + "; ".join(missing)] if missing else []
