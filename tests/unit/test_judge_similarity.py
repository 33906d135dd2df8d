"""How alike texts are, and what answer they come to."""

from __future__ import annotations

import random

import pytest
from rapidfuzz.distance import Levenshtein

from worker.judges.similarity import edit_distance, final_answer, marked_answer, matrix


def test_edit_distance_agrees_with_another_implementation() -> None:
    # given random texts of every length up to a few machine words
    dice = random.Random(5)  # noqa: S311
    for _ in range(400):
        first, second = ("".join(dice.choices("abcd ", k=dice.randrange(140))) for _ in range(2))
        # then both implementations count the same edits
        assert edit_distance(first, second) == Levenshtein.distance(first, second)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("She has 15 - 7 = 8, then 8 + 5 = 13.\nA: 13", "13"),
        ("8 + 5 = <<8+5=13>>13 in total.\n#### 13", "13"),
        ("So the answer is $1,234.50.", "1234.5"),
        ("The total is 12 + 1 = 13 stickers in the end.", "13"),
        ("Answer: 13 stickers, because 7 were lost", "13"),
        ("13.0", "13"),
        ("The answer is (B)", "b"),
        ("No.", "no"),
        ("It cannot be said from what is given here", None),
        ("", None),
    ],
)
def test_a_final_answer_is_found_and_normalised(text: str, answer: str | None) -> None:
    assert final_answer(text) == answer


def test_a_number_in_prose_is_no_marked_answer() -> None:
    assert marked_answer("In 1990 there were 12 cats on the mat in the hall") is None


@pytest.mark.parametrize(
    ("similarity", "first", "second", "value"),
    [
        ("words", "A black cat sits.", "a black dog sits", 0.75),
        ("characters", "abcd", "abxd", 0.75),
        ("answer", "So 6 + 7 = 13 cats are there", "#### 13", 1.0),
        ("answer", "So 6 + 7 = 14 cats are there", "#### 13", 0.0),
    ],
)
def test_a_matrix_is_symmetric(similarity: str, first: str, second: str, value: float) -> None:
    rows = matrix([first, second], similarity)  # type: ignore[arg-type]
    assert rows == [[1.0, value], [value, 1.0]]
