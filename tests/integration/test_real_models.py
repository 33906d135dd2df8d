"""The packaged models through the whole system: files that nobody has seen go in, judged answers come out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rapidfuzz.distance import Levenshtein

from benchmarks.demo.client import Installation
from benchmarks.demo.recordings import cache_folder, make_recordings
from db.errors import WeightsError
from db.settings import Settings
from tests.integration.test_up import Up
from worker.weights import locate

pytestmark = [pytest.mark.integration, pytest.mark.weights, pytest.mark.timeout(600)]

TEXT = "Platform 7 closes at nine."


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A `bakeoff up` with the demo profile."""
    settings = Settings(profile="demo")
    for model in settings.registry.models.values():
        try:
            locate(model, settings.cache)
        except WeightsError as error:
            if os.environ.get("CI"):
                pytest.fail(str(error))
            pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("demo")
    installation = Installation(folder / ".bakeoff", "demo", print)
    installation.start()
    try:
        installation.wait_until_ready()
        yield Up(folder)
    finally:
        installation.stop()


def judged(demo: Up, *arguments: str) -> Any:
    done = demo.run("submit", *arguments, "--wait", "--json", "--timeout", "120")
    assert done.code == 0, done.err
    (subtask,) = done.json["subtasks"]
    assert subtask["status"] == "done"
    assert subtask["verdict"]["reason"]
    return done.json


def test_three_engines_read_a_picture_and_the_judge_picks_a_good_one(demo: Up, tmp_path: Path) -> None:
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.new("RGB", (520, 70), "white")
    ImageDraw.Draw(picture).text((15, 15), TEXT, fill="black", font=ImageFont.load_default(32))
    picture.save(tmp_path / "sign.png")

    story = judged(demo, "--capability", "image-to-text/ocr", "--attach", str(tmp_path / "sign.png"))

    verdict, candidates = story["subtasks"][0]["verdict"], story["subtasks"][0]["candidates"]
    assert {c["model"] for c in candidates} == {"rapidocr", "rapidocr-onnxruntime", "ddddocr"}
    assert verdict["method"] == "nll"
    assert set(verdict["scores"]) == {c["model"] for c in candidates if c["status"] == "done"}
    assert Levenshtein.normalized_distance(story["answer"], TEXT) < 0.1


def test_three_engines_hear_a_recording(demo: Up, tmp_path: Path) -> None:
    (item,) = make_recordings(tmp_path, seed=3, count=1, cache=cache_folder())

    story = judged(demo, "--capability", "automatic-speech-recognition", "--attach", str(item.path))

    models = {c["model"]: c["status"] for c in story["subtasks"][0]["candidates"]}
    assert models == {"whisper-base": "done", "whisper-tiny-en": "done", "pocketsphinx-en-us": "done"}
    assert story["answer"].strip()


def test_a_language_model_answers_a_text(demo: Up) -> None:
    story = judged(demo, "What is the capital of France?", "--param", "max_new_tokens=24")

    assert "Paris" in story["answer"]
    assert story["subtasks"][0]["verdict"]["method"] == "only_candidate"


def test_a_picture_that_cannot_be_read_fails_with_the_reason_of_every_engine(demo: Up, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\x00\x00\x00\rIHDR" + b"\x00" * 40)

    done = demo.run("submit", "-c", "image-to-text/ocr", "-a", str(broken), "--wait", "--json", "--timeout", "60")

    assert (done.code, done.json["status"]) == (1, "failed")
    errors = [c["error"] for c in done.json["subtasks"][0]["candidates"]]
    assert {error["kind"] for error in errors} == {"input"}
    assert all("Traceback" not in error["message"] for error in errors)
