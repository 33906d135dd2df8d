"""What the views and their columns mean, read from the page that is their contract: it is said in one place."""

from __future__ import annotations

import re
from pathlib import Path

CONTRACT = Path(__file__).resolve().parents[1] / "sql.md"
SECTION = re.compile(r"^## `(\w+)`: (.+)$")
ROW = re.compile(r"^\| `(\w+)` \|[^|]*\| *(.*?) *\|$")
LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")  # where they lead is said from there, not from here


def meanings() -> dict[str, dict[str, str]]:
    """View → column → meaning; under the empty name, what a row of the view is."""
    found: dict[str, dict[str, str]] = {}
    view = ""
    for line in CONTRACT.read_text().splitlines():
        if line.startswith("## "):
            section = SECTION.match(line)
            view = section[1] if section else ""
            if section:
                found[view] = {"": section[2]}
        elif view and (row := ROW.match(line)):
            found[view][row[1]] = LINK.sub(r"\1", row[2])
    return found
