"""Ask a language model about one answer and one component at a time, and read the probabilities of a small scale.

A component is a thing that the answer is to do ("mention no food", "in three sentences"). The mark that a model gives
one is the mean of the scale under its probabilities, brought to 0..1, so that a doubtful 4 is less than a sure one. The
score of an answer is the weighted mean of its components. No answer sees another: there is no first place to like.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field

from worker.judges import Decision, Judge
from worker.judges.prompting import JudgeParams, checked_prompt, escape_tags, needed_model, render
from worker.judges.ranking import excerpt, ranked, softmax, unanimous
from worker.judges.reading import Reading, read_answers
from worker.params import Params

if TYPE_CHECKING:
    from collections.abc import Mapping

    from db.registry import JudgeEntry
    from worker.backends import LanguageModel
    from worker.judges import Question

EMPTY = -1.0  # the score of an empty answer, which the model never sees


class Component(Params):
    """One thing that an answer is to do, and how much it counts against the others."""

    asks: Annotated[str, Field(min_length=1, max_length=1000)]
    weight: Annotated[float, Field(gt=0)] = 1.0


def _counts_up(scale: tuple[str, ...]) -> tuple[str, ...]:
    if len(scale) > 9:
        raise ValueError("a scale has nine steps at most: a mark is one digit")
    return scale


class RubricParams(JudgeParams):
    """`params` of an `llm_rubric` judge. `scale` says what the marks 1, 2, 3 ... mean, the worst first."""

    prompt: str = "rubric-1"
    components: Annotated[tuple[Component, ...], Field(min_length=1, max_length=32)]
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
        """Rank the answers. Raises what the language model raises."""
        reading = read_answers(question, self._params.max_answer_characters, self._params.hostile)
        texts = reading.texts
        read = [self._marked(question, reading, text) for text in texts] if len(texts) > 1 else []
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

    def _marked(self, question: Question, reading: Reading, text: str) -> dict[str, Any]:
        """One text's marks, component by component, and what was asked."""
        components = self._params.components
        prompts = [self._prompt(question, reading.shown(text), component) for component in components]
        rows = self._model.option_logprobs(prompts, [str(mark + 1) for mark in range(len(self._params.scale))])
        marks = [_mean(softmax(row)) for row in rows]
        total = sum(component.weight for component in components)
        return {
            "text": text,
            "models": [answer.model for answer in reading.texts[text]],
            "prompt": prompts[0],
            "score": sum(one.weight * mark for one, mark in zip(components, marks, strict=True)) / total,
            "read": [
                {"component": one.asks, "weight": one.weight, "mark": mark, "logprobs": list(row)}
                for one, mark, row in zip(components, marks, rows, strict=True)
            ],
        }

    def _prompt(self, question: Question, shown: str, component: Component) -> str:
        return render(
            self._params.prompt,
            capability=question.capability,
            instruction=question.instruction,
            request=escape_tags(question.request.strip()[: self._params.max_request_characters]),
            answer=shown,
            component=component.asks,
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
