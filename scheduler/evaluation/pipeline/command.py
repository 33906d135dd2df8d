"""`bakeoff evaluate pipeline`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from db.errors import UsageError
from db.settings import load_settings
from scheduler.cli.live import happening
from scheduler.cli.output import console, print_json, seconds, table
from scheduler.evaluation.pipeline.arms import ARMS

if TYPE_CHECKING:
    from collections.abc import Mapping

NOBODY = "none"


def pipeline_command(
    *,
    items: Annotated[int, typer.Option(min=4, max=1000, help="Composed requests.")] = 40,
    seed: Annotated[int, typer.Option(min=0, help="What is drawn: numbers, files, halves, random picks.")] = 1,
    arms: Annotated[
        list[str] | None, typer.Option(help=f"An arm, repeatable: {', '.join(ARMS)}; default: all.")
    ] = None,
    planner: Annotated[
        str, typer.Option(help=f"A planner of the registry, which plans the first items; `{NOBODY}`: no one does.")
    ] = "qwen",
    planned: Annotated[int, typer.Option(min=1, help="How many items the planner gets.")] = 10,
    judge: Annotated[
        str | None,
        typer.Option(
            help="A judge of the registry; default: each capability's, or agreement where that asks a candidate."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Is the final answer right more often when several models answer each step? Starts a system of its own."""
    from scheduler.evaluation.pipeline.evaluation import Options, evaluated  # noqa: PLC0415 - it needs numpy

    if unknown := sorted(set(arms or ()) - set(ARMS)):
        raise UsageError(f"--arms {unknown[0]!r} is no arm; there are: {', '.join(ARMS)}.")
    options = Options(
        items=items,
        seed=seed,
        arms=tuple(name for name in ARMS if name in (arms or ARMS)),
        planner=None if planner == NOBODY else planner,
        planned=planned,
        judge=judge,
    )
    with happening("starting") as say:
        report = evaluated(load_settings(), options, lambda what, done, total: say(f"{what}: {done} of {total}"))
    if as_json:
        print_json(report)
    else:
        _print(report)


def _print(report: Mapping[str, Any]) -> None:
    judges = ", ".join(f"{name} ({step})" for step, name in report["judges"].items())
    console.print(f"{report['items']} items, seed {report['seed']}, judged by {judges}", soft_wrap=True)
    for sentence in report["missing"]:
        console.print(f"left out: {sentence}", soft_wrap=True)
    out = table("arm", "right", "against best single", "calls", "time", *_operations(report), wrap=())
    for name, found in report["arms"].items():
        against = ""
        if "interval" in found:
            low, high = found["interval"]
            against = f"{found['difference']:+.3f} [{low:+.3f}, {high:+.3f}]"
        by_operation = [f"{value:.2f}" for value in found["by_operation"].values()]
        calls = f"{found['calls']:.1f}"
        out.add_row(name, f"{found['right']:.3f}", against, calls, seconds(found["seconds"]), *by_operation)
    console.print(out)
    console.print(f"downloads: {report['downloads']}; calls and time are per item")
    steps = table("step", "judged", "any", "models", wrap=("models",))
    for name, found in report["steps"].items():
        models = ", ".join(f"{model} {share:.2f}" for model, share in found["models"].items())
        steps.add_row(name, f"{found['judged']:.2f}", f"{found['any']:.2f}", models)
    console.print(steps)
    if (planned := report["planner"]) is not None:
        console.print(
            f"{planned['planner']} planned {planned['n']} items: {planned['right_plans']:.0%} right plans, "
            f"{planned['right']:.0%} right answers; with the given plans {planned['right_by_given_plans']:.0%}.",
            soft_wrap=True,
        )
    console.print(f"{report['seconds']:.0f} s in all")


def _operations(report: Mapping[str, Any]) -> list[str]:
    first: Mapping[str, Any] = next(iter(report["arms"].values()), {"by_operation": {}})
    return list(first["by_operation"])
