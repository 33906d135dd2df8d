"""Numbers in what models say, and the composed requests that are judged by them."""

from __future__ import annotations

from pathlib import Path

import pytest

from db.plan import Plan
from scheduler.evaluation.pipeline.items import ANSWER, HEAR, OPERATIONS, READ, draw_items
from scheduler.evaluation.pipeline.numbers import in_words, number_of, numbers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("348 + 47 = 395", 395),
        ("The sum is 1,234.", 1234),
        ("three hundred and forty-eight", 348),
        ("we counted thirty two of them", 32),
        ("348 is the larger one", 348),
        ("one hundred and one", 101),
        ("a hundred and five", 105),
        ("Locker96,secondfloor", 96),
        ("three hundred forty eight", 348),
        ("395.0", 395),
        ("395.5", 395.5),
        ("weight6okg", 6),
        ("no number", None),
        ("", None),
        (None, None),
    ],
)
def test_the_last_number_counts_however_it_is_written(text: str | None, expected: float | None) -> None:
    assert number_of(text) == expected


def test_words_that_make_no_number_together_are_numbers_apart() -> None:
    assert numbers("four seven, twenty and eight, twenty one hundred") == [4, 7, 20, 8, 21, 100]


def test_every_number_in_words_is_read_back() -> None:
    assert all(number_of(in_words(number)) == number for number in range(1000) if number != 1)


def test_a_seed_gives_the_same_items_and_another_one_others(tmp_path: Path) -> None:
    # given / when
    first, again, other = (draw_items(12, seed, tmp_path) for seed in (3, 3, 4))
    # then
    assert first == again
    assert [item.shown for item in first] != [item.shown for item in other]
    assert {item.operation for item in first} == set(OPERATIONS)


def test_every_answer_follows_from_the_two_numbers(tmp_path: Path) -> None:
    for item in draw_items(60, 1, tmp_path):
        assert number_of(item.caption) == item.shown
        assert number_of(item.utterance) == item.said
        match item.operation:
            case "add":
                assert item.answer == item.shown + item.said
            case "compare":
                assert item.answer == max(item.shown, item.said)
                assert item.shown != item.said
            case "look up":
                places = [line for line in item.request.splitlines() if f"row {item.shown}, seat {item.said}:" in line]
                assert [number_of(place) for place in places] == [item.answer]


def test_an_items_plan_is_a_plan_whose_last_step_reads_both(tmp_path: Path) -> None:
    # given / when
    (item,) = draw_items(1, 1, tmp_path)
    plan = Plan.model_validate({"steps": item.subtasks})
    # then
    assert plan.edges == {(READ, ANSWER), (HEAR, ANSWER)}


def test_the_last_step_alone_says_the_same_words(tmp_path: Path) -> None:
    # given
    (item,) = draw_items(1, 1, tmp_path)
    # when
    whole, alone = item.subtasks[-1]["inputs"], item.answer_step("291 units", "thirty two")["inputs"]
    # then
    words = {READ: "291 units", HEAR: "thirty two"}
    assert [{"text": words[part["output"]]} if "output" in part else part for part in whole] == alone


def test_nothing_read_leaves_its_words_out(tmp_path: Path) -> None:
    (item,) = draw_items(1, 1, tmp_path)

    inputs = item.answer_step("", "thirty two")["inputs"]

    assert len(inputs) == 4
    assert {"text": ""} not in inputs
