"""Stored examples: requests with plans that are known to be right, one JSON object per line.

{"request": "Transcribe this.", "kinds": ["audio"], "steps": [{"id": "hear", "capability": ..., "inputs": [...]}]}
"""

from __future__ import annotations

import json
from pathlib import Path

from db.errors import UsageError
from db.plan import PlanError
from worker.planners import Example
from worker.planners.checking import read_plan

EXAMPLES = Path(__file__).parent / "examples.jsonl"  # our own, over the capabilities of models.toml


def load_examples(path: Path = EXAMPLES) -> list[Example]:
    """Read a library. Raises `UsageError`, which names the file and the line."""
    examples: list[Example] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UsageError(f"The examples of plans cannot be read: {error}.") from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                row = json.loads(line)
                plan = read_plan({"steps": row["steps"]})
                examples.append(Example(request=str(row["request"]), plan=plan, kinds=tuple(row.get("kinds", ()))))
            except (ValueError, KeyError, TypeError, PlanError) as error:
                raise UsageError(f"{path}, line {number} is no example ({type(error).__name__}: {error}).") from None
    return examples
