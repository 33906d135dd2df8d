"""One step at a time, from what came back (after alpha-UMi): this model only plans.

The models that carry a step out are the system's own, and the integrator, which may be another model again, writes
the answer. The planner is asked again when the step has ended, until it says that no more is needed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import Field

from db.plan import Plan
from worker.planners import Planned
from worker.planners.llm import LLM, Conversation
from worker.planners.prompting import PromptParams, checked_prompt, quoted, reply_schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from db.registry import PlannerEntry
    from worker.backends import Backend
    from worker.planners import Asked, Example


class StepwiseParams(PromptParams):
    """`params` of a `stepwise` planner."""

    prompt: str = "step-1"
    max_new_tokens: int = Field(200, ge=16)
    max_output_characters: int = Field(1500, ge=1)  # of a finished step that the model sees


class Stepwise(LLM):
    """Plans the next step, or says that it is done."""

    kind = StepwiseParams

    def __init__(
        self, entry: PlannerEntry, *, model: Backend | None, embedder: Backend | None, examples: Sequence[Example]
    ) -> None:
        super().__init__(entry, model=model, embedder=embedder, examples=examples)
        self._longest_output = checked_prompt(entry, StepwiseParams).max_output_characters

    def plan(self, asked: Asked) -> Planned:
        """The next step, `more` until nothing is left to do. Raises `PlanError` where no reply can run."""
        left = asked.max_steps - len(asked.finished)
        if left <= 0:
            return Planned(plan=Plan(), method=self.entry.method, reason=f"All {asked.max_steps} steps are used.")
        tools = self.library.short_list(asked.request, asked.tools, self._params.max_tools)
        seen = replace(asked, tools=tools, max_steps=1)
        name = next_id(asked)
        succeeded = [step.id for step in asked.finished if step.output is not None]
        conversation = Conversation(
            self._model,
            self._params,
            seen,
            self._examples(replace(asked, tools=tools)),
            next_id=name,
            finished=[
                replace(
                    step,
                    output=None if step.output is None else self._cut(step.output),
                    error=quoted(step.error)[:200],
                )
                for step in asked.finished
            ],
        )
        plan, repairs = conversation.ask(
            schema=reply_schema(seen, ids=[name], before=succeeded),
            finished={step.id: step.capability for step in asked.finished if step.output is not None},
            amended=lambda plan: _named(plan, name),
        )
        done = not plan.steps
        return Planned(
            plan=plan,
            method=self.entry.method,
            reason=f"{self._model.model.name} needs no more steps." if done else f"The next step of {left} at most.",
            more=not done and left > 1,
            written=tuple(conversation.written),
            repairs=tuple(repairs),
            model=self._model.model.name,
            prompt_version=self._params.prompt,
            usage=dict(conversation.usage),
        )

    def _cut(self, output: str) -> str:
        short = output if len(output) <= self._longest_output else output[: self._longest_output] + " …"
        return quoted(short)


def next_id(asked: Asked) -> str:
    """s1, s2 ..., the first that no finished step has."""
    taken = {step.id for step in asked.finished}
    return next(name for name in (f"s{number}" for number in range(1, len(taken) + 2)) if name not in taken)


def _named(plan: Plan, name: str) -> Plan:
    """A plan of one step by the id that comes next, whatever the model called it."""
    if len(plan.steps) != 1:
        return plan
    return Plan(steps=(plan.steps[0].model_copy(update={"id": name}),))
