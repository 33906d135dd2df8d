"""One evaluation from beginning to end: sets, arms, runs, figures."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from db.registry import read_registry
from scheduler.evaluation.curation.arms import CURATED, FLAG, exported_arm, flagged_arm, plain_arm, scored_arm
from scheduler.evaluation.curation.report import compared
from scheduler.evaluation.curation.runs import Runs
from scheduler.evaluation.curation.scoring import IFD, Scorer, ifd_of
from scheduler.evaluation.curation.training import Recipe, Student
from scheduler.evaluation.judges.replies import Replies
from scheduler.evaluation.judges.rows import find_set
from worker.backends import Place, create_backend
from worker.weights import identity, locate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from db.registry import ModelEntry
    from db.settings import Settings
    from scheduler.evaluation.curation.arms import Arm
    from scheduler.evaluation.curation.rows import InstructionSet
    from scheduler.evaluation.curation.runs import Run
    from worker.backends import Backend

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
    place = _place(settings, entry)
    bench = _Bench(lambda: Student(entry, place))
    found = []
    for instructions in sets:
        recipe = Recipe(tokens=options.tokens or bench.student().count(instructions.train, Recipe(tokens=1)))
        runs = Runs(options.state, identity(entry, place.weights), bench.student, recipe, progress)
        arms = [arm for name in options.arms for arm in _made(settings, name, instructions, options, progress)]
        untrained = runs.untrained(instructions)
        trained: dict[str, list[Run]] = {arm.name: [] for arm in arms}
        for seed in range(1, options.seeds + 1):  # all arms with a seed, then the next: what is cut short is whole
            for arm in arms:
                trained[arm.name].append(runs.trained(instructions, arm, seed))
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
    registry = read_registry(settings.registry_file)
    if source == IFD:
        scorer = ifd_of(registry.model(options.model))
    elif source in registry.models:
        scorer = registry.model(source)
    else:
        return exported_arm(name, find_set(source, settings.eval_data), instructions, options.held_out)
    with closing(Replies(settings.cache)) as replies, closing(_scorer(settings, scorer, replies)) as asked:
        scores = []
        for number, row in enumerate(instructions.train, start=1):
            scores.append(asked.score(row))
            progress(f"{instructions.name}, scored by {scorer.name}", number, len(instructions.train))
    return scored_arm(name, instructions.train, scores, options.share)


def _scorer(settings: Settings, entry: ModelEntry, replies: Replies) -> Scorer:
    place = _place(settings, entry)

    def loaded() -> Backend:
        backend = create_backend(entry, place)
        backend.load()
        return backend

    return Scorer(entry, identity(entry, place.weights), loaded, replies)


def _place(settings: Settings, entry: ModelEntry) -> Place:
    device = settings.device if settings.device != "auto" else entry.device
    return Place(weights=locate(entry, settings.cache), device=device, threads=settings.threads or 1)
