"""Ask a language model about one answer and one component at a time, and read the probabilities of a small scale.

A component is a thing that the answer is to do ("mention no food", "in three sentences"). The mark that a model gives
one is the mean of the scale under its probabilities, brought to 0..1, so that a doubtful 4 is less than a sure one; one
with a check is marked by code, and so is a weighted check of the task's. The score of an answer is the weighted mean.
No answer sees another: there is no first place to like. A task's components stand in the place of the registry's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field

from db.errors import InvalidRequest
from worker.judges import Decision, Judge
from worker.judges.expecting import MOST, Component
from worker.judges.prompting import JudgeParams, checked_prompt, escape_tags, needed_model, render
from worker.judges.ranking import excerpt, ranked, softmax, unanimous
from worker.judges.reading import Reading, read_answers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from db.registry import JudgeEntry
    from worker.backends import LanguageModel
    from worker.judges import Question

EMPTY = -1.0  # the score of an empty answer, which the model never sees


def _counts_up(scale: tuple[str, ...]) -> tuple[str, ...]:
    if len(scale) > 9:
        raise ValueError("a scale has nine steps at most: a mark is one digit")
    return scale


class RubricParams(JudgeParams):
    """`params` of an `llm_rubric` judge. `scale` says what the marks 1, 2, 3 ... mean, the worst first."""

    prompt: str = "rubric-1"
    components: Annotated[tuple[Component, ...], Field(max_length=MOST)] = ()  # none: those of the task alone
    scale: Annotated[tuple[str, ...], Field(min_length=2), AfterValidator(_counts_up)] = (
        "not at all",
        "poorly",
        "in part",
        "well",
        "perfectly",
    )


class Rubric(Judge):
    """Ranks by weighted marks."""

    def __init__(self, entry: JudgeEntry, language_model: LanguageModel | None) -> None:
        super().__init__(entry, language_model)
        self._model = needed_model(entry, language_model)
        self._params = checked_prompt(entry, RubricParams)

    def decide(self, question: Question) -> Decision:
        """Rank the answers. Raises what the language model raises, `InvalidRequest` where there is nothing to mark."""
        components = self._components(question)
        reading = read_answers(question, self._params.max_answer_characters, self._params.hostile)
        texts = reading.texts
        read = [self._marked(question, reading, text, components) for text in texts] if len(texts) > 1 else []
        marks = dict.fromkeys(texts, 1.0) | {one["text"]: one["score"] for one in read}
        scores = dict.fromkeys((answer.id for answer in question.answers), EMPTY)
        scores |= {answer.id: marks[text] for text, same in texts.items() for answer in same}
        decision = Decision(
            ranking=ranked(question, scores),
            scores=scores,
            reason=_reason(read) if read else unanimous(question, texts),
            method="llm_rubric",
            model=self._model.identity,
            prompt_version=self._params.prompt,
            orders=tuple(read),
        )
        return reading.noted(decision)

    def _components(self, question: Question) -> tuple[Component, ...]:
        own = question.expect.marked if question.expect else ()
        components = own or self._params.components
        if not components:
            raise InvalidRequest(
                f"Judge {self.entry.name!r} marks components, and neither the task nor the registry has any; name some "
                "in options.expect.components."
            )
        return components

    def _marked(
        self, question: Question, reading: Reading, text: str, components: Sequence[Component]
    ) -> dict[str, Any]:
        """One text's marks, component by component, and what was asked."""
        whole = next(answer.text for answer in question.answers if answer.id == reading.texts[text][0].id)
        by_code = [component.met(whole) for component in components]
        prompts = [
            self._prompt(question, reading.shown(text), component)
            for component, mark in zip(components, by_code, strict=True)
            if mark is None
        ]
        digits = [str(mark + 1) for mark in range(len(self._params.scale))]
        rows = iter(self._model.option_logprobs(prompts, digits) if prompts else [])
        read: list[dict[str, Any]] = []
        for component, known in zip(components, by_code, strict=True):
            row = None if known is not None else next(rows)
            mark = _mean(softmax(row)) if row is not None else known
            read.append({"component": component.description, "weight": component.weight, "mark": mark,
                         "logprobs": None if row is None else list(row)})  # fmt: skip
        total = sum(component.weight for component in components)
        return {
            "text": text,
            "models": [answer.model for answer in reading.texts[text]],
            "prompt": prompts[0] if prompts else None,
            "score": sum(one["weight"] * one["mark"] for one in read) / total,
            "read": read,
        }

    def _prompt(self, question: Question, shown: str, component: Component) -> str:
        return render(
            self._params.prompt,
            capability=question.capability,
            instruction=question.instruction,
            request=escape_tags(question.request.strip()[: self._params.max_request_characters]),
            answer=shown,
            component=component.description,
            options=[{"mark": place + 1, "meaning": meaning} for place, meaning in enumerate(self._params.scale)],
        )


def _reason(read: list[dict[str, Any]]) -> str:
    best, second = sorted(read, key=lambda one: -one["score"])[:2]
    weakest: Mapping[str, Any] = min(best["read"], key=lambda one: one["mark"])
    return (
        f"{excerpt(best['text'])} ({', '.join(best['models'])}) does what was asked to {best['score']:.2f} against "
        f"{second['score']:.2f} ({', '.join(second['models'])}); least of all: {excerpt(weakest['component'])}."
    )


def _mean(chances: list[float]) -> float:
    """Mean of the scale, 0 at its worst mark and 1 at its best."""
    return sum(place * chance for place, chance in enumerate(chances)) / (len(chances) - 1)
