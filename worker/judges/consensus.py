"""The answer that the others support, found without a model.

Closed answers (a number, a name, a choice) vote: texts that come to the same final answer stand together. Open ones
have no equal: the medoid wins, the text that is most like all others. Either way the agreement is the confidence: the
winner's share of the votes, or its mean similarity to the others. A majority can be wrong together, and a weak one
often is: this judge is good for closed answers and hardly better than chance for open prose.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from worker.judges import Decision, Judge
from worker.judges.ranking import by_rank, excerpt, ranked, unanimous
from worker.judges.reading import Hostile, read_answers
from worker.judges.similarity import Similarity, final_answer, marked_answer, matrix, needed_encoder
from worker.params import Params, checked_params

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from db.registry import JudgeEntry
    from worker.backends import Backend, LanguageModel
    from worker.judges import Answer, Question

EMPTY = -1.0  # the score of an empty answer, which neither votes nor counts


class ConsensusParams(Params):
    """`params` of a `consensus` judge.

    `answers`: whether they are `closed` (vote) or `open` (medoid); with `auto` they are closed where more than half of
    them come to a final answer that is written short or marked ("####", "answer is").
    """

    answers: Literal["auto", "closed", "open"] = "auto"
    similarity: Similarity = "words"  # of open answers
    max_answer_characters: int = Field(20_000, ge=1)
    hostile: Hostile = "remove"


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far each text is supported, and what a verdict keeps of it."""

    scores: dict[str, float]
    reason: str
    kept: dict[str, Any]


class Consensus(Judge):
    """Ranks by agreement."""

    embeds = True

    def __init__(
        self, entry: JudgeEntry, language_model: LanguageModel | None, embedder: Backend | None = None
    ) -> None:
        super().__init__(entry, language_model)
        self._params = checked_params(entry, ConsensusParams)
        self._encoder = needed_encoder(entry, self._params.similarity, embedder)

    def decide(self, question: Question) -> Decision:
        """Rank the answers by votes or by similarity; equal ones by rank."""
        reading = read_answers(question, self._params.max_answer_characters, self._params.hostile)
        texts = reading.texts
        found = Agreement(scores=dict.fromkeys(texts, 1.0), reason="", kept={})
        if len(texts) > 1:
            found = self._vote(texts) if self._are_closed(texts) else self._medoid(texts)
        scores = dict.fromkeys((answer.id for answer in question.answers), EMPTY)
        scores |= {answer.id: found.scores[text] for text, same in texts.items() for answer in same}
        decision = Decision(
            ranking=ranked(question, scores),
            scores=scores,
            reason=found.reason or unanimous(question, texts),
            method="consensus",
            orders=(found.kept,) if found.kept else (),
            confidence=max(found.scores.values(), default=None),
        )
        return reading.noted(decision)

    def _are_closed(self, texts: Collection[str]) -> bool:
        if self._params.answers != "auto":
            return self._params.answers == "closed"
        return 2 * sum(marked_answer(text) is not None for text in texts) > len(texts)

    def _vote(self, texts: Mapping[str, list[Answer]]) -> Agreement:
        """Share of the votes for each text's final answer; a text without one stands alone."""
        stands = {text: final_answer(text) or text for text in texts}
        votes: dict[str, int] = {}
        for text, same in texts.items():
            votes[stands[text]] = votes.get(stands[text], 0) + len(same)
        shares = {text: votes[stands[text]] / sum(votes.values()) for text in texts}
        best = max(texts, key=lambda text: shares[text])
        said, of = stands[best], sum(votes.values())
        return Agreement(
            scores=shares,
            reason=f"{votes[said]} of {of} answers say {excerpt(said)}.",
            kept={"votes": votes, "read": _read(texts, shares, stands)},
        )

    def _medoid(self, texts: Mapping[str, list[Answer]]) -> Agreement:
        """Mean similarity of each text to the other answers, equal ones counted as often as they were given."""
        near = matrix(list(texts), self._params.similarity, self._encoder)
        given = [len(same) for same in texts.values()]
        means: dict[str, float] = {}
        for row, text in zip(near, texts, strict=True):
            others = sum(value * count for value, count in zip(row, given, strict=True)) - 1  # itself
            means[text] = others / (sum(given) - 1)
        best = max(texts, key=lambda text: means[text])
        models = ", ".join(answer.model for answer in texts[best])
        return Agreement(
            scores=means,
            reason=f"{excerpt(best)} ({models}) is most like the others: mean similarity {means[best]:.2f}.",
            kept={"similarity": self._params.similarity, "matrix": near, "read": _read(texts, means, {})},
        )


def _read(
    texts: Mapping[str, list[Answer]], scores: Mapping[str, float], stands: Mapping[str, str]
) -> list[dict[str, Any]]:
    return [
        {"models": [answer.model for answer in by_rank(same)], "score": scores[text]}
        | ({"answer": stands[text]} if stands else {})
        for text, same in texts.items()
    ]
