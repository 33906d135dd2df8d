"""Ask a language model about two answers at a time, in both orders.

A win needs both orders; where they disagree it is a tie. A tie counts half, or by its `margin` the chance that the mean
log-odds of both orders stand for: then what the model thinks of the places cancels out, and what is left of its opinion
of the texts decides. Up to four texts all meet all: the score is a text's share of its comparisons. More texts make one
bubble pass from the last rank to the first, which moves the best one to the front for one comparison less than there
are texts: the score is then the place, and only the first place was fought for.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from worker.judges import Decision, Judge
from worker.judges.fitting import chance
from worker.judges.prompting import JudgeParams, checked_prompt, escape_tags, needed_model, render
from worker.judges.ranking import by_rank, excerpt, unanimous
from worker.judges.reading import Reading, read_answers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from db.registry import JudgeEntry
    from worker.backends import LanguageModel
    from worker.judges import Question

Ties = Literal["rank", "margin"]
LETTERS = ("A", "B")
EMPTY = -1.0  # the score of an empty answer, which the model never sees


class PairwiseParams(JudgeParams):
    """`params` of an `llm_pairwise` judge.

    `ties`: what decides where the orders disagree: the selectors' `rank`, or the `margin`, the mean log-odds of both.
    """

    prompt: str = "pairwise-1"
    ties: Ties = "rank"
    round_robin: int = Field(4, ge=2, le=16)  # texts that all meet all; more make a bubble pass


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two texts: the log-odds for the first one where it stood first, and where it stood second."""

    first: str
    second: str
    standing_first: float
    standing_second: float
    prompts: tuple[str, str]

    @property
    def outcome(self) -> float:
        """1 where the first text wins in both orders, 0 where it loses in both, else a half."""
        return (float(self.standing_first > 0) + float(self.standing_second > 0)) / 2

    @property
    def margin(self) -> float:
        """Mean log-odds for the first text; what the model thinks of the places cancels out."""
        return (self.standing_first + self.standing_second) / 2

    def counted(self, ties: Ties) -> float:
        """What the first text gets of it, 0 to 1; a tie that goes by the margin is never a whole win."""
        return chance(self.margin) if ties == "margin" and self.outcome == 0.5 else self.outcome


class Pairwise(Judge):
    """Ranks by comparisons of two."""

    def __init__(self, entry: JudgeEntry, language_model: LanguageModel | None) -> None:
        super().__init__(entry, language_model)
        self._model = needed_model(entry, language_model)
        self._params = checked_prompt(entry, PairwiseParams)

    def decide(self, question: Question) -> Decision:
        """Rank the answers. Raises what the language model raises."""
        reading = read_answers(question, self._params.max_answer_characters, self._params.hostile)
        texts = reading.texts
        if len(texts) <= self._params.round_robin:
            order, compared = self._all_meet_all(question, reading)
            points = {text: self._share(text, compared) for text in order}
        else:
            order, compared = self._bubble_pass(question, reading)
            points = {text: 1 - place / len(order) for place, text in enumerate(order)}
        scores = dict.fromkeys((answer.id for answer in question.answers), EMPTY)
        scores |= {answer.id: points[text] for text, same in texts.items() for answer in same}
        best_first = [answer.id for text in order for answer in texts[text]]
        names = {text: [answer.model for answer in same] for text, same in texts.items()}
        decision = Decision(
            ranking=(*best_first, *(answer.id for answer in by_rank(question.answers) if answer.id not in best_first)),
            scores=scores,
            reason=self._reason(order[0], names[order[0]], compared) if compared else unanimous(question, texts),
            method="llm_pairwise",
            model=self._model.identity,
            prompt_version=self._params.prompt,
            orders=tuple(self._kept(comparison, names) for comparison in compared),
            confidence=self._share(order[0], compared) if order else None,
        )
        return reading.noted(decision)

    def _compare(self, question: Question, reading: Reading, first: str, second: str) -> Comparison:
        prompts = tuple(self._prompt(question, reading, order) for order in ((first, second), (second, first)))
        rows = self._model.option_logprobs(prompts, LETTERS)
        return Comparison(
            first=first,
            second=second,
            standing_first=rows[0][0] - rows[0][1],
            standing_second=rows[1][1] - rows[1][0],
            prompts=(prompts[0], prompts[1]),
        )

    def _prompt(self, question: Question, reading: Reading, order: Sequence[str]) -> str:
        return render(
            self._params.prompt,
            capability=question.capability,
            instruction=question.instruction,
            request=escape_tags(question.request.strip()[: self._params.max_request_characters]),
            answers=[
                {"letter": letter, "text": reading.shown(text)} for letter, text in zip(LETTERS, order, strict=True)
            ],
        )

    def _all_meet_all(self, question: Question, reading: Reading) -> tuple[list[str], list[Comparison]]:
        """The texts, best first, and every comparison of two of them."""
        texts = list(reading.texts)
        compared = [self._compare(question, reading, *pair) for pair in combinations(texts, 2)]
        # A stable sort: equals keep their rank.
        return sorted(texts, key=lambda text: self._share(text, compared), reverse=True), compared

    def _share(self, text: str, compared: Sequence[Comparison]) -> float:
        """What a text got of its comparisons, on average; 1 where it met nobody."""
        own = [
            counted if text == one.first else 1 - counted
            for one, counted in ((one, one.counted(self._params.ties)) for one in compared)
            if text in {one.first, one.second}
        ]
        return sum(own) / len(own) if own else 1.0

    def _bubble_pass(self, question: Question, reading: Reading) -> tuple[list[str], list[Comparison]]:
        """The texts after one pass from the last to the first, and its comparisons."""
        texts = list(reading.texts)
        compared: list[Comparison] = []
        for place in range(len(texts) - 1, 0, -1):
            ahead, behind = texts[place - 1], texts[place]
            comparison = self._compare(question, reading, ahead, behind)
            compared.append(comparison)
            if comparison.counted(self._params.ties) < 0.5:
                texts[place - 1], texts[place] = behind, ahead
        return texts, compared

    def _reason(self, best: str, models: Sequence[str], compared: Sequence[Comparison]) -> str:
        own = [_outcome(best, comparison) for comparison in compared if best in {comparison.first, comparison.second}]
        return (
            f"{excerpt(best)} ({', '.join(models)}) won {own.count(1.0)} of {len(own)} comparisons in both orders, "
            f"{own.count(0.5)} tied; equals stand by {self._params.ties}."
        )

    def _kept(self, comparison: Comparison, names: dict[str, list[str]]) -> dict[str, Any]:
        read = [
            {
                "models": names[comparison.first],
                "outcome": comparison.outcome,
                "log_odds": [comparison.standing_first, comparison.standing_second],
            },
            {"models": names[comparison.second], "outcome": 1 - comparison.outcome},
        ]
        return {
            "prompt": comparison.prompts[0],
            "swapped": comparison.prompts[1],
            "ties": self._params.ties,
            "read": read,
        }


def _outcome(text: str, comparison: Comparison) -> float:
    return comparison.outcome if text == comparison.first else 1 - comparison.outcome
