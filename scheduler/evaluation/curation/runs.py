"""Runs that are done, on disk: one file per arm and seed, found again by everything that decides its result."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from scheduler.evaluation.curation.training import Recipe, Trained

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from scheduler.evaluation.curation.arms import Arm
    from scheduler.evaluation.curation.rows import InstructionSet, Row
    from scheduler.evaluation.curation.training import Student

FORM = 1  # raise it when training changes what a run gives: old ones are then made anew
UNTRAINED = "untrained"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One arm with one seed."""

    arm: str
    seed: int
    rows: int
    seconds: float
    trained: Trained


class Runs:
    """Trains what is missing and keeps it; a killed command goes on with the first run that is not there."""

    def __init__(
        self,
        folder: Path,
        identity: str,
        student: Callable[[], Student],
        recipe: Recipe,
        progress: Callable[[str, int, int], None],
    ) -> None:
        self._folder, self._identity, self._recipe, self._progress = folder, identity, recipe, progress
        self._load = student
        self._student: Student | None = None

    def untrained(self, instructions: InstructionSet) -> Run:
        """The weights as they are, on the rows kept back."""
        held_out = instructions.held_out
        return self._run(
            instructions.name, UNTRAINED, 0, [], held_out, lambda student: student.untrained(held_out, self._recipe)
        )

    def trained(self, instructions: InstructionSet, arm: Arm, seed: int) -> Run:
        """An arm trained with a seed."""
        rows, held_out = arm.rows(seed), instructions.held_out
        what = f"{instructions.name}, {arm.name}, seed {seed}"
        return self._run(
            instructions.name,
            arm.name,
            seed,
            rows,
            held_out,
            lambda student: student.trained(
                rows, held_out, self._recipe, seed, lambda done, steps: self._progress(what, done, steps)
            ),
        )

    def _run(
        self,
        name: str,
        arm: str,
        seed: int,
        rows: Sequence[Row],
        held_out: Sequence[Row],
        train: Callable[[Student], Trained],
    ) -> Run:
        said = [
            FORM,
            self._identity,
            asdict(self._recipe),
            seed,
            [row.said for row in rows],
            [r.said for r in held_out],
        ]
        digest = hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]
        path = self._folder / f"{name}-{arm.replace(':', '-').replace('/', '-')}-{seed}-{digest}.json"
        if path.is_file():
            return _read(path)
        if self._student is None:
            self._student = self._load()
        started = time.monotonic()
        trained = train(self._student)
        run = Run(arm=arm, seed=seed, rows=len(rows), seconds=round(time.monotonic() - started, 2), trained=trained)
        self._folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps(asdict(run)))
        unfinished.replace(path)
        return run


def _read(path: Path) -> Run:
    said: dict[str, Any] = json.loads(path.read_text())
    return Run(**{**said, "trained": Trained(**said["trained"])})
