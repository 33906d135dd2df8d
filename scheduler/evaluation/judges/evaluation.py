"""One judge on sets: every figure with names and track record known, and again with them hidden."""

from __future__ import annotations

import os
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from db.errors import UsageError
from db.registry import JudgeEntry, read_registry
from scheduler.evaluation.judges.bench import Bench
from scheduler.evaluation.judges.cases import SplitName, is_pair, splits
from scheduler.evaluation.judges.pairs import judge_figures
from scheduler.evaluation.judges.queue import run_queued
from scheduler.evaluation.judges.replies import Remembering, Replies
from scheduler.evaluation.judges.rows import EvaluationSet, find_set, read_set
from scheduler.evaluation.judges.selection import outcomes, pooled, selection_figures
from worker.backends import LanguageModel, Place, create_backend
from worker.judges import METHODS
from worker.weights import locate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from db.registry import Registry
    from db.settings import Settings
    from scheduler.evaluation.judges.bench import Asked
    from scheduler.evaluation.judges.selection import Outcome
    from worker.backends import Backend

ASKS_NOTHING = frozenset({"consensus", "scripted", "checks"})
Names = Literal["both", "known", "hidden"]
KNOWN, HIDDEN = "known", "hidden"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What can be said on the command line. `seconds` bound everything; `queue`: through a system of its own."""

    judge: JudgeEntry
    fit: str | None = None
    limit: int | None = None
    seconds: float | None = None
    names: Names = "both"
    split: SplitName = "auto"
    candidates: int = 4
    excluded: tuple[str, ...] = ()
    queue: bool = False

    @property
    def runs(self) -> tuple[str, ...]:
        """What is measured of every set, in this order."""
        return (KNOWN, HIDDEN) if self.names == "both" else (self.names,)


@dataclass(kw_only=True)
class _Budget:
    """Seconds, shared by the runs that are still to come."""

    seconds: float | None
    runs: int
    started: float = field(default_factory=time.monotonic)

    def share(self) -> float | None:
        """What the next run may take."""
        left, self.runs = self.runs, self.runs - 1
        if self.seconds is None:
            return None
        return max(0.0, self.seconds - (time.monotonic() - self.started)) / max(1, left)


@dataclass(frozen=True, kw_only=True)
class _Run:
    """A set with names known or hidden: what was asked, and what is to be said about it."""

    asked: list[Asked]
    about: dict[str, Any]


def evaluated_judge(settings: Settings, file: str, options: Options) -> dict[str, Any]:
    """The figures of `evaluate judge`."""
    evaluation = _read(settings, file, options)
    if not is_pair(evaluation.rows[0]):
        raise UsageError(f"FILE = {file!r} has several models' answers: use `bakeoff evaluate selection`.")
    untied = _untied(evaluation)
    if not untied.rows:
        raise UsageError(f"FILE = {file!r} has {len(evaluation.rows)} pairs, and every one of them is a tie.")
    learn = _untied(_read(settings, options.fit, options)) if options.fit else None
    nameless = not any(row.names for row in untied.rows)
    runs = options.runs[:1] if nameless else options.runs
    budget = _Budget(seconds=options.seconds, runs=len(runs))
    with asking(settings, options.judge) as model:
        found = {}
        for names in runs:
            run = _run(settings, untied, learn, options, names, model, budget.share())
            found[names] = run.about | judge_figures(run.asked)
    if nameless and options.names == "both":
        found[HIDDEN] = found[KNOWN] | {"note": "the set tells no names"}
    head = {"set": evaluation.name, "ties_left_out": len(evaluation.rows) - len(untied.rows)}
    return _beside({names: head | one for names, one in found.items()})


def evaluated_selection(settings: Settings, files: Sequence[str], options: Options) -> dict[str, Any]:
    """The figures of `evaluate selection`: of one set, or of each and all pooled."""
    budget = _Budget(seconds=options.seconds, runs=len(files) * len(options.runs))
    sets: list[dict[str, Any]] = []
    rows: dict[str, dict[str, list[Outcome]]] = {names: {} for names in options.runs}
    with asking(settings, options.judge) as model:
        for file in files:
            evaluation = _read(settings, file, options)
            if is_pair(evaluation.rows[0]):
                raise UsageError(f"FILE = {file!r} has pairs: use `bakeoff evaluate judge`.")
            learn = _read(settings, options.fit, options) if options.fit else None
            found = {}
            for names in options.runs:
                run = _run(settings, evaluation, learn, options, names, model, budget.share())
                rows[names][evaluation.name] = outcomes(run.asked, evaluation.kind)
                head = {"set": evaluation.name, "note": evaluation.kind.note, "candidates": options.candidates}
                found[names] = head | run.about | selection_figures(rows[names][evaluation.name])
            sets.append(_beside(found))
    if len(sets) == 1:
        return sets[0]
    return {"sets": sets, "pooled": _beside({names: pooled(own) for names, own in rows.items()})}


def _beside(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The figures of the first run, with those of the blind one under `blind`."""
    first, *rest = found.values()
    return first | ({"blind": rest[0]} if rest else {})


def _read(settings: Settings, file: str, options: Options) -> EvaluationSet:
    return read_set(find_set(file, settings.eval_data), options.excluded)


def _untied(evaluation: EvaluationSet) -> EvaluationSet:
    rows = tuple(row for row in evaluation.rows if len(set(row.scores.values())) > 1)
    return EvaluationSet(name=evaluation.name, kind=evaluation.kind, rows=rows)


def _run(
    settings: Settings,
    evaluation: EvaluationSet,
    learn: EvaluationSet | None,
    options: Options,
    names: str,
    model: Remembering | None,
    seconds: float | None,
) -> _Run:
    how, parts = splits(evaluation, options.split, learn)
    bench = Bench(
        entry=options.judge, model=model, kind=evaluation.kind, blind=names == HIDDEN,
        candidates=options.candidates, limit=options.limit, seconds=seconds,
    )  # fmt: skip
    before = model.asked if model else 0
    asked = run_queued(settings, bench, parts) if options.queue else bench.run(parts)
    about = {
        "method": options.judge.method,
        "judge_model": model.identity if model else None,
        "split": how,
        "names": names,
        "queue": options.queue,
        "rows": bench.due,
        "cut": bench.cut or len(asked) < bench.due,
        "seconds": round(time.monotonic() - bench.started, 2),
        "learning_calls": bench.learning_calls,
        "model_calls": (model.asked if model else 0) - before,
        "errors": sorted(set(bench.errors))[:5],
        "fitted": bench.cards,
    }
    return _Run(asked=asked, about=about)


def judge_entry(registry: Registry, name: str, model: str | None) -> JudgeEntry:
    """A judge of the registry, or a method with a language model: the one named, else that of the first judge.

    Raises `UsageError` for a name that is neither.
    """
    entry = registry.judges.get(name)
    if entry is None and name not in METHODS:
        known = ", ".join(sorted({*registry.judges, *METHODS}))
        raise UsageError(f"--judge = {name!r} is no judge of the registry and no method; there are: {known}.")
    if entry is None:
        first = next((judge.model for judge in registry.judges.values() if judge.model is not None), None)
        entry = JudgeEntry(name=name, method=name, model=None if name in ASKS_NOTHING else first)
    if model is not None:
        entry = entry.model_copy(update={"model": None if model == "none" else model})
    return entry


@contextmanager
def asking(settings: Settings, entry: JudgeEntry) -> Iterator[Remembering | None]:
    """A judge's language model, with the replies that are on disk; loaded when a reply is missing."""
    if entry.model is None:
        yield None
        return
    backend = _backend(settings, entry.model)
    if not isinstance(backend, LanguageModel):
        raise UsageError(f"--judge {entry.name}: backend {backend.model.backend!r} of {entry.model} has no identity.")

    def loaded() -> LanguageModel:
        backend.load()
        return backend

    with closing(Replies(settings.cache)) as replies:
        try:
            yield Remembering(backend.identity, loaded, replies)
        finally:
            backend.close()


def _backend(settings: Settings, name: str) -> Backend:
    model = read_registry(settings.registry_file).model(name)
    device = settings.device if settings.device != "auto" else model.device
    threads = settings.threads or max(1, (os.cpu_count() or 2) // 2)
    return create_backend(model, Place(weights=locate(model, settings.cache), device=device, threads=threads))
