"""Little sets of the published forms, as tests of judges need them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def written(folder: Path, rows: Sequence[dict[str, Any]], name: str = "set") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def sums(count: int = 120) -> list[dict[str, Any]]:
    """Sums that the first of three models solves mostly; where it does not, the two others agree on the right one."""
    rows = []
    for number in range(count):
        strong = number % 4 != 0
        rest = number if not strong else number + 7
        said = {"strong": number if strong else number + 1, "weak-1": rest, "weak-2": rest if not strong else rest + 1}
        rows.append(
            {
                "id": f"sum/{number}", "instruction": f"What is {number} + 0?", "reference": str(number),
                "candidates": [
                    {"model": m, "output": f"I add.\n#### {n}", "correct": int(n == number)} for m, n in said.items()
                ],
            }
        )  # fmt: skip
    return rows


def duels(count: int = 120) -> list[dict[str, Any]]:
    """Pairs whose better answer ends with a full stop and is the shorter one."""
    rows = []
    for number in range(count):
        good, bad = f"Answer {number}.", f"Answer {number} and so on and on"
        first = number % 2 == 0
        rows.append(
            {
                "id": number, "instruction": f"Question {number}?", "output_1": good if first else bad,
                "output_2": bad if first else good, "label": 1 if first else 2,
            }
        )  # fmt: skip
    return rows
