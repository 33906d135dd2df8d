"""Every command, statement and program of the README runs as it stands there."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
import wave
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from db.keys import Scope
from db.registry import parse_registry
from tests.conftest import SCRIPTED, Installation, make_installation
from tests.integration.api_parts import make_key, start_api

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
LONG_RUNNING = {"up", "down", "worker", "scheduler", "api", "reward"}  # run by tests of their own


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    inline = re.findall(r"`(bakeoff [a-z][^`]*)`", README)
    found = [shlex.split(line, comments=True) for line in [*lines, *inline]]
    return [words[1:] for words in found if words and words[0] == "bakeoff"]


def with_a_real_task(words: list[str], installation: Installation) -> list[str]:
    if "TASK" not in words:
        return words
    task = installation.run("submit", "for show", "-c", "text-generation", "--wait", "--json").json["id"]
    if words[0] == "cancel":
        task = installation.run("submit", "for later", "--run-at", "1h", "--json").json["id"]
    return [task if word == "TASK" else word for word in words]


#: The scripted models with a planner that looks plans up, and an integrator that needs no model.
PLANNED = (
    SCRIPTED.replace('"lonely"]', '"lonely"]\nplanner = "lookup"\nintegrator = "lists"')
    + """
[planners.lookup]
method = "retrieval"

[integrators.lists]
method = "report"
"""
)
RECIPE = """
name = "readme"
stages = ["validate", "exact", "answers"]

[input]
file = "instructions.jsonl"

[answers]
models = ["alpha", "beta"]
"""
INSTRUCTIONS = [
    {"id": f"{number}", "question": f"What is in the picture of the {thing}?", "answer": f"A {thing} that is green."}
    for number, thing in enumerate(("house", "tree", "river", "boat"))
]
GROUPS = [{"id": "a", "image": "a.jpg", "questions": ["What is it?", "Who has painted this?"], "score": [0.5, 0.9]}]
PLAN = [
    {"id": "a", "capability": "image-to-text/ocr", "inputs": [{"attachment": 0}]},
    {"id": "b", "capability": "image-to-text/ocr", "inputs": [{"attachment": 1}]},
    {"id": "say", "capability": "text-generation", "inputs": [{"request": True}, {"output": "a"}, {"output": "b"}]},
]


@pytest.fixture(scope="module")
def prepared(
    servers: tuple[str, str], template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """A running installation with the files that the README attaches, a planner, and who listens to recordings."""
    for made in make_installation(servers, tmp_path_factory.mktemp("running"), template, PLANNED):
        made.start("intake", "worker", "--intake")
        made.start("planner", "worker", "--planner", "--integrator")
        made.start_all()
        yield _with_files(made, tmp_path_factory.mktemp("readme"))


def _with_files(running: Installation, folder: Path) -> Installation:
    image = io.BytesIO()
    Image.new("RGB", (20, 10), "white").save(image, "PNG")
    for name in ("scan.png", "a.png", "b.png"):
        (folder / name).write_bytes(image.getvalue())
    (folder / "plan.json").write_text(json.dumps(PLAN))
    (folder / "recipe.toml").write_text(RECIPE)
    for name, rows in (("instructions", INSTRUCTIONS), ("groups", GROUPS)):
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (folder / "tasks.jsonl").write_text('{"request": "one"}\n{"request": "two", "source": "etl"}\n')
    with wave.open(str(folder / "call.wav"), "wb") as recording:
        recording.setparams((1, 2, 16_000, 0, "NONE", ""))
        recording.writeframes(bytes(3200))
    running.start("hearer", "worker", "hearer")
    running.wait_ready(10)
    running.work_folder = folder
    return running


def test_the_readme_has_commands_to_run() -> None:
    names = {words[0] for words in commands()}

    assert {
        "up",
        "down",
        "submit",
        "status",
        "results",
        "watch",
        "sql",
        "show",
        "models",
        "config",
        "db",
        "worker",
    } <= names


@pytest.mark.parametrize("words", [c for c in commands() if c[0] not in LONG_RUNNING], ids=" ".join)
def test_a_command_of_the_readme_works(prepared: Installation, words: list[str]) -> None:
    if words[:2] == ["models", "pull"]:
        words = [*words[:2], "--help"]  # its model is an example; `make weights` pulls real ones
    real_registry = {"BAKEOFF_MODELS_FILE": str(ROOT / "models.toml")} if "--profile" in words else {}
    done = prepared.run(*with_a_real_task(words, prepared), env=real_registry)

    assert done.code == 0, done.err


@pytest.mark.parametrize("words", [c for c in commands() if c[0] in LONG_RUNNING], ids=" ".join)
def test_an_option_of_a_long_running_command_exists(prepared: Installation, words: list[str]) -> None:
    command = words[:2] if words[0] == "reward" else words[:1]
    help_text = prepared.run(*command, "--help").out

    assert all(option in help_text for option in words if option.startswith("--"))


@pytest.mark.parametrize("statement", [s for block in blocks("sql") for s in block.split(";") if s.strip()])
def test_a_statement_of_the_readme_works(prepared: Installation, statement: str) -> None:
    done = prepared.run("sql", statement, "--write")

    assert done.code == 0, done.err


def run_program(imports: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the program of the README that imports this, away from our code."""
    (program,) = (block for block in blocks("python") if imports in block)
    return subprocess.run(
        [sys.executable, "-c", program],
        env={"PATH": os.environ["PATH"], **environment},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_celery_program_of_the_readme_works(prepared: Installation) -> None:
    done = run_program("from celery", BAKEOFF_REDIS_URL=prepared.redis_url)

    assert done.returncode == 0, done.stderr
    (row,) = prepared.query("SELECT source FROM task WHERE id = CAST(:task AS uuid)", task=done.stdout.strip())
    assert row.source == "shop"


def test_the_openai_program_of_the_readme_works(prepared: Installation) -> None:
    url, key = start_api(prepared), make_key(prepared, Scope.SUBMIT)

    done = run_program("from openai", OPENAI_BASE_URL=f"{url}/v1", OPENAI_API_KEY=key)

    assert done.returncode == 0, done.stderr
    assert "capital of France" in done.stdout


def test_the_model_of_the_readme_is_a_model() -> None:
    (table,) = blocks("toml")
    tables = tomllib.loads(SCRIPTED)
    tables["models"].update(tomllib.loads(table)["models"])

    assert parse_registry(tables).models["whisper-small"].memory_mb == 1800


def test_make_has_the_two_commands() -> None:
    targets = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert all(f"make {name} " in targets for name in ("demo", "test"))
