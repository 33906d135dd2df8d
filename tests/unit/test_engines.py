"""The packaged engines on small inputs made here; an engine that is not installed is skipped by name."""

from __future__ import annotations

import json
import shutil
from functools import lru_cache
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from db.errors import RegistryError, WeightsError
from db.registry import ModelEntry
from db.states import ErrorKind
from worker.backends import Backend, Failure, File, Input, Output, Place, create_backend
from worker.backends import tesseract as tesseract_module
from worker.backends.rapidocr import Box, in_reading_order
from worker.backends.tesseract import words_of

OCR_ENGINES = {
    "rapidocr": "rapidocr",
    "rapidocr-onnxruntime": "rapidocr_onnxruntime",
    "ddddocr": "ddddocr",
    "tesseract": "",
}
LINE_ENGINES = [name for name in OCR_ENGINES if name != "ddddocr"]
PARAMETERS = {
    "rapidocr": {"limit_side_len": 96},
    "rapidocr-onnxruntime": {"limit_side_len": 224, "use_cls": True},
    "ddddocr": {"beta": True},
    "tesseract": {"psm": 6},
    "pocketsphinx": {"max_active": 500},
    "faster-whisper": {"compute_type": "float32"},
}


def entry(name: str, params: dict[str, Any] | None = None) -> ModelEntry:
    return ModelEntry(name=name, capability="image-to-text/ocr", backend=name, params=params or {})


@lru_cache(maxsize=4)
def engine(name: str) -> Backend:
    package = OCR_ENGINES.get(name, name)
    if package and find_spec(package) is None:
        pytest.skip(f"the package {package} is not installed: pip install 'bakeoff[engines]'")
    if name == "tesseract" and shutil.which("tesseract") is None:
        pytest.skip("the command tesseract is not on the PATH: apt-get install tesseract-ocr")
    backend = create_backend(entry(name, PARAMETERS[name]), Place(weights=None))
    backend.load()
    return backend


def png(picture: Image.Image) -> Input:
    data = BytesIO()
    picture.save(data, "png")
    return Input(files=(File(name="page.png", media_type="image/png", data=data.getvalue()),))


def page(*lines: str) -> Image.Image:
    picture = Image.new("RGB", (520, 40 + 60 * len(lines)), "white")
    for number, line in enumerate(lines):
        ImageDraw.Draw(picture).text((30, 30 + 60 * number), line, fill="black", font_size=28)
    return picture


def sound(samples: np.ndarray[Any, Any]) -> Input:
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed: pip install 'bakeoff[engines]'")
    data = BytesIO()
    soundfile.write(data, samples, 16_000, format="WAV")
    return Input(files=(File(name="talk.wav", media_type="audio/wav", data=data.getvalue()),))


def only(answers: list[Output | Failure]) -> Output | Failure:
    assert len(answers) == 1
    return answers[0]


@pytest.mark.parametrize("name", LINE_ENGINES)
def test_lines_come_in_reading_order_with_boxes(name: str) -> None:
    # given two lines of text
    given = png(page("Fresh bread at six", "Call room 402"))
    # when an engine reads them
    answer = only(engine(name).run([given]))
    # then both are there, top first, and each box says where and how sure
    assert isinstance(answer, Output)
    first, second = answer.text.splitlines()
    assert "bread" in first
    assert "402" in second
    boxes = json.loads(json.dumps(dict(answer.detail)))["boxes"]
    assert boxes
    assert all(0 <= box["confidence"] <= 1 and len(box["box"]) == 4 for box in boxes)


def test_ddddocr_reads_a_short_code() -> None:
    # given a picture of five characters
    picture = Image.new("RGB", (120, 48), "white")
    ImageDraw.Draw(picture).text((15, 5), "8k3np", fill="black", font_size=30)
    # when
    answer = only(engine("ddddocr").run([png(picture)]))
    # then
    assert isinstance(answer, Output)
    assert answer.text == "8k3np"
    assert 0 < answer.detail["confidence"] <= 1


def test_rapidocr_with_its_classifier_reads_upside_down() -> None:
    # given a line that stands on its head
    given = png(page("Fresh bread at six").rotate(180))
    # when
    answer = only(engine("rapidocr-onnxruntime").run([given]))
    # then
    assert isinstance(answer, Output)
    assert "bread" in answer.text


@pytest.mark.parametrize("name", OCR_ENGINES)
def test_an_empty_picture_has_no_text(name: str) -> None:
    for size in ((300, 120), (1, 1)):
        # given a picture with nothing on it
        given = png(Image.new("RGB", size, "white"))
        # when
        answer = only(engine(name).run([given]))
        # then
        assert isinstance(answer, Output)
        assert answer.text == ""


@pytest.mark.parametrize("name", OCR_ENGINES)
def test_a_corrupt_picture_fails_alone(name: str) -> None:
    # given a good picture between a broken one and none at all
    good = png(page("Fresh bread at six"))
    broken = Input(files=(File(name="torn.png", media_type="image/png", data=good.files[0].data[:60]),))
    # when they travel in one batch
    first, second, third = engine(name).run([broken, good, Input()])
    # then only the two are failures, and it is the input's fault
    assert isinstance(first, Failure)
    assert first.kind == ErrorKind.INPUT
    assert "torn.png" in first.message
    assert isinstance(second, Output)
    assert isinstance(third, Failure)
    assert third.kind == ErrorKind.INPUT


@pytest.mark.parametrize("name", ["rapidocr", "rapidocr-onnxruntime", "ddddocr"])
def test_a_thread_of_a_picture_is_the_inputs_fault(name: str) -> None:
    # given a picture too thin to hold text, which makes the packages raise
    given = png(Image.new("RGB", (3000, 1), "white"))
    # when
    answer = only(engine(name).run([given]))
    # then
    assert isinstance(answer, Failure)
    assert answer.kind == ErrorKind.INPUT


@pytest.mark.parametrize("name", PARAMETERS)
def test_unknown_parameters_name_table_and_key(name: str) -> None:
    # given a registry entry with a spelling mistake
    wrong = entry(name, {"treshold": 3})
    # when / then
    with pytest.raises(RegistryError, match=rf"models\.{name}\.params\.treshold = 3"):
        create_backend(wrong, Place(weights=None))


def test_a_parameter_out_of_range_names_table_and_key() -> None:
    # given
    wrong = entry("rapidocr", {"limit_side_len": 5})
    # when / then
    with pytest.raises(RegistryError, match=r"models\.rapidocr\.params\.limit_side_len = 5"):
        create_backend(wrong, Place(weights=None))


def test_tesseract_missing_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # given a machine without the command
    monkeypatch.setattr(tesseract_module.shutil, "which", lambda _name: None)
    backend = create_backend(entry("tesseract"), Place(weights=None))
    # when / then
    with pytest.raises(WeightsError, match="apt-get install tesseract-ocr"):
        backend.load()


def test_tesseract_language_missing_says_how_to_get_it() -> None:
    # given a command that is there, and a language that is not
    engine("tesseract")
    backend = create_backend(entry("tesseract", {"language": "tlh"}), Place(weights=None))
    # when / then
    with pytest.raises(WeightsError, match="tesseract-ocr-tlh"):
        backend.load()


def test_tesseract_that_hangs_is_a_failure_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given a command that lists its languages and then sleeps
    command = tmp_path / "tesseract"
    command.write_text('#!/bin/sh\ncase "$1" in --list-langs) echo eng ;; *) exec sleep 30 ;; esac\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    slow = ModelEntry(name="tesseract", capability="image-to-text/ocr", backend="tesseract", timeout=0.5)
    backend = create_backend(slow, Place(weights=None))
    with pytest.raises(TimeoutError):  # its warm-up meets the same
        backend.load()
    # when
    answer = only(backend.run([png(page("Fresh bread at six"))]))
    # then
    assert isinstance(answer, Failure)
    assert answer.kind == ErrorKind.MODEL
    assert "0.5 seconds" in answer.message


def test_tesseracts_table_gives_words_with_boxes() -> None:
    # given its output: a page, a word, a quotation mark that is no quoting, an empty word
    head = "level\tpage_num\tblock_num\tpar_num\tline_num\tword_num\tleft\ttop\twidth\theight\tconf\ttext"
    rows = [
        "1\t1\t0\t0\t0\t0\t0\t0\t90\t40\t-1\t",
        '5\t1\t1\t1\t1\t1\t3\t4\t20\t10\t91.5\t"Where',
        "5\t1\t1\t1\t1\t2\t1\t1\t1\t1\t0\t ",
    ]
    # when
    words = words_of("\n".join([head, *rows]))
    # then
    assert [(word.text, word.box, word.confidence) for word in words] == [('"Where', (3, 4, 20, 10), 0.915)]


def test_rows_are_read_top_to_bottom_and_left_to_right() -> None:
    # given boxes in no order; the second row is not quite level
    def box(text: str, x: float, y: float) -> Box:
        return Box(text=text, score=1.0, corners=[[x, y], [x + 50, y], [x + 50, y + 20], [x, y + 20]])

    boxes = [box("d", 90, 48), box("b", 90, 10), box("c", 5, 50), box("a", 5, 12)]
    # when
    rows = in_reading_order(boxes)
    # then
    assert [[found.text for found in row] for row in rows] == [["a", "b"], ["c", "d"]]


def test_pocketsphinx_hears_nothing_in_silence_and_the_same_every_time() -> None:
    # given silence, and noise that sounds like something
    backend = engine("pocketsphinx")
    silence = sound(np.zeros(16_000))
    noise = sound(np.random.default_rng(1).normal(0, 0.2, 16_000).cumsum() / 50)
    # when they are heard in turn
    quiet, first, _, second = (only(backend.run([given])) for given in (silence, noise, silence, noise))
    # then an answer does not depend on what was heard before
    assert isinstance(quiet, Output)
    assert quiet.text == ""
    assert isinstance(first, Output)
    assert first == second
    assert json.dumps(dict(first.detail))


def test_pocketsphinx_cuts_long_recordings() -> None:
    # given more sound than it takes at once
    model = entry("pocketsphinx", {"whole_up_to": 1.0, "max_active": 500})
    engine("pocketsphinx")
    backend = create_backend(model, Place(weights=None))
    backend.load()
    # when
    answer = only(backend.run([sound(np.zeros(3 * 16_000))]))
    # then
    assert isinstance(answer, Output)
    assert answer.usage == {"audio_seconds": 3.0}


@pytest.mark.parametrize("name", ["pocketsphinx"])
def test_a_corrupt_recording_is_the_inputs_fault(name: str) -> None:
    # given
    broken = Input(files=(File(name="talk.wav", media_type="audio/wav", data=b"RIFF no more"),))
    # when
    answer = only(engine(name).run([broken]))
    # then
    assert isinstance(answer, Failure)
    assert answer.kind == ErrorKind.INPUT


def test_faster_whisper_without_weights_says_what_to_give() -> None:
    # given an entry whose weights were not fetched
    backend = create_backend(entry("faster-whisper"), Place(weights=None))
    # when / then
    with pytest.raises(WeightsError, match=r"models\.faster-whisper\.source"):
        backend.load()


def test_faster_whisper_with_foreign_weights_fails_as_weights(tmp_path: Path) -> None:
    # given a folder that holds no model
    if find_spec("faster_whisper") is None:
        pytest.skip("the package faster-whisper is not installed: pip install 'bakeoff[engines]'")
    (tmp_path / "model.bin").write_bytes(b"not a model")
    backend = create_backend(entry("faster-whisper"), Place(weights=tmp_path))
    # when / then
    with pytest.raises(WeightsError, match="cannot be loaded"):
        backend.load()
