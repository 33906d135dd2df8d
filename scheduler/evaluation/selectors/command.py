"""`bakeoff evaluate selectors FILE`: which selectors are worth their name."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from db.settings import load_settings
from scheduler.evaluation.selectors.arms import BEST_SINGLE, RANDOM, run_arms
from scheduler.evaluation.selectors.report import KEEP, report_of
from scheduler.evaluation.selectors.rows import find_file, read_rows

File = Annotated[
    str, typer.Argument(help="Scores of many models for the same inputs (JSONL), or its name in BAKEOFF_EVAL_DATA.")
]
Seed = Annotated[int, typer.Option(help="Of the first split into fit rows and test rows.")]
Splits = Annotated[int, typer.Option(min=1, max=100, help="How many splits; an input counts once, with its mean.")]
Target = Annotated[float | None, typer.Option(min=0, max=1, help="Of `adaptive`; default: fitted on the fit rows.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def selectors_command(
    file: File,
    seed: Seed = 1,
    splits: Splits = 5,
    target: Target = None,
    as_json: AsJson = False,  # noqa: FBT002 - typer reads an option from it
) -> None:
    """Compare selectors on published scores, with a judge that always finds the best of the chosen.

    They know what the fit rows taught them and nothing else; every figure is about the test rows. `best among`: how
    often the input's best model was chosen (where several are equally good, one of them).
    """
    from scheduler.cli.output import print_json  # noqa: PLC0415 - the command line imports this module

    path = find_file(load_settings(), file)
    data = read_rows(path)
    tally, targets = run_arms(data, range(seed, seed + splits), target, KEEP)
    report = report_of(data, tally, targets)
    if as_json:
        print_json({"file": path.name, "seed": seed, "splits": splits, **report})
    else:
        _print(report)


def _print(report: dict[str, Any]) -> None:
    from scheduler.cli.output import console, table  # noqa: PLC0415 - the command line imports this module

    sizes = list(report["arms"][RANDOM])
    console.print(f"{report['models']} models, {report['tested']} test rows; mean score of the best of k, ± its error")
    for what in ("score", "best_among"):
        out = table("best among" if what == "best_among" else "score", *(f"k = {k}" for k in sizes), wrap=())
        for arm, figures in report["arms"].items():
            out.add_row(arm, *(f"{figures[k][what]['mean']:.4f} ±{figures[k][what]['se']:.4f}" for k in sizes))
        console.print(out)
    out = table("against best_single", *(f"k = {k}" for k in sizes), wrap=())
    for arm, figures in report["against"].items():
        out.add_row(arm, *(f"{figures[k][BEST_SINGLE]['mean']:+.4f} ±{figures[k][BEST_SINGLE]['se']:.4f}"
                           for k in sizes))  # fmt: skip
    console.print(out)
    adaptive = report["adaptive"]
    console.print(
        f"adaptive: score {adaptive['score']['mean']:.4f}, {adaptive['calls']:.2f} of {adaptive['k']} calls "
        f"({adaptive['calls_share']:.0%}), keeps {adaptive['kept']['mean']:.1%} ±{adaptive['kept']['se']:.1%}"
    )
