"""Input of a curation job: streamed, in either form, and what a record says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from db.errors import UsageError
from scheduler.curation import reading
from scheduler.curation.reading import Chosen, Reader
from scheduler.curation.recipe import Input
from scheduler.curation.turns import Unreadable, key_of, turns_of, type_of, with_answers

NAMES = Input(file=Path("records.json"))


def talk(*values: str) -> dict[str, Any]:
    said = [{"from": "gpt" if place % 2 else "human", "value": value} for place, value in enumerate(values)]
    return {"id": "1", "image": "1.jpg", "conversations": said}


def read(path: Path, text: str) -> list[Any]:
    path.write_text(text, encoding="utf-8")
    return [json.loads(record) for record in Reader(path)]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1000])
def test_an_array_is_read_wherever_it_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    # given records with everything that could be taken for an end
    records = [{"a": 'brackets ]} and "quotes" \\'}, {"b": [1, {"c": "é😀"}]}, 12, "x", None, -1.5e3]
    monkeypatch.setattr(reading, "CHUNK", chunk)

    # when, then
    assert read(tmp_path / "a.json", json.dumps(records, ensure_ascii=False)) == records
    assert read(tmp_path / "b.json", "\ufeff " + json.dumps(records, indent=2)) == records
    assert read(tmp_path / "c.json", "[ ]") == []


@pytest.mark.parametrize("chunk", [1, 5, 1000])
def test_lines_are_read_and_broken_ones_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(reading, "CHUNK", chunk)

    found = read(tmp_path / "a.jsonl", '{"a": 1}\r\n\n{"b": NaN}\n{"c": \n{"d": "\u2028"}')

    assert found[0] == {"a": 1}
    assert found[1].startswith("not JSON (NaN is no JSON number)")
    assert found[2].startswith("not JSON")
    assert found[3] == {"d": "\u2028"}


def test_an_array_that_breaks_off_is_an_error_that_names_the_record(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="record 2 of its array"):
        read(tmp_path / "a.json", '[{"a": 1}, {"b": ')


def test_what_follows_an_array_is_not_passed_over(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="goes on after its array of 1 records"):
        read(tmp_path / "a.json", '[{"a": 1}]\n[{"a": 2}]')


def test_a_file_without_an_end_of_line_is_not_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "CHUNK", 8)
    monkeypatch.setattr(reading, "LARGEST", 16)

    with pytest.raises(UsageError, match="a line of over 16 characters"):
        read(tmp_path / "a.jsonl", '{"a": 1}\n' + "x" * 100)


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Cannot read .*none\.json: No such file"):
        list(Reader(tmp_path / "none.json"))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("text", "not an object"),
        ({"instruction": "Why?"}, "'output'"),
        (talk(), "not a list of turns"),
        (talk("Why?"), "a question has no answer"),
        ({"conversations": [{"from": "gpt", "value": "x"}, {"from": "gpt", "value": "y"}]}, "not from human"),
        ({"conversations": [{"from": "human"}, {"from": "gpt", "value": "y"}]}, "no text"),
    ],
)
def test_what_has_no_turns_says_why(data: Any, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        turns_of(data, NAMES)


def test_turns_types_and_keys() -> None:
    one, three = talk("<image>\nWhat is it?", "A dog."), talk("a?", "b", "c?", "d", "e?", "f")
    detail = talk("Describe the following image.\n<image>", "A dog.")

    assert [turn.asked for turn in turns_of(one, NAMES)] == ["What is it?"]
    assert [type_of(data, turns_of(data, NAMES), NAMES) for data in (one, three, detail)] == [
        "complex",
        "conversation",
        "detail",
    ]
    assert type_of({**one, "type": "conv"}, turns_of(one, NAMES), NAMES) == "conversation"
    assert key_of(one, turns_of(one, NAMES)) == key_of({**one, "id": "2"}, turns_of(one, NAMES))
    assert key_of(one, turns_of(one, NAMES)) != key_of({**one, "image": "2.jpg"}, turns_of(one, NAMES))


def test_new_answers_change_nothing_else() -> None:
    three = talk("a?", "b", "c?", "d")
    flat = {"extra": 1, "instruction": "Why?", "output": "So."}

    assert with_answers(three, ["B", "D"], NAMES) == talk("a?", "B", "c?", "D")
    assert three == talk("a?", "b", "c?", "d")
    assert list(with_answers(flat, ["Thus."], NAMES).items()) == [
        ("extra", 1),
        ("instruction", "Why?"),
        ("output", "Thus."),
    ]


def test_so_many_of_each_type_are_taken() -> None:
    chosen = Chosen(NAMES.model_copy(update={"per_type": 2, "limit": 3}))
    texts = [
        json.dumps({"instruction": "Why?", "output": "So.", "type": kind}) for kind in ["conv"] * 3 + ["detail"] * 3
    ]

    taken = [record.type for text in texts if (record := chosen.record(text, 0)) is not None]

    assert taken == ["conversation", "conversation", "detail"]
    assert chosen.full
