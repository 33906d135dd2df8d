"""`bakeoff evaluate selectors FILE`: which selectors are worth their name."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from db.settings import load_settings
from scheduler.cli.output import console, print_json, table
from scheduler.evaluation.selectors.arms import ADAPTIVE, ADAPTS, BEST_SINGLE, RANDOM, most_of, run_arms
from scheduler.evaluation.selectors.measure import Figures, Mean, Tally
from scheduler.evaluation.selectors.rows import Rows, find_file, read_rows

KEEP, CALLS = 0.98, 0.60  # of the largest k's score and calls: what `adaptive` is to reach
BEST = ("nearest", "track_record")  # one of these is to hold its own at each k


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
    path = find_file(load_settings(), file)
    data = read_rows(path)
    tally, targets = run_arms(data, range(seed, seed + splits), target, KEEP)
    report = report_of(data, tally, targets)
    if as_json:
        print_json({"file": path.name, "seed": seed, "splits": splits, **report})
    else:
        _print(report)


def report_of(data: Rows, tally: Tally, targets: list[float]) -> dict[str, Any]:
    """Everything that was measured, and whether it reaches the bar; null where the arms for it were not run."""
    most = most_of(data.models)
    compared = [arm for arm in tally.arms if arm not in {RANDOM, BEST_SINGLE, ADAPTIVE}]
    against = {
        arm: {
            str(k): {other: asdict(tally.difference(arm, other, k)) for other in (RANDOM, BEST_SINGLE)}
            for k in tally.sizes(arm)
        }
        for arm in compared
    }
    adaptive = _adaptive(tally, most, targets) if ADAPTIVE in tally.arms else None
    choosing = [arm for arm in BEST if tally.sizes(arm) == list(range(1, most + 1))]
    return {
        "models": len(data.models),
        "rows": len(data.rows),
        "incomplete": data.incomplete,
        "tested": tally.figures(RANDOM, 1).rows,
        "arms": {
            arm: {str(k): asdict(tally.figures(arm, k)) for k in tally.sizes(arm)}
            for arm in tally.arms
            if arm != ADAPTIVE
        },
        "against": against,
        "adaptive": adaptive,
        "bar": {
            "choices": all(
                any(_holds(tally, arm, k, every=k == len(data.models)) for arm in choosing) for k in range(1, most + 1)
            )
            if choosing
            else None,
            "adaptive": adaptive and adaptive["kept"]["mean"] >= KEEP and adaptive["calls_share"] <= CALLS,
        },
    }


def _holds(tally: Tally, arm: str, k: int, *, every: bool) -> bool:
    """Above random (where k is not every model there is), and not below the best by more than a standard error."""
    best = tally.difference(arm, BEST_SINGLE, k)
    return (every or tally.difference(arm, RANDOM, k).mean > 0) and best.mean >= -best.se - 1e-12


def _adaptive(tally: Tally, most: int, targets: list[float]) -> dict[str, Any]:
    figures: Figures = tally.figures(ADAPTIVE, most)
    kept: Mean = tally.kept(ADAPTIVE, most, (ADAPTS[0], most))
    return {
        **asdict(figures),
        "k": most,
        "targets": targets,
        "calls_share": figures.calls / most,
        "kept": asdict(kept),
    }


def _print(report: dict[str, Any]) -> None:
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
