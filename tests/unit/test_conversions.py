"""Conversions to safetensors: what comes out is what went in."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
converters = pytest.importorskip("ctranslate2.converters")

import tiny_models  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from worker.convert_whisper import convert, read_ctranslate2  # noqa: E402


def test_a_converted_whisper_is_the_whisper_it_was(tmp_path: Path) -> None:
    # given a random Whisper, written as CTranslate2 by CTranslate2's own converter
    original = tiny_models.whisper(tmp_path / "original")
    packed = tmp_path / "packed"
    converters.TransformersConverter(str(original), copy_files=["tokenizer.json"]).convert(
        str(packed), quantization="float16"
    )
    # when it is converted back
    convert(packed, tmp_path / "back")
    # then every array is the same, in half precision
    before, after = (load_file(folder / "model.safetensors") for folder in (original, tmp_path / "back"))
    assert set(before) == set(after)
    assert all((before[name].half() - after[name]).abs().max() == 0 for name in before)


def test_a_quantised_whisper_is_refused(tmp_path: Path) -> None:
    original = tiny_models.whisper(tmp_path / "original")
    converters.TransformersConverter(str(original)).convert(str(tmp_path / "packed"), quantization="int8")
    with pytest.raises(ValueError, match="quantised"):
        convert(tmp_path / "packed", tmp_path / "back")


def test_another_kind_of_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"\x06\x00\x00\x00\x05\x00Other" + b"\x00" * 20)
    with pytest.raises(ValueError, match="'Other'"):
        read_ctranslate2(tmp_path / "model.bin")
