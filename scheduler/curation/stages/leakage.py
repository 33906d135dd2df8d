"""The leakage gate: no record may hold what an evaluation set asks.

An item of a set leaks into a record where the record has at least `share` of the item's runs of `run` words. Items
below `least_words` words are no evidence ("What is in the picture?" is everybody's) and are counted in the notes.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from db.errors import UsageError
from scheduler.curation.options import StageOptions
from scheduler.curation.reading import Reader, digest_of_file
from scheduler.curation.recipe_files import find_file
from scheduler.curation.shingles import runs_of, words_of
from scheduler.curation.stages.alone import Alone
from scheduler.curation.turns import turns_of

if TYPE_CHECKING:
    from db.curation_records import Record
    from scheduler.curation.run import Run

#: Fields of an evaluation set that may hold what it asks.
FIELDS = ("instruction", "question", "request", "source_text", "dialogue", "prompt")


class LeakageOptions(StageOptions):
    """`sets`: files of JSON lines or a JSON array; a relative path is looked for in BAKEOFF_EVAL_DATA."""

    sets: tuple[Path, ...] = ()
    fields: tuple[str, ...] = FIELDS
    run: int = Field(5, ge=2, le=20)
    share: float = Field(0.5, gt=0, le=1)
    least_words: int = Field(8, ge=2)


class Leakage(Alone[LeakageOptions]):
    """Compares records with the items of all sets. Memory grows with the sets, not with the input."""

    Options = LeakageOptions

    def prepare(self, run: Run) -> None:
        """Read the sets. Raises `UsageError` for one that is not there or has none of the fields."""
        self._items: dict[str, list[int]] = {}  # run of words → items that have it
        self._sizes: list[int] = []
        self._from: list[str] = []
        read: dict[str, dict[str, int | str]] = {}
        for file in self.options.sets:
            path = find_file(Path(), file, run.settings.eval_data)
            read[file.name] = {**self._read(path), "sha256": digest_of_file(path)}
        run.notes["leakage"] = read

    def _read(self, path: Path) -> dict[str, int]:
        items = short = 0
        for line in Reader(path):
            row: Any = json.loads(line)
            said = [row[field] for field in self.options.fields if isinstance(row, dict) and field in row]
            for text in filter(lambda one: isinstance(one, str), said):
                words = words_of(text)
                if len(words) < self.options.least_words:
                    short += 1
                    continue
                items += 1
                self._add(runs_of(words, self.options.run), path.name)
        if not items and not short:
            raise UsageError(
                f"leakage.sets: {path.name} has none of the fields {', '.join(self.options.fields)}; name its own in "
                "leakage.fields."
            )
        return {"items": items, "too_short": short}

    def _add(self, runs: set[str], name: str) -> None:
        for run in runs:
            self._items.setdefault(run, []).append(len(self._sizes))
        self._sizes.append(len(runs))
        self._from.append(name)

    def fault(self, record: Record) -> tuple[str, str] | None:
        """Whether an item is in the record, and which set it is of."""
        turns = turns_of(record.data, self.names)
        words = words_of(" ".join(f"{turn.asked} {turn.answer}" for turn in turns))
        seen: Counter[int] = Counter()
        for run in runs_of(words, self.options.run):
            for item in self._items.get(run, ()):
                seen[item] += 1
        best = max(seen, key=lambda item: (seen[item] / self._sizes[item], -item), default=None)
        if best is None or seen[best] / self._sizes[best] < self.options.share:
            return None
        share = seen[best] / self._sizes[best]
        return "leak", f"It holds {share:.0%} of an item of {self._from[best]}."
