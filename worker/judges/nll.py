"""Which answer would a language model most likely have given? Probabilities are read, no text is parsed.

The score of an answer is log p(answer, end of turn | task) in nats per character: at most 0, higher is
better. Fluent, plausible text is likely text, so the method fits recognition (OCR, speech), where every
candidate tries to say the same; it knows nothing of the picture or the recording itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.judges import Decision, Judge
from worker.judges.prompting import JudgeParams, checked_params, needed_model, render
from worker.judges.ranking import distinct_texts, excerpt, ranked, softmax, unanimous

if TYPE_CHECKING:
    from collections.abc import Sequence

    from db.registry import JudgeEntry
    from worker.backends import LanguageModel
    from worker.judges import Answer, Question

EMPTY = -100.0  # the score of an empty answer: lower than any text's


class NLLParams(JudgeParams):
    """`params` of an `nll` judge. `sharpness` turns differences of nats per character into the
    confidence."""

    prompt: str = "nll-1"
    sharpness: float = 4.0


class NLL(Judge):
    """Ranks by likelihood per character."""

    def __init__(self, entry: JudgeEntry, language_model: LanguageModel | None) -> None:
        super().__init__(entry, language_model)
        self._model = needed_model(entry, language_model)
        self._params = checked_params(entry, NLLParams)

    def decide(self, question: Question) -> Decision:
        """Rank the answers. Raises what the language model raises."""
        texts = distinct_texts(question, self._params.max_answer_characters)
        prompt = render(
            self._params.prompt,
            capability=question.capability,
            instruction=question.instruction,
            request=question.request.strip()[: self._params.max_request_characters],
        )
        asked = list(texts) if len(texts) > 1 else []
        logprobs = dict(zip(asked, self._model.continuation_logprobs(prompt, asked), strict=True))
        per_character = {text: logprobs[text] / len(text) if asked else 0.0 for text in texts}
        scores = dict.fromkeys((answer.id for answer in question.answers), EMPTY)
        scores |= {answer.id: per_character[text] for text, same in texts.items() for answer in same}
        read = [
            {
                "text": text,
                "models": [answer.model for answer in same],
                "characters": len(text),
                "logprob": logprobs.get(text),
            }
            for text, same in texts.items()
        ]
        order = sorted(texts, key=lambda text: -per_character[text])
        chances = softmax([self._params.sharpness * per_character[text] for text in order] or [0.0])
        return Decision(
            ranking=ranked(question, scores),
            scores=scores,
            reason=_reason(order, texts, per_character) if asked else unanimous(question, texts),
            method="nll",
            model=self._model.identity,
            prompt_version=self._params.prompt,
            orders=({"prompt": prompt, "read": read},) if asked else (),
            confidence=chances[0] if texts else None,
        )


def _reason(order: list[str], texts: dict[str, list[Answer]], scores: dict[str, float]) -> str:
    best, second = order[0], order[1]
    return (
        f"{excerpt(best)} ({_names(texts[best])}) is the likeliest text: {-scores[best]:.2f} nats per character "
        f"against {-scores[second]:.2f} ({_names(texts[second])})."
    )


def _names(answers: Sequence[Answer]) -> str:
    return ", ".join(answer.model for answer in answers)
