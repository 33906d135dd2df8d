"""`bakeoff evaluate planner`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from db.errors import UsageError
from db.registry import PlannerEntry, Registry, read_registry
from db.settings import Settings, load_settings
from scheduler.evaluation.planner.report import Bench, evaluated
from scheduler.evaluation.planner.rows import read_rows, read_tools
from scheduler.evaluation.planner.running import Remembering
from worker.backends import Place, create_backend
from worker.planners import METHODS
from worker.weights import locate

if TYPE_CHECKING:
    from worker.backends import Backend

SHOWN = ("node_f1", "edge_f1", "type_f1", "edit_distance", "accuracy", "exact", "unparseable", "support")
NO_EMBEDDER = "none"


def planner_command(
    file: Annotated[Path, typer.Argument(help="Labelled requests, JSON lines: request, nodes, links.")],
    tools: Annotated[Path, typer.Option(help="The tools' descriptions, JSON lines: id, desc.")],
    planner: Annotated[str, typer.Option(help="A planner of the registry, or a method.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Test requests at most; default: all, or 60 (LLM).")] = None,
    model: Annotated[str | None, typer.Option(help="Language model of a method that needs one.")] = None,
    embedder: Annotated[
        str | None, typer.Option(help="Sentence embedder; default: the registry's first; `none`: words and letters.")
    ] = None,
    generated: Annotated[
        int | None,
        typer.Option(min=0, help="Generated requests to test on; default 240, or 30 (LLM); 0: none."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,  # noqa: FBT002 - typer's way
) -> None:
    """How right a planner's plans are: one half of the file is looked up, the other half is planned and compared."""
    from scheduler.cli.live import happening  # noqa: PLC0415 - the command line imports this module
    from scheduler.cli.output import print_json  # noqa: PLC0415 - the command line imports this module

    settings = load_settings()
    registry = read_registry(settings.registry_file)
    described = read_tools(_found(tools, settings))
    rows = read_rows(_found(file, settings), described)
    entry = planner_entry(registry, planner, model, embedder)
    writer = None if entry.model is None else loaded(registry, entry.model, settings)
    vectors = None if entry.embedder is None else Remembering(loaded(registry, entry.embedder, settings))
    with happening(f"{entry.name}: planning") as say:
        bench = Bench(
            entry=entry,
            model=writer,
            embedder=vectors,
            limit=limit,
            progress=lambda done, total: say(f"{entry.name}: {done} of {total} requests"),
        )
        report = evaluated(bench, rows, described, generated_count=generated)
    if as_json:
        print_json(report)
    else:
        _print(report)


def planner_entry(registry: Registry, name: str, model: str | None, embedder: str | None) -> PlannerEntry:
    """The registry's planner of that name, or that method with its defaults; options override what it names.

    Raises `UsageError` with the names there are.
    """
    known = registry.planners.get(name)
    if known is None:
        if name not in METHODS:
            there = ", ".join(sorted({*registry.planners, *METHODS}))
            raise UsageError(f"--planner {name!r} is no planner and no method; there are: {there}.")
        known = PlannerEntry(name=capable(name), method=name)
    vectors = embedder or known.embedder or _first_embedder(registry)
    return known.model_copy(
        update={"model": model or known.model, "embedder": None if vectors == NO_EMBEDDER else vectors}
    )


def capable(method: str) -> str:
    """A method as a name: `llm+retrieval` is no queue's name."""
    return method.replace("+", "-")


def _first_embedder(registry: Registry) -> str | None:
    return next(
        (
            name
            for name, entry in registry.models.items()
            if (found := registry.capabilities.get(entry.capability)) is not None and found.output == "vector"
        ),
        None,
    )


def loaded(registry: Registry, name: str, settings: Settings) -> Backend:
    """A model in this process, loaded. Raises `WeightsError` where its weights are not in the cache."""
    entry = registry.model(name)
    threads = settings.threads or os.cpu_count() or 1
    backend = create_backend(entry, Place(weights=locate(entry, settings.cache), threads=threads))
    backend.load()
    return backend


def _found(path: Path, settings: Settings) -> Path:
    """The file as named, else in the folder of the evaluation sets. Raises `UsageError`."""
    places = [path] if settings.eval_data is None else [path, settings.eval_data / path]
    for place in places:
        if place.is_file():
            return place
    hint = "BAKEOFF_EVAL_DATA is not set" if settings.eval_data is None else f"nor is it in {settings.eval_data}"
    raise UsageError(f"There is no file {path}, {hint}; name the path of an evaluation set.")


def _print(report: dict[str, Any]) -> None:
    from scheduler.cli.output import console, table  # noqa: PLC0415 - the command line imports this module

    out = table("requests", *(key.replace("_", " ") for key in SHOWN), wrap=())
    for name in ("file", "generated"):
        part = report if name == "file" else report.get(name)
        if part is not None:
            _add(out, name, part)
            for kind, figures in part["types"].items():
                _add(out, f"  {kind}", figures)
            for key in ("retrieval", "both_halves"):
                if key in part:
                    _add(out, f"  ({key.replace('_', ' ')})", part[key])
    console.print(out)
    parts = {"file": report, "generated": report.get("generated", {})}
    parts |= {f"{name}, both halves": part["both_halves"] for name, part in parts.items() if "both_halves" in part}
    for name, part in parts.items():
        for key, found in part.get("minus_retrieval", {}).items():
            console.print(
                f"{name}: {key} minus retrieval's: {found['difference']:+.3f}, "
                f"95 % interval {found['low']:+.3f} to {found['high']:+.3f}"
            )
    removed, kept = report["near_duplicates_removed"], report["train"]
    console.print(f"{kept} requests were there to look up; {removed} near-duplicates of test requests were taken out.")
    if report["short_list_recall"] is not None:
        console.print(f"The short list held {report['short_list_recall']:.1%} of the tools needed.")
    for reason in report["why_unparseable"]:
        console.print(f"unparseable: {reason}", soft_wrap=True)


def _add(out: Any, name: str, figures: dict[str, Any]) -> None:
    cells = ["" if (value := figures[key]) is None else f"{value:.3f}" if isinstance(value, float) else str(value)
             for key in SHOWN]  # fmt: skip
    out.add_row(name, *cells)
