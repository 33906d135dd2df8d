"""`bakeoff evaluate selectors FILE --queue`: a small set through real servers and processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scheduler.evaluation.selectors.queue import ARMS, DRAWN

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]


def tiny_set(folder: Path) -> Path:
    """12 inputs of two kinds and 4 models: `Coder` and `Poet` are right on one kind each, `Weak` and `Odd` never.

    Two inputs have the same words, and are known by their ids.
    """
    lines = []
    for number in range(12):
        code = number % 2 == 0
        text = f"write python code for function {number}" if code else f"compose a poem about autumn, verse {number}"
        said = {"Coder": code, "Poet": not code, "Weak": False, "Odd": False}
        lines.append(
            {
                "id": f"tiny/{number}",
                "instruction": "write python code" if number in {0, 2} else text,
                "candidates": [
                    {
                        "model": model,
                        "output": f"{model} on {number}: #### {number if right else place}",
                        "correct": right,
                    }
                    for place, (model, right) in enumerate(said.items(), start=100)
                ],
            }
        )
    file = folder / "tiny.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines))
    return file


def evaluate(file: Path, *arguments: str) -> Any:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BAKEOFF_")}
    done = subprocess.run(
        [sys.executable, "-m", "scheduler.cli", "evaluate", "selectors", str(file), "--queue", "--json", *arguments],
        cwd=ROOT,
        env=clean,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_set_is_replayed_chosen_and_judged(tmp_path: Path) -> None:
    # given
    file = tiny_set(tmp_path)

    # when
    report = evaluate(file, "--k", "1", "--k", "2")

    # then everything was asked, answered and judged
    assert report["queue"]["tasks"] == len(ARMS) * 2 * 6
    assert report["queue"]["candidates"] == len(ARMS) * (1 + 2) * 6
    assert (report["queue"]["failed"], report["queue"]["unjudged"]) == (0, 0)
    # and the queue's history is that of the fit rows, and made it choose as it does here
    assert report["history"]["entries"] == report["fit"] == 6
    for arm, shares in report["agreement"].items():
        assert shares["1"]["own"] == shares["2"]["own"] == 1.0, arm
    assert report["agreement"]["track_record"]["2"]["proposed"] == 1.0
    # and it is measured with an oracle and with the judge
    scores = {arm: {k: one["score"]["mean"] for k, one in sizes.items()} for arm, sizes in report["arms"].items()}
    assert scores["track_record"]["2"] == scores["nearest"]["2"] == 1.0  # Coder and Poet know everything together
    assert scores["track_record"]["1"] == scores["track_record judged"]["1"] < 1.0
    assert scores["track_record judged"]["2"] <= scores["track_record"]["2"]
    assert f"{DRAWN} judged" in scores
