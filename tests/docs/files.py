"""The files that pages name, as a reader would have them."""

from __future__ import annotations

import io
import json
import shutil
import wave
from pathlib import Path
from typing import Any

from PIL import Image

from tests.docs.blocks import ROOT

QUESTIONS = ["What is shown in the picture?", "Who has painted this, and when?"]
GROUPS = [
    {
        "id": f"{number}",
        "image": f"{number}.jpg",
        "questions": QUESTIONS,
        "score": [0.1 + number / 40, 0.9 - number / 60],
    }
    for number in range(24)
]
WORDS = [
    f"{colour} {thing}"
    for colour in ("red", "green", "blue", "white")
    for thing in ("boat", "house", "tree", "hat", "bird", "door")
]
PAIRS = [
    {
        "instruction": f"Say {word}.",
        "input": "",
        "output_1": word.upper(),
        "output_2": f"no {word}",
        "label": 1 + number % 2,
    }
    for number, word in enumerate(WORDS)
]
INSTRUCTIONS = [
    {"id": f"{number}", "instruction": f"What is in the picture of the {thing}?", "output": f"A {thing} that is green."}
    for number, thing in enumerate(("house", "tree", "river", "boat"))
]
RECIPE = """
name = "coco"
stages = ["validate", "exact", "near", "answers"]

[input]
file = "coco.json"

[answers]
models = ["alpha", "beta"]
"""


def make_files(folder: Path) -> None:
    """Write them all."""
    for name in ("scan.png", "page.png", "a.png", "b.png"):
        _picture(folder / name)
    for name in ("call.wav",):
        _recording(folder / name)
    _lines(folder / "questions.jsonl", GROUPS)
    _lines(folder / "scored.jsonl", GROUPS)
    _lines(folder / "groups.jsonl", GROUPS)
    _lines(folder / "labels.jsonl", PAIRS)
    for name in ("preferences", "other", "pairs_pandalm", "pairs_llmbar_extra"):
        _lines(folder / f"{name}.jsonl", PAIRS)
    _lines(folder / "tasks.jsonl", [{"request": "one"}, {"request": "two", "source": "etl"}])
    (folder / "coco.json").write_text(json.dumps(INSTRUCTIONS))
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "examples").mkdir()
    (folder / "examples" / "curate.toml").write_text(RECIPE.replace("coco.json", "../coco.json"))
    (folder / "models.toml").write_text((ROOT / "models.toml").read_text())
    (folder / "docker").mkdir()
    shutil.copy(ROOT / "docker" / ".env.example", folder / "docker" / ".env.example")


def _picture(path: Path) -> None:
    image = io.BytesIO()
    Image.new("RGB", (20, 10), "white").save(image, "PNG")
    path.write_bytes(image.getvalue())


def _recording(path: Path) -> None:
    with wave.open(str(path), "wb") as recording:
        recording.setparams((1, 2, 16_000, 0, "NONE", ""))
        recording.writeframes(bytes(3200))


def _lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
