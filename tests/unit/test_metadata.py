from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from db.errors import InvalidRequest, RegistryError
from db.metadata import ModelMetadata, hub_id, metadata_file, read_metadata, updated, with_metadata, write_metadata
from scheduler.metadata.folder import first_paragraph, read_folder
from scheduler.metadata.listed import read_list

NOW = "2026-11-25T12:00:00+00:00"


def listed(folder: Path, *rows: Any) -> Path:
    path = folder / "p0_models.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


# --- HuggingGPT's list


def test_a_listed_model_brings_its_figures(tmp_path: Path) -> None:
    row = {
        "id": "deepset/roberta-base-squad2", "task": "question-answering", "downloads": 1677372, "likes": 186,
        "license": "cc-by-4.0", "description": "  Answers\nquestions. ",
        "metrics": [{"dataset": "squad_v2", "metric": "Exact Match", "value": 79.9}],
    }  # fmt: skip

    model = read_list(listed(tmp_path, row), NOW)["deepset/roberta-base-squad2"]

    assert (model.downloads, model.likes, model.capability) == (1677372, 186, "question-answering")
    assert model.scores == {"squad_v2/exact-match": 79.9}
    assert (model.description, model.license) == ("Answers questions.", "cc-by-4.0")
    assert (model.origin, model.updated) == ("p0_models.jsonl", NOW)


def test_the_original_form_with_a_model_index_is_read_too(tmp_path: Path) -> None:
    index = [{"name": "x", "results": [{"dataset": {"name": "LibriSpeech", "type": "ls"},
                                        "metrics": [{"type": "wer", "name": "Test WER", "value": 3.4}]}]}]  # fmt: skip
    row = {"id": "a/b", "pipeline_tag": "automatic-speech-recognition", "downloads": 1,
           "meta": {"license": ["mit", "other"], "model-index": index}}  # fmt: skip

    model = read_list(listed(tmp_path, row), NOW)["a/b"]

    assert model.scores == {"librispeech/test-wer": 3.4}
    assert model.license == "mit, other"
    assert model.capability == "automatic-speech-recognition"


def test_scores_that_are_no_numbers_are_left_out_and_the_first_of_a_name_counts(tmp_path: Path) -> None:
    metrics = [
        {"dataset": "d", "metric": "accuracy", "value": "72%"},
        {"dataset": "d", "metric": "accuracy", "value": 0.1},
        {"dataset": "d", "metric": "f1", "value": "n/a"},
        {"dataset": "d", "metric": "ap", "value": float("nan")},
        {"dataset": None, "metric": None, "value": 1},
    ]

    model = read_list(listed(tmp_path, {"id": "a/b", "metrics": metrics}), NOW)["a/b"]

    assert model.scores == {"d/accuracy": 0.72}


@pytest.mark.parametrize("row", ["{broken", "[1]", '{"task": "x"}', '{"id": 5}', '{"id": "a/b", "downloads": "many"}'])
def test_a_line_that_is_no_model_is_named(tmp_path: Path, row: str) -> None:
    with pytest.raises(InvalidRequest, match=r"p0_models\.jsonl, line 2: not a model such as"):
        read_list(listed(tmp_path, {"id": "a/b"}, row), NOW)


# --- a model's own folder

CARD = """---
license: apache-2.0
pipeline_tag: automatic-speech-recognition
model-index:
- name: whisper-tiny
  results:
  - task: {type: automatic-speech-recognition}
    dataset: {name: LibriSpeech (clean), type: librispeech_asr}
    metrics:
    - {type: wer, name: Test WER, value: 7.54}
---
# Whisper

<img src="x.png">

[Whisper](https://example.org) is a model for speech recognition and translation.

## More
"""


def folder(path: Path, card: str | None = CARD, config: dict[str, Any] | str | None = None) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    if card is not None:
        (path / "README.md").write_text(card)
    if config is not None:
        (path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return path


def test_a_folder_brings_what_its_card_says(tmp_path: Path) -> None:
    found = read_folder(folder(tmp_path / "w"), "openai/whisper-tiny", NOW)["openai/whisper-tiny"]

    assert found.capability == "automatic-speech-recognition"
    assert found.scores == {"librispeech-(clean)/test-wer": 7.54}
    assert found.description == "Whisper is a model for speech recognition and translation."
    assert found.license == "apache-2.0"


def test_a_folder_of_a_hubs_cache_says_its_own_id(tmp_path: Path) -> None:
    path = folder(tmp_path / "models--openai--whisper-tiny" / "snapshots" / "abc")

    assert list(read_folder(path, None, NOW)) == ["openai/whisper-tiny"]


def test_a_config_says_id_and_capability_where_there_is_no_card(tmp_path: Path) -> None:
    path = folder(tmp_path / "m", None, {"_name_or_path": "org/llm", "architectures": ["LlamaForCausalLM"]})

    assert read_folder(path, None, NOW)["org/llm"].capability == "text-generation"


def test_speech_models_that_generate_are_no_translators(tmp_path: Path) -> None:
    path = folder(tmp_path / "m", None, {"architectures": ["WhisperForConditionalGeneration"]})

    assert read_folder(path, "w", NOW)["w"].capability == "automatic-speech-recognition"


def test_a_folder_that_does_not_say_its_id_asks_for_it(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="--id ORG/NAME"):
        read_folder(folder(tmp_path / "m", "no header here"), None, NOW)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"neither README\.md nor config\.json"):
        read_folder(tmp_path, None, NOW)


@pytest.mark.parametrize(
    ("card", "config", "said"),
    [("---\na: [\n---\n", None, "not YAML"), (None, "{", "is not JSON"), (None, "[1]", "not a JSON object")],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, card: str | None, config: str | None, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        read_folder(folder(tmp_path / "m", card, config), "m", NOW)


def test_a_card_runs_nothing(tmp_path: Path) -> None:
    card = '---\nlicense: !!python/object/apply:os.system ["touch ran"]\n---\n'

    with pytest.raises(InvalidRequest, match="not YAML"):
        read_folder(folder(tmp_path / "m", card), "m", NOW)


def test_a_card_without_prose_has_no_description() -> None:
    assert (
        first_paragraph("# Title\n\n| a | b |\n\n```\ncode that is long enough to read\n```\n- a list of things") == ""
    )


# --- the file beside the registry


def test_the_file_keeps_what_was_written(tmp_path: Path) -> None:
    path = metadata_file(tmp_path / "models.toml")
    catalogue = {"a/b": ModelMetadata(downloads=3, scores={"x": 0.5}), "small": ModelMetadata(likes=1)}

    write_metadata(path, catalogue)

    assert path == tmp_path / "models.metadata.json"
    assert read_metadata(path) == catalogue
    assert [file.name for file in tmp_path.iterdir()] == ["models.metadata.json"]


def test_without_a_file_nothing_is_known(tmp_path: Path) -> None:
    assert read_metadata(tmp_path / "gone.json") == {}


@pytest.mark.parametrize("text", ["{", '{"a/b": {"downloads": -1}}', '{"a/b": {"stars": 5}}', "[]"])
def test_a_wrong_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "models.metadata.json").write_text(text)

    with pytest.raises(RegistryError, match=r"models\.metadata\.json: "):
        read_metadata(tmp_path / "models.metadata.json")


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="cannot be written"):
        write_metadata(tmp_path / "no" / "models.metadata.json", {})


def test_newer_figures_replace_older_ones_and_the_rest_stays() -> None:
    old = {"a/b": ModelMetadata(downloads=1, description="good", scores={"x": 1.0, "y": 2.0})}

    new = updated(old, {"a/b": ModelMetadata(downloads=5, scores={"y": 3.0}), "c/d": ModelMetadata(likes=1)})

    assert new["a/b"] == ModelMetadata(downloads=5, description="good", scores={"x": 1.0, "y": 3.0})
    assert new["c/d"].likes == 1


def registry(**entry: Any) -> dict[str, Any]:
    return {"models": {"m": {"capability": "x", **entry}}, "profiles": {}}


def filled(catalogue: dict[str, ModelMetadata], **entry: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = with_metadata(registry(**entry), catalogue)["models"]["m"].get("metadata", {})
    return metadata


def test_a_model_gets_the_figures_of_its_hub_id() -> None:
    known = {"a/b": ModelMetadata(downloads=7)}

    assert filled(known, source={"hub": "a/b"}) == {"downloads": 7}
    assert filled(known, source={"server": "http://gpu/v1", "model": "a/b"}) == {"downloads": 7}
    assert filled(known, source={"hub": "a/other"}) == {}


def test_the_registry_comes_first_then_the_name_then_the_hub_id() -> None:
    known = {
        "m": ModelMetadata(likes=2, scores={"x": 2.0, "y": 2.0}),
        "a/b": ModelMetadata(downloads=3, likes=3, trending=3.0, scores={"x": 3.0, "y": 3.0, "z": 3.0}),
    }

    found = filled(known, source={"hub": "a/b"}, metadata={"downloads": 1, "scores": {"x": 1.0}})

    assert found == {"downloads": 1, "likes": 2, "trending": 3.0, "scores": {"x": 1.0, "y": 2.0, "z": 3.0}}


def test_tables_that_are_wrong_are_left_to_the_registrys_own_check() -> None:
    known = {"m": ModelMetadata(likes=2)}

    assert with_metadata({"models": {"m": 5}}, known) == {"models": {"m": 5}}
    assert with_metadata({"models": []}, known) == {"models": []}
    assert with_metadata(registry(metadata=5), known) == registry(metadata=5)


def test_a_hub_id_has_an_owner_and_a_name() -> None:
    assert hub_id({"hub": "org/name", "revision": "main"}) == "org/name"
    assert hub_id({"server": "http://x", "model": "gpt-4o"}) is None
    assert hub_id({"installed": "rapidocr"}) is None
    assert hub_id(None) is None
