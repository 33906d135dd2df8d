"""What each arm trains on: everything, or so many rows by lot, by length, or by somebody's choice.

A source of curated rows is `ifd`, a scorer of the registry, `flag:FIELD` (rows whose field is true, as published
filters mark them) or a file that a curation job left. None of them looks at the rows kept back.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from db.errors import UsageError
from scheduler.evaluation.curation.rows import Row, is_held_out, read_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scheduler.evaluation.curation.rows import InstructionSet

ALL, RANDOM, LONGEST, CURATED = ARMS = ("all", "random", "longest", "curated")
FLAG = "flag:"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A name, and the rows for a seed. `note` says what a reader of its figures should know."""

    name: str
    rows: Callable[[int], list[Row]]
    note: str | None = None


def budget(rows: int, share: float) -> int:
    """How many rows a share is, at least one."""
    return max(1, math.floor(share * rows + 0.5))


def plain_arm(name: str, rows: Sequence[Row], share: float) -> Arm:
    """All rows, so many by lot (others for each seed), or those with the longest answers."""
    count = budget(len(rows), share)
    if name == ALL:
        return Arm(name=name, rows=lambda _: list(rows))
    if name == RANDOM:
        return Arm(name=name, rows=lambda seed: random.Random(seed).sample(list(rows), count))  # noqa: S311 - no secret
    longest = sorted(rows, key=lambda row: (-row.answer_length, row.key))[:count]
    return Arm(name=name, rows=lambda _: list(longest))


def scored_arm(name: str, rows: Sequence[Row], scores: Sequence[float | None], share: float) -> Arm:
    """The rows with the highest scores; those without one are left out."""
    known = [(row, score) for row, score in zip(rows, scores, strict=True) if score is not None]
    best = [row for row, _ in sorted(known, key=lambda pair: (-pair[1], pair[0].key))[: budget(len(rows), share)]]
    if not best:
        raise UsageError(f"The arm {name!r} has no rows: nothing scores.")
    return Arm(name=name, rows=lambda _: list(best))


def flagged_arm(name: str, rows: Sequence[Row], field: str) -> Arm:
    """The rows whose field is true: as many as there are. Raises `UsageError` where no row has it."""
    if not any(field in row.record for row in rows):
        raise UsageError(f"--curated {FLAG}{field}: no row has a field {field!r}.")
    kept = [row for row in rows if row.record.get(field)]
    if not kept:
        raise UsageError(f"--curated {FLAG}{field}: the field is true of no row to train on.")
    return Arm(name=name, rows=lambda _: list(kept), note=f"{len(kept)} rows, as many as the field is true of")


def exported_arm(name: str, path: Path, instructions: InstructionSet, held_out: float) -> Arm:
    """The rows that a curation job kept, with the answers that it gave them, without those of groups kept back.

    Raises `UsageError` where the file has rows of another set, or none to train on.
    """
    found, _, _ = read_rows(path)
    known = {row.group for row in (*instructions.train, *instructions.held_out)}
    strangers = sum(row.group not in known for row in found)
    if strangers:
        raise UsageError(
            f"--curated {path}: {strangers} of its {len(found)} rows are about nothing in {instructions.name}."
        )
    kept = [row for row in found if not is_held_out(row.group, held_out)]
    if not kept:
        raise UsageError(f"--curated {path} has no rows to train on.")
    saw = len(found) - len(kept)
    note = f"{len(kept)} rows, as many as the job kept" + (
        f"; it also saw rows that are kept back ({saw} among those it kept): run it on `--write-train` alone"
        if saw
        else ""
    )
    return Arm(name=name, rows=lambda _: list(kept), note=note)
