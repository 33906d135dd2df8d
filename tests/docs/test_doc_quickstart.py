"""The quickstart as it stands: each block in its order, files saved under the names that the page gives, a real `up`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import wait_until
from tests.docs.blocks import ROOT, blocks_of
from tests.docs.installed import commands, free_port, reason_not_to_run
from tests.integration.test_up import Up

pytestmark = [pytest.mark.docs, pytest.mark.timeout(900)]

PAGE = ROOT / "docs" / "quickstart.md"
SAVED = re.compile(r"[Ss]ave (?:it|this) as `([\w.]+)`[^`]*```", re.DOTALL)


class Reader:
    """Somebody who follows the page in a folder of their own, with a port of their own for the model."""

    def __init__(self, folder: Path) -> None:
        self.up = Up(folder)
        self.port = str(free_port())
        self.background: list[subprocess.Popen[bytes]] = []
        self.task = ""

    def save(self, name: str, text: str) -> None:
        (self.up.folder / name).write_text(text.replace("9000", self.port))

    def follow(self, command: str) -> str:
        """Do what a command line says; what it prints."""
        if command.startswith("bakeoff up"):
            self.up.start()
            return ""
        if command.endswith("&"):
            self.background.append(subprocess.Popen(["bash", "-c", f"exec {command.rstrip('& ')}"], **self._place()))
            return ""
        if command.startswith("bakeoff watch"):
            wait_until(lambda: not self._open(), 120, self.up.printed)
        done = subprocess.run(
            ["bash", "-c", command.replace("TASK", self.task)],
            **self._place(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}\n{self.up.printed()}"
        if command.startswith("bakeoff submit --capability"):
            self.task = str(self.up.run("results", "--limit", "1", "--json").json[0]["task_id"])
        return done.stdout

    def _place(self) -> dict[str, Any]:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {"cwd": self.up.folder, "env": {**self.up.environment, "PATH": path, "COLUMNS": "200"}}

    def _open(self) -> list[Any]:
        rows = self.up.run("sql", "SELECT id FROM task WHERE finished_at IS NULL", "--json")
        return list(rows.json)

    def leave(self) -> None:
        for process in self.background:
            process.kill()
            process.wait(10)
        if self.up.process is not None and self.up.process.poll() is None:
            self.up.process.terminate()
            self.up.process.wait(60)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    made = Reader(tmp_path)
    yield made
    made.leave()


def names() -> dict[int, str]:
    """Line of a block's fence → the name under which the page says to save it."""
    text = PAGE.read_text()
    return {text.count("\n", 0, found.end()) + 1: found[1] for found in SAVED.finditer(text)}


def test_the_quickstart_runs_from_the_first_block_to_the_last(reader: Reader) -> None:
    # given the page, with its files saved as it says
    saved = names()
    assert sorted(saved.values()) == ["make_pictures.py", "models.toml", "my_model.py"]
    printed = {}

    # when somebody follows it
    for block in blocks_of(PAGE):
        if block.line in saved:
            reader.save(saved[block.line], block.text)
            continue
        assert block.language == "sh", f"{block}: who reads the page is not told what to do with it"
        for command in commands(block.text):
            words = command.split()
            left_out = words[:2] not in (["bakeoff", "up"], ["bakeoff", "down"]) and reason_not_to_run(command)
            if not left_out and words[0] not in {"cd", ".", "mkdir"}:
                printed[" ".join(words[:2])] = reader.follow(command)

    # then three models read each picture, one was chosen, and the board has all of them
    assert all(model in printed["bakeoff show"] for model in ("mine", "rapidocr", "ddddocr"))
    assert "12.50" in printed["bakeoff results"]
    assert all(model in printed["bakeoff leaderboard"] for model in ("mine", "rapidocr", "ddddocr"))
    assert reader.up.process is not None
    assert reader.up.process.wait(60) == 0
