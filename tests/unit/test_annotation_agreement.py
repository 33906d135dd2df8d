"""Krippendorff's alpha against the worked examples of those who published it."""

from __future__ import annotations

import random

import pytest

from scheduler.annotating.agreement import agreement, interval_alpha

#: K. Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), sections C and E: four observers, twelve units.
FOUR_OBSERVERS = """
1 2 3 3 2 1 4 1 2 . . .
1 2 3 3 2 2 4 1 2 5 . 3
. 3 3 3 2 3 4 2 2 5 1 .
1 2 3 3 2 4 4 1 2 5 1 .
"""
#: The example of Wikipedia's article: three coders, fifteen units.
THREE_CODERS = """
. . . . . 3 4 1 2 1 1 3 3 . 3
1 . 2 1 3 3 4 3 . . . . . . .
. . 2 1 3 4 4 . 2 1 1 3 3 . 4
"""


def units_of(table: str) -> list[list[float]]:
    rows = [line.split() for line in table.split("\n") if line]
    return [[float(value) for value in column if value != "."] for column in zip(*rows, strict=True)]


@pytest.mark.parametrize(("table", "alpha"), [(FOUR_OBSERVERS, 0.849), (THREE_CODERS, 0.811)])
def test_published_examples(table: str, alpha: float) -> None:
    assert interval_alpha(units_of(table)) == pytest.approx(alpha, abs=0.0005)


def test_one_is_agreement_and_opposites_are_below_chance() -> None:
    assert interval_alpha([[0.2, 0.2], [0.9, 0.9]]) == pytest.approx(1)
    opposites = interval_alpha([[0.0, 1.0], [1.0, 0.0]])
    assert opposites is not None
    assert opposites < 0


@pytest.mark.parametrize("units", [[], [[0.5], [0.7]], [[0.3, 0.3], [0.3, 0.3]], [[0.1, 0.1]]])
def test_where_nothing_can_be_said_nothing_is(units: list[list[float]]) -> None:
    assert interval_alpha(units) is None


def test_units_of_one_observer_change_nothing() -> None:
    units = units_of(FOUR_OBSERVERS)

    assert interval_alpha([*units, [9.0], []]) == interval_alpha(units)


def noisy_groups(count: int, noise: float) -> dict[str, list[list[float]]]:
    dice = random.Random(1)  # noqa: S311 - a fixed set of scores
    groups = {}
    for number in range(count):
        truths = [dice.random() for _ in range(5)]
        groups[str(number)] = [[truth + dice.gauss(0, noise), truth + dice.gauss(0, noise)] for truth in truths]
    return groups


def test_the_interval_holds_alpha_and_narrows_with_more_groups() -> None:
    few, many = agreement(noisy_groups(10, 0.1)), agreement(noisy_groups(160, 0.1))

    widths = []
    for found in (few, many):
        assert found.alpha is not None
        assert found.interval is not None
        low, high = found.interval
        assert low < found.alpha < high
        widths.append(high - low)
    assert (few.units, many.units) == (50, 800)
    assert widths[1] < widths[0] / 2


def test_the_same_scores_give_the_same_interval() -> None:
    assert agreement(noisy_groups(12, 0.2)) == agreement(noisy_groups(12, 0.2))


def test_few_groups_have_no_interval() -> None:
    found = agreement(noisy_groups(4, 0.1))

    assert found.alpha is not None
    assert found.interval is None
