"""Which answer would a language model most likely have given? Probabilities are read, no text is parsed.

The score of an answer is log p(answer, end of turn | task) in nats per letter or digit: at most 0, higher is better.
Fluent, plausible text is likely text, so the method fits recognition (OCR, speech), where every candidate tries to say
the same; it knows nothing of the picture or the recording itself. What is said twice, or repeats the request, is the
likeliest text of all: copies are not read. Without them, and without what is aimed at a judge, SmolLM2 135M gets .58 of
72 pairs of PandaLM's right, .47 with them; of 43 of LLMBar's .58 and .61.

What speaks to the judge in words that no list knows is likely text as well, and raises the mean. So, `steady`, an
answer of several lines counts as much as the least likely of three: all of it, all without its first line, all without
its last. A line put before or after an answer then does not lift it above what all of it scores without that line. It
costs nothing in accuracy: .565 of 324 untied pairs of PandaLM's that nothing was reported on, .549 without.

Per letter, because blanks and dots are cheap: per character, noise read as `51 69:` beats `9ar69`. On the demo's
pictures (36 of seeds 1, 2, 3) SmolLM2 135M brings the mean character error rate to .060, .073, .116 counted per letter
and .105, .134, .116 per character, where the best single engine has .123, .190, .140 and an oracle .027, .046, .043.
Every wrong choice is a captcha: random letters are equally unlikely however they are misread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from worker.judges import Decision, Judge
from worker.judges.prompting import JudgeParams, checked_prompt, needed_model, render
from worker.judges.ranking import excerpt, ranked, softmax, unanimous
from worker.judges.reading import read_answers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from db.registry import JudgeEntry
    from worker.backends import LanguageModel
    from worker.judges import Answer, Question

WORST = -50.0  # no text scores below it: three hundred dots around one letter would
EMPTY = -100.0  # the score of an empty answer


class NLLParams(JudgeParams):
    """`params` of an `nll` judge.

    `steady`: whether a line at an answer's end may make it no likelier; it costs up to three readings of an answer.
    A larger `sharpness` makes the confidence follow smaller differences of score; at 4 it was .93 on average where 97 %
    of 100 decisions were right (Brier score .05).
    """

    prompt: str = "nll-1"
    steady: bool = True
    per: Literal["letter", "character"] = "letter"
    sharpness: float = Field(4.0, gt=0)


class NLL(Judge):
    """Ranks by likelihood per letter."""

    def __init__(self, entry: JudgeEntry, language_model: LanguageModel | None) -> None:
        super().__init__(entry, language_model)
        self._model = needed_model(entry, language_model)
        self._params = checked_prompt(entry, NLLParams)

    def decide(self, question: Question) -> Decision:
        """Rank the answers. Raises what the language model raises."""
        reading = read_answers(question, self._params.max_answer_characters, self._params.hostile, copies=False)
        texts = reading.texts
        prompt = render(
            self._params.prompt,
            capability=question.capability,
            instruction=question.instruction,
            request=question.request.strip()[: self._params.max_request_characters],
        )
        logprobs: dict[str, float] = {}
        versions = {text: self._versions(text) for text in texts}
        if len(texts) > 1:  # one text alone needs nobody's opinion
            asked = list(dict.fromkeys(version for text in texts for version in versions[text]))
            logprobs = dict(zip(asked, self._model.continuation_logprobs(prompt, asked), strict=True))
        likely = {text: min(self._likely(version, logprobs) for version in versions[text]) for text in texts}
        scores = dict.fromkeys((answer.id for answer in question.answers), EMPTY)
        scores |= {answer.id: likely[text] for text, same in texts.items() for answer in same}
        read = [
            {"text": text, "models": _names(same), "length": self._length(text), "logprob": logprobs.get(text)}
            for text, same in texts.items()
        ]
        chances = softmax([self._params.sharpness * value for value in likely.values()]) if texts else []
        decision = Decision(
            ranking=ranked(question, scores),
            scores=scores,
            reason=self._reason(texts, likely) if logprobs else unanimous(question, texts),
            method="nll",
            model=self._model.identity,
            prompt_version=self._params.prompt,
            orders=({"prompt": prompt, "read": read},) if logprobs else (),
            confidence=max(chances, default=None),
        )
        return reading.noted(decision)

    def _versions(self, text: str) -> list[str]:
        lines = [line for line in text.splitlines() if line.strip()]
        if not self._params.steady or len(lines) < 2:
            return [text]
        return [text, *("\n".join(kept).strip() for kept in (lines[1:], lines[:-1]))]

    def _likely(self, text: str, logprobs: Mapping[str, float]) -> float:
        return max(WORST, logprobs.get(text, 0.0) / self._length(text))

    def _length(self, text: str) -> int:
        if self._params.per == "character":
            return len(text)
        return max(1, sum(character.isalnum() for character in text))

    def _reason(self, texts: Mapping[str, list[Answer]], likely: Mapping[str, float]) -> str:
        best, second = sorted(texts, key=lambda text: -likely[text])[:2]
        return (
            f"{excerpt(best)} ({', '.join(_names(texts[best]))}) reads most like fluent text: {-likely[best]:.2f} nats "
            f"per {self._params.per} against {-likely[second]:.2f} ({', '.join(_names(texts[second]))})."
        )


def _names(answers: list[Answer]) -> list[str]:
    return [answer.model for answer in answers]
