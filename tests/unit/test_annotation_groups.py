"""What is loaded for annotation, by which criteria, and what is written in the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from db.annotations import Annotated, NewGroup
from db.errors import InvalidRequest
from scheduler.annotating.criteria import read_criteria
from scheduler.annotating.exporting import exported
from scheduler.annotating.groups import read_groups, twice
from scheduler.cli.annotate import load_command

ROW = {"id": "000000137730", "image": "000000137730.jpg", "questions": ["<image>\nWhy?", "What?"], "score": [0.5, 0.6]}


def read(*rows: Any) -> list[NewGroup]:
    return read_groups(json.dumps(row) for row in rows)


def test_the_papers_format_is_read_without_other_peoples_scores() -> None:
    (found,) = read(ROW)

    assert found == NewGroup(
        key="000000137730", field="questions", input={"image": "000000137730.jpg"},
        items=[{"said": "<image>\nWhy?", "models": []}, {"said": "What?", "models": []}],
    )  # fmt: skip


def test_answers_have_an_instruction_and_an_item_may_be_several_questions() -> None:
    answers, lists = read(
        {"id": 1, "instruction": "Say it.", "answers": ["a", "b"], "captions": ["a dog", "a lawn"]},
        {"id": 2, "image": "x.jpg", "questions": [["Why?", "How?"], ["What?"]]},
    )

    assert (answers.key, answers.field) == ("1", "answers")
    assert answers.input == {"text": "Say it.", "captions": ["a dog", "a lawn"]}
    assert [item["said"] for item in lists.items] == [["Why?", "How?"], ["What?"]]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("nonsense", 'Line 1: "nonsense" is not an object'),
        ({"id": "x"}, "neither questions nor answers"),
        ({"id": "x", "questions": ["only one"]}, "not a list of 2 to 26 texts"),
        ({"id": "x", "questions": ["a", ""]}, "not a list of 2 to 26 texts"),
        ({"id": "x", "questions": ["a", 3]}, "not a list of 2 to 26 texts"),
        ({"questions": ["a", "b"]}, "id = None is not a name"),
        ({"id": "x", "questions": ["a", "b"], "image": 3}, "image = 3 is not a text"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_group_is_named(row: Any, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        read(row)


def test_a_group_stands_in_a_file_once_and_a_file_is_not_empty() -> None:
    with pytest.raises(InvalidRequest, match="Line 2: id = '000000137730' names a line before it"):
        read(ROW, ROW)
    with pytest.raises(InvalidRequest, match="no groups"):
        read_groups(["\n"])
    with pytest.raises(InvalidRequest, match="Line 1: not JSON"):
        read_groups(["{"])


@pytest.mark.parametrize(("share", "many"), [(0.2, 20), (0.0, 0), (1.0, 100), (0.001, 1)])
def test_a_share_is_wanted_twice_and_always_the_same_ones(share: float, many: int) -> None:
    groups = read(*({**ROW, "id": str(number)} for number in range(100)))

    found = twice(groups, share)

    assert sum(group.wanted == 2 for group in found) == many
    assert [group.key for group in found] == [group.key for group in groups]
    assert twice(groups, share) == found


def test_the_packaged_criteria() -> None:
    assert read_criteria().names == ("answerable", "relevant", "complete", "correct", "clear")


ONE = '[[criteria]]\nname = "fun"\nasks = "Is it?"\nlow = "no"\nhigh = "yes"\n'


def test_criteria_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('version = "mine-1"\n' + ONE)

    assert read_criteria(file).names == ("fun",)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (ONE, "version = None|version"),
        ('version = "mine-1"\n', "criteria"),
        ('version = "mine-1"\n' + ONE + ONE, "fun stands there twice"),
        ('version = "mine-1"\n' + ONE.replace("fun", "much fun"), "criteria.0.name = 'much fun'"),
        ("version = ", "is not TOML"),
    ],
)
def test_criteria_that_are_wrong_are_refused(tmp_path: Path, said: str, why: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(said)

    with pytest.raises(InvalidRequest, match=why):
        read_criteria(file)


def test_a_file_of_criteria_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="Cannot read"):
        read_criteria(tmp_path / "none.toml")


def test_what_is_exported_is_the_mean_over_criteria_and_annotators() -> None:
    scores = {
        "ann": [{"relevant": 1.0, "clear": 0.5}, {"relevant": 0.0, "clear": 0.0}],
        "bob": [{"relevant": 0.5, "clear": 0.5}, {"relevant": 0.2, "clear": 0.0}],
    }
    scored = Annotated(
        key="g", field="answers", input={"text": "Say it.", "attachments": []}, wanted=2,
        items=[{"said": "a", "models": ["alpha"]}, {"said": "b", "models": ["beta", "gamma"]}],
        annotations=[{"annotator": name, "scores": given} for name, given in scores.items()],
    )  # fmt: skip
    unscored = Annotated(key="h", field="answers", input={}, wanted=1, items=scored.items, annotations=[])

    (row,) = exported([scored, unscored], "criteria-1")

    assert row == {
        "id": "g", "instruction": "Say it.", "answers": ["a", "b"], "score": [0.625, 0.05],
        "models": [["alpha"], ["beta", "gamma"]],
        "annotation": {"criteria": "criteria-1", "annotators": ["ann", "bob"], "scores": list(scores.values())},
    }  # fmt: skip


def test_what_is_exported_can_be_loaded_again() -> None:
    (group,) = read(ROW)
    scored = Annotated(
        key=group.key, field=group.field, input=group.input, items=group.items, wanted=1,
        annotations=[{"annotator": "ann", "scores": [{"clear": 1.0}, {"clear": 0.25}]}],
    )  # fmt: skip

    (row,) = exported([scored], "criteria-1")

    assert (row["id"], row["image"], row["questions"], row["score"]) == (*list(ROW.values())[:3], [1.0, 0.25])
    assert read(row) == [group]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"name": "mine"}, "either a FILE of groups or --from-verdicts"),
        ({"name": "mine", "file": Path("x"), "from_verdicts": "y"}, "either a FILE of groups or --from-verdicts"),
        ({"name": "status", "from_verdicts": "x"}, "is a command of `bakeoff annotate`"),
        ({"name": "x" * 101, "from_verdicts": "x"}, "it takes 1 to 100"),
    ],
)
def test_what_load_cannot_load_is_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        load_command(**arguments)
