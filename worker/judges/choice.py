"""Ask a language model which answer is best, and read the probabilities of the letters instead of its
reply.

A model prefers some letters to others whatever they stand for, so the question is asked once per cyclic
order of the answers, and the log-probabilities are averaged: each answer stands in every place once. The
score of an answer is its share, 0..1; the shares of the distinct answers add up to 1.
"""

from __future__ import annotations

from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from worker.judges import Decision, Judge
from worker.judges.prompting import JudgeParams, checked_prompt, escape_tags, needed_model, render
from worker.judges.ranking import excerpt, ranked, softmax, unanimous
from worker.judges.reading import Reading, read_answers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from db.registry import JudgeEntry
    from worker.backends import LanguageModel
    from worker.judges import Answer, Question

EMPTY = 0.0  # the share of an empty answer, which the model never sees


class ChoiceParams(JudgeParams):
    """`params` of a `choice` judge."""

    prompt: str = "choice-1"


class Choice(Judge):
    """Ranks by the probability that the model names an answer's letter."""

    def __init__(self, entry: JudgeEntry, language_model: LanguageModel | None) -> None:
        super().__init__(entry, language_model)
        self._model = needed_model(entry, language_model)
        self._params = self._checked(entry)

    def _checked(self, entry: JudgeEntry) -> JudgeParams:
        return checked_prompt(entry, ChoiceParams)

    def _beside(self, order: Sequence[str]) -> dict[str, Any]:  # noqa: ARG002 - for judges that show more
        """What the prompt shows beside the answers, which stand in this order."""
        return {}

    def decide(self, question: Question) -> Decision:
        """Rank the answers. Raises what the language model raises, and `ValueError` for more than 26
        texts."""
        reading = read_answers(question, self._params.max_answer_characters, self._params.hostile)
        texts = reading.texts
        orders = self._ask(question, reading) if len(texts) > 1 else []
        shares = dict.fromkeys(texts, 1.0)
        if orders:
            means = [sum(order["logprobs"][text] for order in orders) / len(orders) for text in texts]
            shares = dict(zip(texts, softmax(means), strict=True))
        scores = dict.fromkeys((answer.id for answer in question.answers), EMPTY)
        scores |= {answer.id: shares[text] for text, same in texts.items() for answer in same}
        decision = Decision(
            ranking=ranked(question, scores),
            scores=scores,
            reason=_reason(orders, texts, shares) if orders else unanimous(question, texts),
            method=self.entry.method,
            model=self._model.identity,
            prompt_version=self._params.prompt,
            orders=tuple(_kept(order, texts) for order in orders),
            confidence=max(shares.values()) if texts else None,
        )
        return reading.noted(decision)

    def _ask(self, question: Question, reading: Reading) -> list[dict[str, Any]]:
        texts = list(reading.texts)
        if len(texts) > len(ascii_uppercase):
            raise ValueError(f"{len(texts)} different answers are more than there are letters")
        letters = list(ascii_uppercase[: len(texts)])
        orders = [texts[turn:] + texts[:turn] for turn in range(len(texts))]
        prompts = [self._prompt(question, letters, order, reading) for order in orders]
        read = self._model.option_logprobs(prompts, letters)
        return [
            {"prompt": prompt, "logprobs": dict(zip(order, row, strict=True))}
            for prompt, order, row in zip(prompts, orders, read, strict=True)
        ]

    def _prompt(self, question: Question, letters: Sequence[str], order: Sequence[str], reading: Reading) -> str:
        quoted = [{"letter": letter, "text": reading.shown(text)} for letter, text in zip(letters, order, strict=True)]
        return render(
            self._params.prompt,
            capability=question.capability,
            instruction=question.instruction,
            request=escape_tags(question.request.strip()[: self._params.max_request_characters]),
            answers=quoted,
            **self._beside(order),
        )


def _kept(order: Mapping[str, Any], texts: Mapping[str, Sequence[Answer]]) -> dict[str, Any]:
    read = [
        {"letter": letter, "models": [answer.model for answer in texts[text]], "logprob": logprob}
        for letter, (text, logprob) in zip(ascii_uppercase, order["logprobs"].items(), strict=False)
    ]
    return {"prompt": order["prompt"], "read": read}


def _reason(orders: Sequence[Mapping[str, Any]], texts: Mapping[str, list[Answer]], shares: Mapping[str, float]) -> str:
    best, second = sorted(texts, key=lambda text: -shares[text])[:2]
    first_in = sum(max(order["logprobs"], key=order["logprobs"].get) == best for order in orders)
    names = {text: ", ".join(answer.model for answer in texts[text]) for text in (best, second)}
    return (
        f"{excerpt(best)} ({names[best]}) was preferred in {first_in} of {len(orders)} orders: "
        f"share {shares[best]:.2f} against {shares[second]:.2f} ({names[second]})."
    )
