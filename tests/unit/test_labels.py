"""Preferences read from JSON lines, and the ids that they get."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from db.errors import InvalidRequest
from db.prefer import NewPreference, Side
from scheduler.labels import read_labels

HERE = {"capability": "text-generation", "annotator": None, "origin": "import"}
SAID = {"input": "Say hello.", "better": {"text": "hello", "model": "a"}, "worse": {"text": "no", "model": "b"}}
PAIR = {"instruction": "Translate.", "input": "chat", "output_1": "cat", "output_2": "dog", "label": 1}


def read(*rows: Any, **defaults: Any) -> list[NewPreference]:
    return read_labels([json.dumps(row) for row in rows], HERE | defaults).preferences


def test_a_preference_says_what_is_better_for_which_input() -> None:
    (found,) = read({**SAID, "capability": "image-to-text/ocr", "annotator": "ann", "origin": "human", "group": "g"})

    assert found == NewPreference(
        capability="image-to-text/ocr", text="Say hello.", better=Side(text="hello", model="a"),
        worse=Side(text="no", model="b"), origin="human", annotator="ann", group="g",
    )  # fmt: skip


def test_what_a_line_leaves_out_is_filled_in() -> None:
    (found,) = read({**SAID, "better": {"text": "hello"}}, annotator="ann", origin="judge")

    assert (found.capability, found.annotator, found.origin, found.better.model) == (
        "text-generation", "ann", "judge", None,
    )  # fmt: skip


def test_files_make_the_group_of_an_input_and_else_its_text_does() -> None:
    file = {"sha256": "ab" * 32, "name": "x.png"}

    one, other, words, again = read(
        {**SAID, "input": {"text": "Read.", "attachments": [file]}},
        {**SAID, "input": {"text": "Read it.", "attachments": [{**file, "name": "y.png"}]}},
        SAID,
        {**SAID, "better": {"text": "hi"}},
    )

    assert one.group_key == other.group_key == f"file:{'ab' * 32}"
    assert words.group_key == again.group_key != one.group_key


@pytest.mark.parametrize(("label", "better"), [(1, "cat"), (2, "dog")])
def test_a_pair_says_by_its_label_which_output_is_better(label: int, better: str) -> None:
    (found,) = read({**PAIR, "label": label, "model_1": "m", "system_2": "s", "scenario": "passed over"})

    assert (found.text, found.better.text) == ("Translate.\n\nchat", better)
    assert {found.better.model, found.worse.model} == {"m", "s"}


def test_ties_are_counted_and_left_out() -> None:
    rows = [{**PAIR, "label": 0}, {**PAIR, "output_2": "cat"}, PAIR]

    labels = read_labels(["", *map(json.dumps, rows)], HERE)

    assert (len(labels.preferences), labels.ties) == (1, 2)


@pytest.mark.parametrize(
    ("human", "better"), [([2, 2, 1], "dog"), ([1, 1, 0], "cat"), ([0, 1, 2], None), ([0, 0, 1], None)]
)
def test_several_people_say_what_most_of_them_say(human: list[int], better: str | None) -> None:
    unlabelled = {key: value for key, value in PAIR.items() if key != "label"}

    found = read({**unlabelled, "human": human})

    assert [one.better.text for one in found] == ([better] if better else [])


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ([1], "is not an object"),
        ({**SAID, "beter": 1}, "'beter' is not a field of a preference"),
        ({**SAID, "input": ""}, "input says nothing"),
        ({**SAID, "input": 3}, "input must be a text"),
        ({**SAID, "input": {"attachments": [{"sha256": "../x"}]}}, "input.attachments must be a list"),
        ({**SAID, "worse": {"model": "b"}}, "worse must be"),
        ({**SAID, "worse": SAID["better"] | {"model": "b"}}, "both outputs are the same"),
        ({**SAID, "better": {"text": "x", "model": 3}}, "better.model must be a text"),
        ({**SAID, "capability": "No Such"}, "capability = 'No Such' is none"),
        ({**SAID, "origin": "oracle"}, "origin = 'oracle' must be one of: human, judge, import"),
        ({**SAID, "origin": ["human"]}, "origin = ['human'] must be one of"),
        ({**PAIR, "label": 3}, "label = 3 must be 1 or 2"),
        ({**PAIR, "label": True}, "label = True must be 1 or 2"),
        ({**PAIR, "label": None}, "no label: 1 or 2 for the better output"),
        ({**PAIR, "label": None, "human": [1, "2"]}, "human = '2' must be 1 or 2"),
        ({**PAIR, "instruction": ""}, "instruction must be a text that says something"),
        ({"output_1": "x", "instruction": "y", "label": 1}, "output_2 must be a text"),
    ],
)  # fmt: skip
def test_a_bad_line_is_refused_by_its_number(row: Any, sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^Line 2: ") as refused:
        read(SAID, row)

    assert sentence in str(refused.value)


def test_every_reason_is_given_with_its_lines_and_of_many_the_first_ten() -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_labels(["{", *[json.dumps(SAID)] * 12, *(json.dumps(SAID | {key: 1}) for key in "abcdefghij")], {})

    lines = str(refused.value).splitlines()
    assert lines[0].startswith("Line 1: not JSON")
    assert lines[1] == (
        "Lines 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 2 more: no capability; give the line one, or all lines with --capability."
    )
    assert (len(lines), lines[-1]) == (11, "and 2 more.")


def test_what_postgres_cannot_store_is_taken_out() -> None:
    (found,) = read({**SAID, "better": {"text": "a\x00b\ud800"}})

    assert found.better.text == "ab?"


def test_about_a_subtask_an_annotator_has_one_opinion_of_two_models() -> None:
    a, b = Side(text="x", model="a"), Side(text="y", model="b")
    said = NewPreference(
        capability="text-generation", text="?", better=a, worse=b, origin="human", annotator="ann", subtask_id=uuid4()
    )

    assert said.id == replace(said, better=b, worse=a).id
    assert said.id.version == 8
    assert len({said.id, replace(said, annotator="bob").id, replace(said, subtask_id=uuid4()).id}) == 3


def test_elsewhere_what_says_something_else_is_another_preference() -> None:
    (said,) = read(SAID)
    others = [
        replace(said, better=said.worse, worse=said.better),
        replace(said, annotator="bob"),
        replace(said, text="Say bye."),
        replace(said, group="g"),
        replace(said, key="7"),
        replace(said, capability="text-generation/poem"),
    ]

    assert len({said.id, *(other.id for other in others)}) == 7
    assert read(SAID)[0].id == said.id
