"""One evaluation from beginning to end: sets, arms, runs, figures."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from db.errors import UsageError
from db.registry import JudgeEntry, read_registry
from scheduler.evaluation.curation.arms import (
    CURATED,
    FLAG,
    IFD,
    exported_arm,
    flagged_arm,
    plain_arm,
    scored_arm,
)
from scheduler.evaluation.curation.report import compared
from scheduler.evaluation.curation.runs import Runs
from scheduler.evaluation.curation.scoring import instruction_following_difficulty
from scheduler.evaluation.curation.training import Recipe, Student
from scheduler.evaluation.judges.evaluation import asking
from scheduler.evaluation.judges.rows import find_set
from worker.backends import Place
from worker.weights import identity, locate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from db.settings import Settings
    from scheduler.evaluation.curation.arms import Arm
    from scheduler.evaluation.curation.rows import InstructionSet

    #: What is being done, so much of it, of so much.
    Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is compared. `tokens` None: as many as one pass over all rows takes; `state` keeps runs that are done."""

    arms: tuple[str, ...]
    curated: tuple[str, ...]
    seeds: int
    share: float
    held_out: float
    tokens: int | None
    model: str
    state: Path


def evaluated(
    settings: Settings, sets: Sequence[InstructionSet], options: Options, progress: Progress
) -> dict[str, Any]:
    """The figures of every set."""
    entry = read_registry(settings.registry_file).model(options.model)
    weights = locate(entry, settings.cache)
    device = settings.device if settings.device != "auto" else entry.device
    bench = _Bench(lambda: Student(entry, Place(weights=weights, device=device, threads=settings.threads or 1)))
    found = []
    for instructions in sets:
        recipe = Recipe(tokens=options.tokens or bench.student().count(instructions.train, Recipe(tokens=1)))
        runs = Runs(options.state, identity(entry, weights), bench.student, recipe, progress)
        arms = [arm for name in options.arms for arm in _made(settings, name, instructions, options, progress)]
        untrained = runs.untrained(instructions)
        trained = {
            arm.name: [runs.trained(instructions, arm, seed) for seed in range(1, options.seeds + 1)] for arm in arms
        }
        found.append({"recipe": asdict(recipe), **compared(instructions, arms, trained, untrained)})
    return {"model": options.model, "share": options.share, "seeds": options.seeds, "sets": found}


class _Bench:
    """The student, loaded when a run needs it, and once."""

    def __init__(self, load: Callable[[], Student]) -> None:
        self._load = load
        self._student: Student | None = None

    def student(self) -> Student:
        if self._student is None:
            self._student = self._load()
        return self._student


def _made(
    settings: Settings, name: str, instructions: InstructionSet, options: Options, progress: Progress
) -> list[Arm]:
    """The arms of a name: more than one where several curate."""
    if name != CURATED:
        return [plain_arm(name, instructions.train, options.share)]
    several = len(options.curated) > 1
    return [
        _curated(settings, _name(source) if several else CURATED, source, instructions, options, progress)
        for source in options.curated
    ]


def _name(source: str) -> str:
    return f"{CURATED}:{Path(source.removeprefix(FLAG)).stem}"


def _curated(
    settings: Settings, name: str, source: str, instructions: InstructionSet, options: Options, progress: Progress
) -> Arm:
    if source.startswith(FLAG):
        return flagged_arm(name, instructions.train, source.removeprefix(FLAG))
    if source != IFD:
        return exported_arm(name, find_set(source, settings.eval_data), instructions, options.held_out)
    with asking(settings, JudgeEntry(name=IFD, method="nll", model=options.model)) as model:
        if model is None:
            raise UsageError(f"--model {options.model!r} gives no probabilities of text, which --curated ifd needs.")
        scores = []
        for number, row in enumerate(instructions.train, start=1):
            scores.append(instruction_following_difficulty(model, row))
            progress(f"{instructions.name}, ifd", number, len(instructions.train))
    return scored_arm(name, instructions.train, scores, options.share)
