from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from db.errors import RegistryError, WeightsError
from db.registry import ModelEntry
from db.settings import load_settings
from db.states import ErrorKind
from worker.backends import BACKENDS, Backend, Failure, Input, Output, Place, create_backend

ROWS = [
    {"id": "q/1", "instruction": " Name a colour. ", "candidates": [{"model": "vicuna", "output": "Red."}, {"model": "alpaca", "output": "Blue."}]},
    {"id": "q/2", "question": "How many?", "candidates": [{"model": "vicuna", "output": "Two"}]},
    {"id": "q/3", "question": "How many?", "candidates": [{"model": "vicuna", "output": "Three"}]},
    {"id": "q/4", "source_text": "A long story.", "candidates": [{"model": "alpaca", "output": "Short."}]},
]  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "outputs.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n\n")
    return path


def replay(**params: Any) -> Backend:
    entry = ModelEntry(name="old-vicuna", capability="text-generation", backend="replay", params=params)
    return create_backend(entry, Place(weights=None))


def loaded(file: Path, model: str = "vicuna") -> Backend:
    backend = replay(file=str(file), model=model)
    backend.load()
    return backend


def test_it_is_registered() -> None:
    assert BACKENDS["replay"] == "worker.backends.replay:Replay"


def test_it_says_what_was_said_to_the_same_text(file: Path) -> None:
    (answer,) = loaded(file).run([Input(text="Name a colour.\n")])

    assert answer == Output(text="Red.", usage={"output_chars": 4})


def test_an_input_may_be_named_by_its_id(file: Path) -> None:
    answers = loaded(file).run([Input(text="q/2"), Input(text="q/3")])

    assert [one.text for one in answers if isinstance(one, Output)] == ["Two", "Three"]


def test_each_model_has_its_own_outputs(file: Path) -> None:
    answers = loaded(file, "alpaca").run([Input(text="Name a colour."), Input(text="A long story.")])

    assert [one.text for one in answers if isinstance(one, Output)] == ["Blue.", "Short."]


def test_an_unknown_input_fails_alone(file: Path) -> None:
    answers = loaded(file).run([Input(text="Name a fruit."), Input(text="Name a colour.")])

    assert isinstance(answers[0], Failure)
    assert answers[0].kind == ErrorKind.INPUT
    assert "no output of vicuna for 'Name a fruit.'" in answers[0].message
    assert isinstance(answers[1], Output)


def test_a_text_that_several_rows_share_is_not_guessed(file: Path) -> None:
    (answer,) = loaded(file).run([Input(text="How many?")])

    assert isinstance(answer, Failure)
    assert "ask by their id" in answer.message


def test_a_relative_file_is_found_in_the_evaluation_data(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BAKEOFF_EVAL_DATA", str(tmp_path))
    load_settings.cache_clear()
    try:
        assert isinstance(loaded(Path(file.name)).run([Input(text="q/1")])[0], Output)
    finally:
        load_settings.cache_clear()


def test_a_missing_file_is_named_with_where_it_was_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BAKEOFF_EVAL_DATA", raising=False)
    load_settings.cache_clear()

    with pytest.raises(WeightsError, match=r"models\.old-vicuna\.params\.file = 'gone\.jsonl'.*BAKEOFF_EVAL_DATA"):
        replay(file="gone.jsonl", model="vicuna").load()
    load_settings.cache_clear()


def test_an_unknown_model_is_named_with_those_there_are(file: Path) -> None:
    with pytest.raises(WeightsError, match=r"params\.model = 'llama' is not in .*; there are: alpaca, vicuna"):
        replay(file=str(file), model="llama").load()


def test_a_line_that_is_not_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_text('{"id": "a"}\n{broken\n')

    with pytest.raises(WeightsError, match="line 2: not JSON"):
        replay(file=str(path), model="vicuna").load()


def test_params_are_checked(file: Path) -> None:
    with pytest.raises(RegistryError, match=r"models\.old-vicuna\.params\.model"):
        replay(file=str(file))
