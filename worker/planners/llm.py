"""A language model writes the plan: short-listed capabilities, varied examples, a schema where it can be bound, one
re-ask with the reasons where what it wrote cannot run."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from db.plan import Plan, PlanError
from worker.planners import Planned, Planner
from worker.planners.checking import checked, read_plan
from worker.planners.params import needed_model
from worker.planners.prompting import PromptParams, checked_prompt, quoted, renamed, render, reply_schema
from worker.planners.retrieval import Library, Retrieval
from worker.planners.similarity import asking, varied
from worker.writing import write

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from db.registry import PlannerEntry
    from worker.backends import Backend
    from worker.planners import Asked, Example

POOL = 5  # times as many nearest examples as are shown: variety is chosen among them


class LLMParams(PromptParams):
    """`params` of an `llm` planner."""

    prompt: str = "plan-1"


class LLM(Planner):
    """Asks, reads, repairs; asks once more."""

    kind: type[PromptParams] = LLMParams

    def __init__(
        self, entry: PlannerEntry, *, model: Backend | None, embedder: Backend | None, examples: Sequence[Example]
    ) -> None:
        super().__init__(entry, model=model, embedder=embedder, examples=examples)
        self._model = needed_model(entry, model)
        self._params = checked_prompt(entry, self.kind)
        self.library = Library(examples, embedder)

    def plan(self, asked: Asked) -> Planned:
        """The model's plan. Raises `PlanError` with the texts of both replies where neither can run."""
        tools = self.library.short_list(asked.request, asked.tools, self._params.max_tools)
        seen = replace(asked, tools=tools)
        conversation = Conversation(self._model, self._params, seen, self._examples(seen))
        ids = [f"s{number}" for number in range(1, asked.max_steps + 1)]
        plan, repairs = conversation.ask(schema=reply_schema(seen, ids=ids))
        return Planned(
            plan=plan,
            method=self.entry.method,
            reason=f"Written by {self._model.model.name}" + (", at the second try." if conversation.again else "."),
            written=tuple(conversation.written),
            repairs=tuple(repairs),
            model=self._model.model.name,
            prompt_version=self._params.prompt,
            usage=dict(conversation.usage),
        )

    def _examples(self, asked: Asked) -> list[Example]:
        """Nearest examples that fit the request, chosen for variety; the most alike stands last."""
        near = self.library.nearest(asked, POOL * self._params.examples) if self._params.examples else []
        return self._varied(asked, [neighbour.example for neighbour in near])

    def _varied(self, asked: Asked, near: Sequence[Example]) -> list[Example]:
        if not near:
            return []
        encoder = self.library.encoder
        wanted, *vectors = encoder.encode([asking(asked.request), *(asking(example.request) for example in near)])
        alike = [encoder.alike(wanted, vector) for vector in vectors]
        between = [[encoder.alike(one, other) for other in vectors] for one in vectors]
        chosen = varied(alike, between, self._params.examples, self._params.variety)
        return [as_shown(near[place]) for place in sorted(chosen, key=lambda place: alike[place])]


def as_shown(example: Example) -> Example:
    """An example by the ids that a reply uses."""
    return replace(example, plan=renamed(example.plan, "s"))


class Conversation:
    """One question to a language model, and a second one where the first reply cannot run."""

    def __init__(
        self, model: Backend, params: PromptParams, asked: Asked, examples: Sequence[Example], **more: Any
    ) -> None:
        self._model, self._params, self._asked = model, params, asked
        self._examples, self._more = examples, more
        self.written: list[str] = []
        self.usage: Counter[str] = Counter()

    @property
    def again(self) -> bool:
        """Whether it took two questions."""
        return len(self.written) > 1

    def ask(
        self,
        *,
        schema: Mapping[str, Any],
        finished: Mapping[str, str] | None = None,
        amended: Callable[[Plan], Plan] = lambda plan: plan,
    ) -> tuple[Plan, list[str]]:
        """The first reply that can run, amended and repaired. Raises `PlanError` with all that was written."""
        reasons: list[str] = []
        for _ in range(2):
            self._write(schema, reasons)
            try:
                return checked(
                    amended(read_plan(self.written[-1], names=self._asked.names)),
                    tools=self._asked.tools,
                    kinds=self._asked.kinds,
                    has_request=bool(self._asked.request.strip()),
                    max_steps=self._asked.max_steps,
                    repair=True,
                    finished=finished,
                )
            except PlanError as error:
                reasons = error.reasons
        raise PlanError(reasons, self.written)

    def _write(self, schema: Mapping[str, Any], reasons: Sequence[str]) -> None:
        again = {"error": " ".join(reasons)[:2000], "before": quoted(self.written[-1][:4000])} if reasons else {}
        prompt = render(self._params, self._asked, self._examples, **self._more, **again)
        written = write(self._model, prompt, max_new_tokens=self._params.max_new_tokens, schema=schema)
        self.written.append(written.text)
        self.usage.update(written.usage)


class LLMWithRetrieval(LLM):
    """The nearest plans stand in the prompt, and the one most agreed upon is taken where the model's cannot run."""

    def __init__(
        self, entry: PlannerEntry, *, model: Backend | None, embedder: Backend | None, examples: Sequence[Example]
    ) -> None:
        super().__init__(entry, model=model, embedder=embedder, examples=examples)
        looking = entry.model_copy(update={"params": {}})
        self._retrieval = Retrieval(looking, model=None, embedder=embedder, examples=examples)
        self._retrieval.library = self.library

    def plan(self, asked: Asked) -> Planned:
        """The model's plan, else the retrieved one. Raises `PlanError` where neither can run."""
        try:
            return super().plan(asked)
        except PlanError as error:
            try:
                found = self._retrieval.plan(asked)
            except PlanError as none:
                raise PlanError([*error.reasons, *none.reasons], error.written) from None
            return replace(
                found,
                reason=f"What {self._model.model.name} wrote cannot run ({error.reasons[0]}) {found.reason}",
                written=error.written,
                model=self._model.model.name,
                prompt_version=self._params.prompt,
            )

    def _examples(self, asked: Asked) -> list[Example]:
        """The nearest, however alike they are among each other; the most alike last."""
        near = self.library.nearest(asked, self._params.examples) if self._params.examples else []
        return [as_shown(neighbour.example) for neighbour in reversed(near)]
