"""The commands of examples/README.md as they stand there, on the packaged models of the demo profile."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.demo.client import Installation
from db.errors import WeightsError
from db.settings import Settings
from examples.make_inputs import make_inputs
from tests.integration.test_up import Up
from worker.weights import locate

pytestmark = [pytest.mark.integration, pytest.mark.weights, pytest.mark.timeout(300)]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
READ, HEAR, WRITE = "image-to-text/ocr", "automatic-speech-recognition", "text-generation"
ENGINES = {
    READ: {"rapidocr", "rapidocr-onnxruntime", "ddddocr"},
    HEAR: {"whisper-base", "whisper-tiny-en", "pocketsphinx-en-us"},
    WRITE: {"smollm2-135m"},
}

Shape = list[tuple[str, list[str]]]


def commands() -> list[list[str]]:
    blocks = re.findall(r"^```sh\n(.*?)^```", (EXAMPLES / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    return [words[1:] for words in lines if words[:2] == ["bakeoff", "submit"]]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A `bakeoff up` with the demo profile, beside a copy of the examples and the files that they attach."""
    settings = Settings(profile="demo")
    for model in settings.registry.models.values():
        try:
            locate(model, settings.cache)
        except WeightsError as error:
            if os.environ.get("CI"):
                pytest.fail(str(error))
            pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("examples")
    shutil.copytree(EXAMPLES, folder / "examples", ignore=shutil.ignore_patterns("inputs", "__pycache__"))
    make_inputs(folder / "examples" / "inputs")
    installation = Installation(folder / ".bakeoff", "demo", print)
    installation.start()
    try:
        installation.wait_until_ready()
        yield Up(folder)
    finally:
        installation.stop()


def story_of(demo: Up, number: int) -> dict[str, Any]:
    quick = ("--param", "max_new_tokens=48", "--timeout", "50")  # for a machine that others use, too
    done = demo.run(*commands()[number], *quick, "--json")
    assert done.code == 0, done.err
    story: dict[str, Any] = done.json
    assert story["status"] == "done"
    return story


def shape(story: dict[str, Any]) -> Shape:
    """Capability of each step, with those of the steps that it waits for."""
    capabilities = {step["name"]: step["capability"] for step in story["subtasks"]}
    return [(step["capability"], [capabilities[name] for name in step["needs"]]) for step in story["subtasks"]]


def assert_candidates_and_winners(story: dict[str, Any]) -> None:
    for step in story["subtasks"]:
        models = {one["model"] for one in step["candidates"]}
        assert models == ENGINES[step["capability"]]
        assert step["verdict"]["winner"] in models
        assert step["verdict"]["reason"]


def assert_the_answer_names_its_sources(story: dict[str, Any]) -> None:
    assert story["integration"]["method"] == "report"
    for step in story["subtasks"]:
        winner = step["verdict"]["winner"]
        (output,) = (one["output"] for one in step["candidates"] if one["model"] == winner)
        assert f"{step['name']} ({winner}):\n{output}" in story["answer"]


def test_there_are_four_examples() -> None:
    assert len(commands()) == 4


@pytest.mark.parametrize(
    ("number", "method", "expected", "said"),
    [
        pytest.param(0, "retrieval", [(HEAR, []), (WRITE, [HEAR])], "Dashwood", id="transcribe and tell"),
        pytest.param(1, "retrieval", [(READ, []), (WRITE, [READ])], "parking", id="read and translate"),
        pytest.param(2, "explicit", [(READ, []), (READ, []), (WRITE, [READ, READ])], "crowns", id="compare two"),
        pytest.param(3, "explicit", [(HEAR, []), (READ, []), (WRITE, [])], "parking", id="independent parts"),
    ],
)
def test_an_example_runs_as_it_stands(demo: Up, number: int, method: str, expected: Shape, said: str) -> None:
    # given / when
    story = story_of(demo, number)
    # then
    assert story["plan"]["method"] == method
    assert shape(story) == expected
    assert_candidates_and_winners(story)
    assert_the_answer_names_its_sources(story)
    assert said.lower() in story["answer"].lower()
