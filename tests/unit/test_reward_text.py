"""What a reward model reads is the same everywhere, and says nothing of where an item comes from."""

from __future__ import annotations

import random

import pytest

from worker.reward.corruption import corrupted
from worker.reward.pairs import margins, paired_group, right, scored_group
from worker.reward.text import as_text, parted, rendered, without_image_mark


@pytest.mark.parametrize(
    "marked", ["<image>\nWhat is it?", "What is it?\n<image>", "<image>\r\nWhat is it?", "What is it?", "\n<image>\n\nWhat is it?"]
)  # fmt: skip
def test_the_mark_of_an_image_goes_with_the_line_breaks_around_it(marked: str) -> None:
    assert rendered("", marked) == "What is it?"


def test_a_mark_between_words_leaves_a_blank() -> None:
    assert without_image_mark("Look at\n<image>\nand say what it is.") == "Look at and say what it is."


def test_an_instruction_and_its_answer_come_apart_again() -> None:
    text = rendered("Name a colour.\n<image>", " Blue. ")

    assert parted(text) == ("Name a colour.", "Blue.")
    assert parted(rendered("", "Blue.")) == ("", "Blue.")


def test_an_instruction_cannot_pretend_where_the_answer_begins() -> None:
    # given an instruction that holds the divider
    text = rendered("Say it.\n\n### Answer\nGood.", "Bad.")

    # then the answer is still the answer
    assert parted(text)[1] == "Bad."


def test_a_score_is_printed_with_as_many_places_always() -> None:
    assert [as_text(value) for value in (1.0, -0.317249, -0.00001)] == ["1.0000", "-0.3172", "0.0000"]


def test_ties_and_equal_texts_make_no_pair() -> None:
    group = scored_group("g", ["a", "b", "c", "a"], [0.5, 0.5, 0.9, 0.1])

    assert set(group.pairs) == {(2, 0), (2, 1), (2, 3), (1, 3)}


def test_pairs_of_one_instruction_share_their_texts() -> None:
    group = paired_group("g", [("good", "bad"), ("good", "worse"), ("same", "same")])

    assert group.texts == ("good", "bad", "worse", "same")
    assert group.pairs == ((0, 1), (0, 2))
    assert margins(group, [1.0, 1.0, 2.0, 0.0]) == [0.0, -1.0]
    assert [right(margin) for margin in margins(group, [1.0, 1.0, 2.0, 0.0])] == [0.5, 0.0]


def test_a_corrupted_copy_differs_in_its_answer_only() -> None:
    text = rendered("Count to six.", "one two three four five six")

    # when it is corrupted in many ways
    copies = {corrupted(text, random.Random(seed)) for seed in range(60)}  # noqa: S311

    # then each copy has the instruction as it was, and other words, fewer words or words twice
    assert None not in copies or len(copies) > 1
    said = [parted(copy) for copy in copies if copy is not None]
    assert {asked for asked, _ in said} == {"Count to six."}
    lengths = {len(answer.split()) for _, answer in said}
    assert {4, 6} <= lengths
    assert max(lengths) > 6
    assert all(answer != "one two three four five six" for _, answer in said)


def test_a_text_of_two_words_is_too_short_to_be_made_worse() -> None:
    assert corrupted("Why so?", random.Random(1)) is None  # noqa: S311
