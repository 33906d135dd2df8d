"""Preference files: what is read as a group, and what a wrong line is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from db.errors import UsageError
from db.preferences import PreferredText
from scheduler.rewarding.reading import all_groups, read_source, stored_source, subject
from worker.reward.text import parted


def written(folder: Path, *rows: Any) -> Path:
    path = folder / "some.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


GROUP = {"id": "7", "image": "7.jpg", "questions": ["<image>\nWhy?", "How?", "When?"], "score": [0.5, 0.5, 0.9]}


def test_a_group_of_questions_has_the_pairs_of_different_scores(tmp_path: Path) -> None:
    source = read_source(written(tmp_path, GROUP))

    (group,) = source.groups
    assert group.texts == ("Why?", "How?", "When?")
    assert set(group.pairs) == {(2, 0), (2, 1)}
    assert source.described() | {"sha256": ""} == {
        "file": "some.jsonl", "sha256": "", "groups": 1, "texts": 3, "pairs": 2, "ties": 1,
    }  # fmt: skip
    assert subject(source.groups) == "questions"


def test_answers_are_read_with_their_instruction_and_lists_of_texts_as_one(tmp_path: Path) -> None:
    rows = (
        {"id": "a", "instruction": "Name two.", "answers": ["Red, blue.", "Cat."], "score": [1, 0]},
        {"id": "b", "questions": [["Who?", "Where?"], ["What?"]], "score": [0.2, 0.4]},
        {"id": "c", "instruction": "Say it.", "items": [{"text": "Yes.", "score": 0.1}, {"text": "No.", "score": 0.3}]},
    )

    groups = {group.id: group for group in read_source(written(tmp_path, *rows)).groups}

    assert parted(groups["a"].texts[0]) == ("Name two.", "Red, blue.")
    assert groups["b"].texts == ("Who?\nWhere?", "What?")
    assert parted(groups["c"].texts[1]) == ("Say it.", "No.")
    assert groups["c"].pairs == ((1, 0),)
    assert subject(list(groups.values())) == "questions and answers"


def test_pairs_of_one_instruction_and_input_are_one_group(tmp_path: Path) -> None:
    def pair(**more: Any) -> dict[str, Any]:
        return {
            "instruction": "Sum up.",
            "input": "A text.",
            "output_1": "Long.",
            "output_2": "Short.",
            "label": 1,
        } | more

    source = read_source(
        written(tmp_path, pair(), pair(output_2="Other.", label=2), pair(label=0), pair(input="Another text."))
    )

    assert [len(group.pairs) for group in source.groups] == [2, 1]
    assert source.ties == 1
    assert parted(source.groups[0].texts[0]) == ("Sum up.\n\nA text.", "Long.")


def test_two_files_about_one_image_are_one_group_that_no_split_divides(tmp_path: Path) -> None:
    source = read_source(written(tmp_path, GROUP))

    (group,) = all_groups([source, source])

    assert group.pairs == ((2, 0), (2, 1), (5, 3), (5, 4))
    assert group.scores == (0.5, 0.5, 0.9, 0.5, 0.5, 0.9)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"score": [0.5, 0.5]}, "line 2, score: 2 numbers for 3 questions"),
        ({"score": None}, "line 2, score: no numbers for 3 questions"),
        ({"score": [0.5, 0.5, 1.2]}, "line 2, score: 1.2 is not a number from 0 to 1"),
        ({"score": [0.5, 0.5, True]}, "line 2, score: True is not a number"),
        ({"questions": ["Why?", "", "When?"]}, "line 2, questions: '' is not a text"),
        ({"questions": "Why?"}, "line 2, questions: not a list"),
        ({"id": None, "image": None}, "line 2, id: None is not a name"),
    ],
)
def test_a_wrong_line_is_named_with_its_field(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    path = written(tmp_path, GROUP, GROUP | change)

    with pytest.raises(UsageError) as refused:
        read_source(path)

    assert str(path) in str(refused.value)
    assert sentence in str(refused.value)


def test_a_line_that_is_no_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="line 2, the line: not JSON"):
        read_source(written(tmp_path, GROUP, "{"))


def test_a_wrong_pair_is_named_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"some\.jsonl: Line 1: label = 3"):
        read_source(written(tmp_path, {"instruction": "x", "output_1": "a", "output_2": "b", "label": 3}))


def test_a_file_without_a_preference_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no pair of which one is better"):
        read_source(written(tmp_path, GROUP | {"score": [0.5, 0.5, 0.5]}))


def test_stored_preferences_are_groups_too() -> None:
    said = [
        PreferredText(group="t", request="Add.", better="3", worse=worse, better_model=None, worse_model=None)
        for worse in ("4", "5")
    ]

    source = stored_source("text-generation", said)

    (group,) = source.groups
    assert group.pairs == ((0, 1), (0, 2))
    assert source.sha256 == stored_source("text-generation", said[::-1]).sha256
    with pytest.raises(UsageError, match="bakeoff prefer"):
        stored_source("text-generation", [])
