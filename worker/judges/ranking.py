"""What the judges that read probabilities share: equal texts are one, empty ones lose, ties go by rank."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from worker.judges import Answer, Question


def distinct_texts(question: Question, limit: int) -> dict[str, list[Answer]]:
    """The non-empty texts, cut to `limit` characters, each with the answers that gave it; in the order of
    rank."""
    texts: dict[str, list[Answer]] = {}
    for answer in by_rank(question.answers):
        text = answer.text.strip()[:limit].rstrip()
        if text:
            texts.setdefault(text, []).append(answer)
    return texts


def by_rank(answers: Sequence[Answer]) -> list[Answer]:
    """In the selectors' order; the id decides between equals, so that every judge agrees."""
    return sorted(answers, key=lambda answer: (answer.rank, answer.id))


def ranked(question: Question, scores: Mapping[UUID, float]) -> tuple[UUID, ...]:
    """Ids by score, best first, equal scores by rank."""
    return tuple(answer.id for answer in sorted(by_rank(question.answers), key=lambda answer: -scores[answer.id]))


def softmax(values: Sequence[float]) -> list[float]:
    """Positive numbers that add up to 1, the largest where the value is largest."""
    highest = max(values)
    powers = [math.exp(value - highest) for value in values]
    return [power / sum(powers) for power in powers]


def excerpt(text: str, limit: int = 60) -> str:
    """A text in quotes on one line, shortened for a sentence."""
    line = " ".join(text.split())
    return f"“{line if len(line) <= limit else line[: limit - 1] + '…'}”"


def unanimous(question: Question, texts: Mapping[str, Sequence[Answer]]) -> str:
    """Why no model need be asked where there is at most one text."""
    if not texts:
        return f"All {len(question.answers)} answers are empty; the selectors' first stands."
    ((text, same),) = texts.items()
    if len(same) == len(question.answers):
        return f"All {len(same)} answers say {excerpt(text)}."
    return f"{excerpt(text)} is the only text; {len(question.answers) - len(same)} answer(s) are empty."
