"""`bakeoff evaluate judge FILE --judge NAME` and `bakeoff evaluate selection FILE... --judge NAME`."""

from __future__ import annotations

import os
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from db.errors import UsageError
from db.registry import JudgeEntry, read_registry
from db.settings import load_settings
from scheduler.evaluation.judges.bench import Bench
from scheduler.evaluation.judges.cases import SplitName, is_pair, splits
from scheduler.evaluation.judges.pairs import judge_figures
from scheduler.evaluation.judges.replies import Remembering, Replies
from scheduler.evaluation.judges.rows import EvaluationSet, find_set, read_set
from scheduler.evaluation.judges.selection import outcomes, pooled, selection_figures
from worker.backends import LanguageModel, Place, create_backend
from worker.judges import METHODS
from worker.weights import locate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from db.registry import Registry
    from db.settings import Settings
    from worker.backends import Backend

ASKS_NOTHING = frozenset({"consensus", "scripted", "checks"})

JudgeName = Annotated[str, typer.Option("--judge", help="A judge of the registry, or a method of judging.")]
JudgeModel = Annotated[
    str | None, typer.Option(help="The language model it asks, from the registry; `none` for a jury without one.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Rows to report at most.")]
Seconds = Annotated[float | None, typer.Option(min=1, help="Begin no further row after so long.")]
Fit = Annotated[str | None, typer.Option("--fit", help="Rows to fit on; every row of FILE is reported then.")]
Blind = Annotated[bool, typer.Option("--blind", help="Hide which model answered; ranks are drawn by lot.")]
How = Annotated[
    SplitName, typer.Option("--split", help="`parts`: 50/20/30 by group; `folds`: 5, each fitted on the others.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What both commands take."""

    judge: JudgeEntry
    fit: str | None
    limit: int | None
    seconds: float | None
    blind: bool
    split: SplitName
    candidates: int = 4
    excluded: tuple[str, ...] = ()


def judge_command(
    file: Annotated[str, typer.Argument(help="A set of pairs: a file, or a name in BAKEOFF_EVAL_DATA.")],
    judge: JudgeName,
    judge_model: JudgeModel = None,
    fit: Fit = None,
    limit: Limit = None,
    seconds: Seconds = None,
    blind: Blind = False,  # noqa: FBT002 - typer reads an option from it
    split: How = "auto",
    as_json: AsJson = False,  # noqa: FBT002 - typer reads an option from it
) -> None:
    """How often a judge prefers the better of two answers: accuracy, consistency, calls.

    Only pairs whose label is no tie count. A judge's own tie counts one half, a judge that fails is wrong.
    """
    settings = load_settings()
    options = _options(settings, judge, judge_model, fit, limit, seconds, split, blind=blind)
    found = evaluated_judge(settings, file, options)
    _show({"judge": judge, **found}, as_json=as_json)


def selection_command(
    files: Annotated[list[str], typer.Argument(help="Sets of several models' answers; more than one are pooled.")],
    judge: JudgeName,
    judge_model: JudgeModel = None,
    fit: Fit = None,
    exclude_model: Annotated[list[str] | None, typer.Option(help="Leave a candidate out; repeatable.")] = None,
    candidates: Annotated[int, typer.Option(min=2, max=16, help="Models per row, best on the rows fitted on.")] = 4,
    limit: Limit = None,
    seconds: Seconds = None,
    blind: Blind = False,  # noqa: FBT002 - typer reads an option from it
    split: How = "auto",
    as_json: AsJson = False,  # noqa: FBT002 - typer reads an option from it
) -> None:
    """What a judge's choice scores: beside random, longest, consensus, the best single model and an oracle."""
    settings = load_settings()
    options = _options(
        settings, judge, judge_model, fit, limit, seconds, split, blind=blind,
        candidates=candidates, excluded=tuple(exclude_model or ()),
    )  # fmt: skip
    found = evaluated_selection(settings, files, options)
    _show({"judge": judge, **found}, as_json=as_json)


def evaluated_judge(settings: Settings, file: str, options: Options) -> dict[str, Any]:
    """The figures of `evaluate judge`."""
    evaluation = _read(settings, file, options)
    if not is_pair(evaluation.rows[0]):
        raise UsageError(f"FILE = {file!r} has several models' answers: use `bakeoff evaluate selection`.")
    untied = _untied(evaluation)
    learn = _untied(_read(settings, options.fit, options)) if options.fit else None
    with asking(settings, options.judge) as model:
        how, bench, asked = _run(untied, learn, options, model)
        figures = judge_figures(asked, bench)
    ties = len(evaluation.rows) - len(untied.rows)
    return {"set": evaluation.name, "ties_left_out": ties, **_about(how, bench, options, model), **figures}


def evaluated_selection(settings: Settings, files: list[str], options: Options) -> dict[str, Any]:
    """The figures of `evaluate selection`: of one set, or of each and all pooled."""
    found, rows = [], {}
    with asking(settings, options.judge) as model:
        for file in files:
            evaluation = _read(settings, file, options)
            if is_pair(evaluation.rows[0]):
                raise UsageError(f"FILE = {file!r} has pairs: use `bakeoff evaluate judge`.")
            learn = _read(settings, options.fit, options) if options.fit else None
            before = model.asked if model else 0
            how, bench, asked = _run(evaluation, learn, options, model)
            rows[evaluation.name] = outcomes(asked, evaluation.kind)
            about = _about(how, bench, options, model)
            about["model_calls"] = (model.asked if model else 0) - before
            head = {"set": evaluation.name, "note": evaluation.kind.note, "candidates": options.candidates}
            found.append(head | about | selection_figures(rows[evaluation.name]))
    return found[0] if len(found) == 1 else {"sets": found, "pooled": pooled(rows)}


def _read(settings: Settings, file: str, options: Options) -> EvaluationSet:
    return read_set(find_set(file, settings.eval_data), options.excluded)


def _untied(evaluation: EvaluationSet) -> EvaluationSet:
    rows = tuple(row for row in evaluation.rows if len(set(row.scores.values())) > 1)
    return EvaluationSet(name=evaluation.name, kind=evaluation.kind, rows=rows)


def _run(
    evaluation: EvaluationSet, learn: EvaluationSet | None, options: Options, model: Remembering | None
) -> tuple[str, Bench, list[Any]]:
    how, parts = splits(evaluation, options.split, learn)
    bench = Bench(
        entry=options.judge, model=model, kind=evaluation.kind, blind=options.blind,
        candidates=options.candidates, limit=options.limit, seconds=options.seconds,
    )  # fmt: skip
    return how, bench, bench.run(parts)


def _about(how: str, bench: Bench, options: Options, model: Remembering | None) -> dict[str, Any]:
    return {
        "method": options.judge.method,
        "judge_model": model.identity if model else None,
        "split": how,
        "blind": options.blind,
        "seconds": round(time.monotonic() - bench.started, 2),
        "learning_calls": bench.learning_calls,
        "model_calls": model.asked if model else 0,
        "errors": sorted(set(bench.errors))[:5],
        "fitted": bench.cards,
    }


def _options(
    settings: Settings,
    judge: str,
    model: str | None,
    fit: str | None,
    limit: int | None,
    seconds: float | None,
    split: SplitName,
    *,
    blind: bool,
    candidates: int = 4,
    excluded: tuple[str, ...] = (),
) -> Options:
    return Options(
        judge=judge_entry(read_registry(settings.registry_file), judge, model),
        fit=fit, limit=limit, seconds=seconds, blind=blind, split=split, candidates=candidates, excluded=excluded,
    )  # fmt: skip


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


def _show(found: dict[str, Any], *, as_json: bool) -> None:
    from scheduler.cli.output import console, print_json, table  # noqa: PLC0415 - the CLI imports this module

    if as_json:
        print_json(found)
        return
    sets = found.get("sets") or [found]
    for one in sets:
        console.print(f"{one['set']}, {found['judge']}, {one['split']}{', blind' if one['blind'] else ''}")
        out = table("figure", "value", wrap=())
        for name, value in one.items():
            if isinstance(value, float | int) and not isinstance(value, bool):
                interval = one.get(f"{name}_interval")
                said = f"{value:.3f}" if isinstance(value, float) else str(value)
                out.add_row(name, said + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""))
        console.print(out)
    if "pooled" in found:
        interval = found["pooled"]["recovered_interval"]
        said = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
        console.print(f"pooled: recovered {found['pooled']['recovered'] or 0:.3f}{said}")
