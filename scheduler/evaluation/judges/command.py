"""`bakeoff evaluate judge FILE --judge NAME` and `bakeoff evaluate selection FILE... --judge NAME`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from db.registry import read_registry
from db.settings import load_settings
from scheduler.evaluation.judges.cases import SplitName
from scheduler.evaluation.judges.evaluation import Names, Options, evaluated_judge, evaluated_selection, judge_entry

JudgeName = Annotated[str, typer.Option("--judge", help="A judge of the registry, or a method of judging.")]
JudgeModel = Annotated[
    str | None, typer.Option(help="The language model it asks, from the registry; `none` for a jury without one.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Rows to report at most.")]
Seconds = Annotated[float | None, typer.Option(min=1, help="Begin no further row after so long, all runs together.")]
Fit = Annotated[str | None, typer.Option("--fit", help="Rows to fit on; every row of FILE is reported then.")]
Known = Annotated[
    Names, typer.Option("--names", help="Whether judges know which model answered; hidden, ranks are drawn by lot.")
]
Queue = Annotated[bool, typer.Option("--queue", help="Replay the answers through a queue started for it.")]
How = Annotated[
    SplitName, typer.Option("--split", help="`parts`: 50/20/30 by group; `folds`: 5, each fitted on the others.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def judge_command(
    file: Annotated[str, typer.Argument(help="A set of pairs: a file, or a name in BAKEOFF_EVAL_DATA.")],
    judge: JudgeName,
    judge_model: JudgeModel = None,
    fit: Fit = None,
    limit: Limit = None,
    seconds: Seconds = None,
    names: Known = "both",
    split: How = "auto",
    queue: Queue = False,  # noqa: FBT002 - typer reads an option from it
    as_json: AsJson = False,  # noqa: FBT002 - typer reads an option from it
) -> None:
    """How often a judge prefers the better of two answers: accuracy, consistency, calls.

    Only pairs whose label is no tie count. A judge's own tie counts one half, a judge that fails is wrong.
    """
    settings = load_settings()
    entry = judge_entry(read_registry(settings.registry_file), judge, judge_model)
    options = Options(judge=entry, fit=fit, limit=limit, seconds=seconds, names=names, split=split, queue=queue)
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
    names: Known = "both",
    split: How = "auto",
    queue: Queue = False,  # noqa: FBT002 - typer reads an option from it
    as_json: AsJson = False,  # noqa: FBT002 - typer reads an option from it
) -> None:
    """What a judge's choice scores: beside random, longest, consensus, the best single model and an oracle."""
    settings = load_settings()
    options = Options(
        judge=judge_entry(read_registry(settings.registry_file), judge, judge_model),
        fit=fit, limit=limit, seconds=seconds, names=names, split=split, queue=queue,
        candidates=candidates, excluded=tuple(exclude_model or ()),
    )  # fmt: skip
    found = evaluated_selection(settings, files, options)
    _show({"judge": judge, **found}, as_json=as_json)


def _show(found: dict[str, Any], *, as_json: bool) -> None:
    from scheduler.cli.output import console, print_json, table  # noqa: PLC0415 - the CLI imports this module

    if as_json:
        print_json(found)
        return
    for one in found.get("sets") or [found]:
        beside = one.get("blind", {})
        console.print(f"{one['set']}, {found['judge']}, {one['split']}, {one['support']} of {one['rows']} rows")
        out = table("figure", f"names {one['names']}", *(["names hidden"] if beside else []), wrap=())
        for name, value in one.items():
            if isinstance(value, float | int) and not isinstance(value, bool):
                out.add_row(name, _said(one, name), *([_said(beside, name)] if beside else []))
        console.print(out)
    if "pooled" in found:
        blind = found["pooled"].get("blind")
        hidden = f"; names hidden {_said(blind, 'recovered')}" if blind else ""
        console.print(f"pooled: recovered {_said(found['pooled'], 'recovered')}{hidden}")


def _said(figures: dict[str, Any], name: str) -> str:
    """A figure with its interval."""
    value, interval = figures.get(name), figures.get(f"{name}_interval")
    if value is None:
        return ""
    said = f"{value:.3f}" if isinstance(value, float) else str(value)
    return said + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")
