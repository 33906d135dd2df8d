"""`bakeoff evaluate selectors FILE`: which selectors are worth their name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from db.settings import load_settings
from scheduler.evaluation.selectors.arms import BEST_SINGLE, RANDOM, run_arms
from scheduler.evaluation.selectors.queue import JUDGED, OFFLINE, TAUGHT_BY, Options, evaluated
from scheduler.evaluation.selectors.report import KEEP, report_of
from scheduler.evaluation.selectors.rows import Rows, find_file, read_rows

File = Annotated[
    str, typer.Argument(help="Scores of many models for the same inputs (JSONL), or its name in BAKEOFF_EVAL_DATA.")
]
Seed = Annotated[int, typer.Option(help="Of the first split into fit rows and test rows.")]
Splits = Annotated[int, typer.Option(min=1, max=100, help="How many splits; an input counts once, with its mean.")]
Target = Annotated[float | None, typer.Option(min=0, max=1, help="Of `adaptive`; default: fitted on the fit rows.")]
Queue = Annotated[bool, typer.Option("--queue", help="Replay the file's outputs through a queue started for it.")]
Limit = Annotated[int, typer.Option(min=1, help="With --queue: test rows.")]
Sizes = Annotated[list[int] | None, typer.Option("--k", help="With --queue: models per row, repeatable; default: all.")]
Method = Annotated[str, typer.Option(help="With --queue: a method of judging that asks no language model.")]
TaughtBy = Annotated[
    TAUGHT_BY, typer.Option(help="With --queue: who says what won a fit row, the file's scores or the judge.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def selectors_command(
    file: File,
    seed: Seed = 1,
    splits: Splits = 5,
    target: Target = None,
    queue: Queue = False,  # noqa: FBT002 - typer reads an option from it
    limit: Limit = 60,
    k: Sizes = None,
    judge_method: Method = "consensus",
    taught_by: TaughtBy = "scores",
    as_json: AsJson = False,  # noqa: FBT002 - typer reads an option from it
) -> None:
    """Compare selectors on published scores, with a judge that always finds the best of the chosen.

    They know what the fit rows taught them and nothing else; every figure is about the test rows. `best among`: how
    often the input's best model was chosen (where several are equally good, one of them).

    With --queue one split goes through servers and processes of its own, and a judge picks besides.
    """
    from scheduler.cli.output import print_json  # noqa: PLC0415 - the command line imports this module

    path = find_file(load_settings(), file)
    data = read_rows(path)
    if queue:
        options = Options(seed=seed, limit=limit, sizes=tuple(k or ()), judge_method=judge_method, taught_by=taught_by)
        _queued(path, data, options, as_json=as_json)
        return
    tally, targets = run_arms(data, range(seed, seed + splits), target, KEEP)
    report = report_of(data, tally, targets)
    if as_json:
        print_json({"file": path.name, "seed": seed, "splits": splits, **report})
    else:
        _print(report)


def _queued(path: Path, data: Rows, options: Options, *, as_json: bool) -> None:
    from scheduler.cli.live import happening  # noqa: PLC0415 - the command line imports this module
    from scheduler.cli.output import print_json  # noqa: PLC0415 - the command line imports this module

    with happening("starting") as say:
        report = evaluated(path, data, options, lambda what, done, total: say(f"{what}: {done} of {total}"))
    if as_json:
        print_json({"file": path.name, "seed": options.seed, **report})
    else:
        print_queued(report)


def print_queued(report: dict[str, Any]) -> None:
    """Each arm with an oracle for a judge, with the judge of the run, and as it is chosen without a queue."""
    from scheduler.cli.output import console, table  # noqa: PLC0415 - the command line imports this module

    arms, baselines = report["arms"], (RANDOM, BEST_SINGLE)
    asked = [arm for arm in arms if arm not in baselines and not arm.endswith((JUDGED, OFFLINE))]
    sizes = list(arms[asked[0]])
    console.print(
        f"{report['models']} models, {report['fit']} fit rows taught by {report['taught_by']}, {report['tested']} test "
        f"rows through the queue, judged by {report['judge_method']}; mean score, ± the largest error of its row",
        soft_wrap=True,
    )
    out = table("arm", "judge", *(f"k = {k}" for k in sizes), "±", wrap=())
    for name in (*baselines, *asked):
        for label, arm in (("oracle", name), (JUDGED, f"{name} {JUDGED}"), (OFFLINE, f"{name} {OFFLINE}")):
            if arm in arms:
                found = [arms[arm][k]["score"] for k in sizes]
                error = max(one["se"] for one in found)
                out.add_row(name, label, *(f"{one['mean']:.3f}" for one in found), f"{error:.3f}")
    console.print(out)
    out = table("same choice", "history", *(f"k = {k}" for k in sizes), wrap=())
    for arm, shares in report["agreement"].items():
        for label in ("own", OFFLINE):
            out.add_row(arm, label, *(f"{shares[k][label]:.0%}" for k in sizes))
    console.print(out)
    counted = report["queue"]
    console.print(
        f"{counted['tasks']} tasks, {counted['candidates']} candidates ({counted['cached']} from stored outputs, "
        f"{counted['failed']} failed), {counted['unjudged']} without a judge's verdict; "
        + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in report["seconds"].items()),
        soft_wrap=True,
    )


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
