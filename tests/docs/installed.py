"""A running installation for the pages: every model of the registry, scripted, and what the pages take for granted."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

from db.keys import Scope
from tests.conftest import SCRIPTED, Installation, wait_until
from tests.docs.blocks import ROOT, blocks
from tests.integration.api_parts import make_key

#: Commands that run until they are stopped: they are started, seen to work, and stopped when the block ends.
LONG = re.compile(r"^(?:\w+=\S+ )*bakeoff (worker|scheduler|api|flower|curate serve)\b")
STATE = re.compile(r"^(export |cd |[A-Z_]+=\S*$)")
#: What an annotator types: twenty-two groups of two items, five criteria each.
TYPED = "1 .8 1 .5 1\n.2 .3 0 .1 0\n" * 22 + "q\n"
COMMAND_SECONDS = 280  # a training among them, on a machine that others use, too
SCORES = {
    "text-classification/question-reward": "{number}",
    "text-classification/answer-reward": "{number}",
    "text-classification/ifd": "0.{number}",
}


def registry(encoder: Path) -> dict[str, Any]:
    """The scripted models of the tests, and those of models.toml, which answer as a script says, too.

    What reward models are trained on is real: the encoder in this folder.
    """
    tables = tomllib.loads(SCRIPTED)
    real = tomllib.loads((ROOT / "models.toml").read_text())
    for name, model in (real["models"] | _models_of_pages()).items():
        says = SCORES.get(model["capability"], f"{name} says: {{text}}{{name}}")
        vector = 8 if model["capability"] == "feature-extraction" else 0
        entry = {"capability": model["capability"], "backend": "scripted", "memory_mb": 1}
        tables["models"][name] = {**entry, "params": {"answer": says, "vector": vector}}
    real_encoder = {"backend": "transformers", "source": {"folder": str(encoder)}, "params": {}}
    tables["models"]["minilm-l6"] |= real_encoder
    for name, judge in real["judges"].items():
        tables["judges"][name] = {"method": "scripted", "timeout": judge.get("timeout", 60.0)}
    for name, capability in real["capabilities"].items():
        tables["capabilities"].setdefault(name, {**capability, "judge": "longest"})
    tables["planners"] = {"retrieval": {"method": "retrieval"}}
    tables["integrators"] = {"report": {"method": "report"}}
    tables["profiles"] = {
        **{
            name: {**profile, "planner": "retrieval", "integrator": "report"}
            for name, profile in real["profiles"].items()
        },
        "demo": {"models": list(tables["models"]), "planner": "retrieval", "integrator": "report"},
    }
    return tables


def _models_of_pages() -> dict[str, Any]:
    """The models that pages show how to write; they are read as they stand by tests/unit/test_doc_blocks.py."""
    tables = [tomllib.loads(block.text).get("models", {}) for block in blocks("toml") if not block.not_run]
    return {name: entry for models in tables for name, entry in models.items()}


def as_toml(tables: dict[str, Any]) -> str:
    """Two levels of tables as TOML; what is deeper goes inline."""
    lines = []
    for kind, entries in tables.items():
        for name, entry in entries.items():
            lines.append(f"[{kind}.{json.dumps(name)}]")
            lines += [f"{json.dumps(key)} = {_value(value)}" for key, value in entry.items() if value is not None]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_value(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value)


def commands(text: str) -> list[str]:
    """The commands of a script: a line each, or several where a quotation, a loop or a document goes on."""
    found: list[str] = []
    open_lines = ""
    for line in text.splitlines():
        open_lines += f"{line}\n"
        if open_lines.strip() and not _goes_on(open_lines):
            found.append(open_lines.strip())
            open_lines = ""
    return [command for command in [*found, open_lines.strip()] if command and not _only_comments(command)]


def _goes_on(script: str) -> bool:
    done = subprocess.run(["bash", "-n", "-c", script], capture_output=True, check=False)
    return done.returncode != 0 or bool(done.stderr) or script.rstrip().endswith("\\")


def _only_comments(command: str) -> bool:
    return all(line.lstrip().startswith("#") for line in command.splitlines())


@dataclass
class World:
    """The installation of the pages, and the state of the block that is being run."""

    installation: Installation
    folder: Path
    port: int
    keys: dict[str, str] = field(default_factory=dict)
    state: list[str] = field(default_factory=list)
    started: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {
            **self.installation.environment,
            "PATH": path,
            "URL": self.url,
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
            "OPENAI_BASE_URL": f"{self.url}/v1",
            "OPENAI_API_KEY": self.keys.get("KEY", ""),
            "BAKEOFF_URL": self.url,
            "BAKEOFF_API_KEY": self.keys.get("KEY", ""),
            "PYTHONPATH": f"{ROOT}:{ROOT / 'client' / 'src'}",
            **self.keys,
        }

    def api(self) -> None:
        """Start the API that the pages take for granted."""
        self.installation.start("api", "api", "--port", str(self.port))
        wait_until(lambda: self._answers("/readyz"), 60, self.installation.logs)
        self.keys["KEY"] = make_key(self.installation, Scope.ADMIN)

    def run_script(self, text: str) -> None:
        """Run the commands of a block, one after the other, as somebody would who reads the page."""
        self.state = []
        try:
            for command in commands(text):
                self._run(self._filled(command))
        finally:
            self._stop_started()

    def _run(self, command: str) -> None:
        if STATE.match(command):
            self.state.append(command)
        if reason_not_to_run(command):
            return
        if LONG.match(command):
            self._start(command)
            return
        script = "\n".join(["set -eo pipefail", *self.state, command])
        done = subprocess.run(
            ["bash", "-c", script],
            env=self.environment, cwd=self.folder, input=TYPED, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"

    def _start(self, command: str) -> None:
        """Start what runs on and wait until it works; an earlier one of the same kind is stopped first."""
        kind = LONG.match(command)[1]  # type: ignore[index]
        if kind in self.started:
            self._stop(kind)
        before = self._ready()
        script = "\n".join([*self.state, f"exec {command}" if command.startswith("bakeoff") else command])
        log = self.installation.folder / f"page-{kind.replace(' ', '-')}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", script],
                env=self.environment, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        self.started[kind] = process

        def works() -> bool:
            assert process.poll() is None, f"{command}\n{log.read_text()[-3000:]}"
            if kind in {"worker", "scheduler"}:
                return bool(self._ready() - before)
            return {"api": "listens on", "curate serve": "are served", "flower": "http"}[kind] in log.read_text()

        wait_until(works, 120, lambda: f"{command}\n{log.read_text()[-3000:]}")

    def _ready(self) -> set[tuple[str, int]]:
        rows = self.installation.query("SELECT name, pid FROM worker WHERE status = 'ready'")
        return {(row.name, row.pid) for row in rows}

    def _stop_started(self) -> None:
        for kind in list(self.started):
            self._stop(kind)

    def _stop(self, kind: str) -> None:
        process = self.started.pop(kind)
        os.killpg(process.pid, 15)
        assert process.wait(60) in {0, -15}, f"bakeoff {kind} did not stop in order"

    def _filled(self, command: str) -> str:
        """A command with the page's addresses and stand-ins as they are here."""
        command = command.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}")
        if LONG.match(command) and " api" in command:
            command = command.replace("--port 8000", f"--port {free_port()}")
            if "--port" not in command:
                command = command.replace("bakeoff api", f"bakeoff api --port {free_port()}")
        for word, make in STAND_INS.items():
            while found := re.search(rf"(?<![\w$/-]){word}(?![\w=])", command.partition(" #")[0]):
                command = command[: found.start()] + make(self, command) + command[found.end() :]
        return command

    def _answers(self, path: str) -> bool:
        assert self.installation.processes["api"].poll() is None, self.installation.logs()
        try:
            return httpx.get(f"{self.url}{path}").status_code == 200
        except httpx.TransportError:
            return False

    @cached_property
    def looked_at(self) -> Any:
        """A task that is done, for commands that change nothing."""
        return self.finished_task()

    def finished_task(self, *options: str) -> Any:
        """A new task that is done, as `bakeoff show --json` tells it."""
        done = self.installation.run(
            "submit", f"for {os.urandom(4).hex()}", "-c", "text-generation", "--wait", "--json", *options
        )
        assert done.code == 0, done.err
        return done.json


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


#: First word of a command → why it is not run, and what is checked in its place.
NOT_HERE = {
    "docker": "there is no Docker engine; tests/unit/test_docker.py holds these commands against the compose file",
    "kubectl": "there is no cluster",
    "helm": "there is no cluster",
    "apt": "needs root, and changes the machine",
    "apt-get": "needs root, and changes the machine",
    "git": "this is the clone",
}


def reason_not_to_run(command: str) -> str:
    """Why a command is not run as it stands; what can be checked of it is checked here."""
    words = shlex.split(command, comments=True)
    if not words:
        return "nothing but comments"
    if words[0] in NOT_HERE:
        return NOT_HERE[words[0]]
    if words[0] == "make":
        targets = (ROOT / "Makefile").read_text()
        assert all(re.search(rf"^{word}\b.*:", targets, re.MULTILINE) for word in words[1:] if "=" not in word), command
        return "each target of make is run by tests of its own"
    if words[:2] == ["pip", "install"]:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        named = {one for word in words for found in re.findall(r"bakeoff\[(.*)\]", word) for one in found.split(",")}
        assert named <= set(extras), command
        return "the environment of the tests holds it already"
    if words[:2] in (["bakeoff", "up"], ["bakeoff", "down"]):
        said = subprocess.run(
            [sys.executable, "-m", "scheduler.cli", words[1], "--help"], capture_output=True, text=True, check=True
        ).stdout
        assert all(word in said for word in words if word.startswith("--")), command
        return "the quickstart's test and tests/integration/test_up.py start it whole"
    return ""


def _task(world: World, command: str) -> str:
    if command.startswith("bakeoff cancel"):
        return str(world.installation.run("submit", "for later", "--run-at", "1h", "--json").json["id"])
    if command.startswith(("bakeoff show", "bakeoff why")):
        return str(world.looked_at["id"])
    return str(world.finished_task()["id"])


def _subtask(world: World, _: str) -> str:
    return str(world.finished_task()["subtasks"][0]["id"])


def _delivery(world: World, _: str) -> str:
    """One that the running API has to make, for a task that ends after the webhook was added."""
    world.finished_task("--source", "shop")
    looked = "SELECT id FROM webhook_delivery LIMIT 1"
    wait_until(lambda: world.installation.query(looked), 30, world.installation.logs)
    return str(world.installation.query(looked)[0].id)


def _group(world: World, command: str) -> str:
    """The group that `bakeoff annotate next` shows to the annotator of the command."""
    words = shlex.split(command)
    annotator = words[words.index("--annotator") + 1]
    done = world.installation.run("annotate", "next", words[3], "--annotator", annotator, "--json")
    assert done.code == 0, done.err
    return str(done.json["group"])


#: What pages write where a reader puts something of their own.
STAND_INS = {
    "SUBTASK": _subtask,
    "TASK": _task,
    "BETTER": lambda *_: "alpha",
    "WORSE": lambda *_: "beta",
    "OTHER": lambda *_: "gamma",
    "DELIVERY": _delivery,
    "ID": _group,
    "NAME": lambda *_: "alpha",
    "JUDGE": lambda *_: "longest",
}
