"""The judge that asks nobody: votes over closed answers, the medoid of open ones."""

from __future__ import annotations

import math
from typing import Any

import pytest

from db.errors import RegistryError
from db.registry import JudgeEntry
from tests.unit.test_judges import order, question
from worker.judges import Decision, create_judge


def decide(*texts: str, **params: Any) -> Decision:
    entry = JudgeEntry(name="fair", method="consensus", params=params)
    return create_judge(entry, None).decide(question(*texts))


def test_a_majority_outvotes_the_selectors_first() -> None:
    # given three solutions written differently, two of which come to 13
    decision = decide("5 + 7 = 12\nA: 12", "6 + 7 = 13.\nA: 13", "It is 13.0\n#### 13.0")
    # then the better ranked of the two wins, and the agreement is the confidence
    assert order(decision) == [1, 2, 0]
    assert decision.confidence == pytest.approx(2 / 3)
    assert "2 of 3" in decision.reason
    assert decision.orders[0]["votes"] == {"12": 1, "13": 2}


def test_without_a_majority_rank_decides() -> None:
    assert order(decide("1", "2", "3")) == [0, 1, 2]


def test_open_answers_are_judged_by_their_medoid() -> None:
    # given two captions that say nearly the same and a stray one at the best rank
    decision = decide(
        "a red bus drives along an empty street", "a black cat sits on a laptop", "a black cat lies on a laptop"
    )
    assert order(decision) == [1, 2, 0]
    assert decision.confidence == max(decision.scores.values())
    assert decision.orders[0]["matrix"][1][2] == pytest.approx(6 / 7)


def test_equal_open_answers_support_each_other() -> None:
    # given the same text twice beside two texts that resemble each other
    texts = "one two three four five six", "nine ten eleven six seven", "one two three four five six", "ten nine eleven"
    decision = decide(*texts, answers="open")
    assert order(decision)[:2] == [0, 2]
    assert decision.scores[decision.ranking[0]] == decision.scores[decision.ranking[1]]


def test_the_measure_is_a_parameter() -> None:
    # given readings of a picture that share no whole word but nearly all characters
    texts = "zzzzzzz", "1nvoice", "invoice"
    assert order(decide(*texts, answers="open", similarity="characters"))[-1] == 0
    assert order(decide(*texts, answers="open", similarity="words"))[-1] != 0


def test_how_answers_are_compared_can_be_forced() -> None:
    texts = (
        "there are 4 cats on the old mat",
        "there are 4 dogs under the green table",
        "there are 5 cats on the old mat",
    )
    assert order(decide(*texts, answers="closed"))[0] == 0
    assert "of 3 answers say “4”" in decide(*texts, answers="closed").reason
    assert "most like the others" in decide(*texts).reason


def test_empty_answers_neither_vote_nor_win() -> None:
    decision = decide("", "  ", "8")
    assert order(decision) == [2, 0, 1]
    assert all(math.isfinite(score) for score in decision.scores.values())
    assert order(decide("", "")) == [0, 1]
    assert decide("", "").confidence is None


def test_an_unknown_measure_is_refused() -> None:
    with pytest.raises(RegistryError, match=r"judges\.fair\.params\.similarity"):
        decide("a", "b", similarity="smell")
