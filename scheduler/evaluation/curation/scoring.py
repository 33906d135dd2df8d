"""Scores by which rows are curated here and now, without a job."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scheduler.evaluation.curation.rows import Row
    from worker.backends import LanguageModel


def instruction_following_difficulty(model: LanguageModel, row: Row) -> float | None:
    """IFD: loss(answer | question) / loss(answer), over a row's turns; None from 1 on.

    M. Li et al., *From Quantity to Quality* (2024): the higher, the less the question helps with the answer; from 1 on
    it is a hindrance, and the two do not belong together. Both losses are over the same tokens, so log-probabilities
    are divided. Without a question the answer stands after an empty turn of the chat.
    """
    with_question = without = 0.0
    for turn in row.turns:
        with_question += model.continuation_logprobs(turn.question, [turn.answer])[0]
        without += model.continuation_logprobs("", [turn.answer])[0]
    ratio = with_question / without if without else 1.0
    return ratio if ratio < 1 else None
