"""`bakeoff evaluate ablation FILE... --judge-model NAME`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from db.errors import UsageError
from db.registry import read_registry
from db.settings import load_settings
from scheduler.evaluation.ablation.report import ablation
from scheduler.evaluation.judges.rows import find_set, read_set
from worker.backends import LanguageModel, Place, create_backend
from worker.weights import locate

if TYPE_CHECKING:
    from db.settings import Settings
    from worker.backends import Backend

#: Left out: beside a model that is right nearly always there is nothing to choose.
STRONGEST = frozenset({"gpt-4-1106-preview"})


def ablation_command(
    files: Annotated[list[str], typer.Argument(help="Sets: files, or names in BAKEOFF_EVAL_DATA.")],
    *,
    judge_model: Annotated[str, typer.Option(help="The language model that the judges ask, from the registry.")],
    limit: Annotated[
        int | None, typer.Option(min=1, help="Rows per set; default: all that are kept to report.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(min=1, help="Begin no further row of a set after so long.")] = None,
    candidates: Annotated[
        int | None, typer.Option(min=2, max=16, help="Models per row, best on the fit rows; default: as tasks have.")
    ] = None,
    blind: Annotated[
        bool, typer.Option("--blind", help="Shuffle the ranks: ties then fall at random, not to the best model.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """One model, LLM only, similarity only, both, pairs in both orders, oracle: what each arm scores and costs."""
    from scheduler.cli.output import print_json  # noqa: PLC0415 - the CLI imports this module

    settings = load_settings()
    sets = [read_set(find_set(name, settings.eval_data), STRONGEST) for name in files]
    model = _loaded(settings, judge_model)
    try:
        if not isinstance(model, LanguageModel):
            raise UsageError(
                f"--judge-model {judge_model}: its backend {model.model.backend!r} tells no probabilities."
            )
        count = candidates or settings.candidates
        found = [ablation(one, model, candidates=count, limit=limit, seconds=seconds, seed=int(blind)) for one in sets]
    finally:
        model.close()
    if as_json:
        print_json({"judge_model": judge_model, "sets": found})
        return
    for one in found:
        _print(one)


def _loaded(settings: Settings, name: str) -> Backend:
    """A model of the registry, of whatever profile, in this process."""
    entry = read_registry(settings.registry_file).model(name)
    device = settings.device if settings.device != "auto" else entry.device
    threads = settings.threads or max(1, (os.cpu_count() or 2) // 2)
    backend = create_backend(entry, Place(weights=locate(entry, settings.cache), device=device, threads=threads))
    backend.load()
    return backend


def _print(found: dict[str, Any]) -> None:
    from scheduler.cli import output  # noqa: PLC0415 - the CLI imports this module

    output.console.print(
        f"{found['set']} ({found['note']}): {found['support']} rows, judged by {found['judge_model']}, "
        f"ranks {found['ranks']}"
    )
    output.console.print(f"models, best on {found['fit']} fit rows first: {', '.join(found['models'])}")
    out = output.table("arm", "score", "recovered", "against best single", "calls", "time", wrap=())
    for arm in found["arms"]:
        low, high = arm["interval"] or (0.0, 0.0)
        out.add_row(
            arm["arm"],
            f"{arm['score']:.3f}",
            "" if arm["recovered"] is None else f"{arm['recovered']:+.0%}",
            f"{arm['difference']:+.3f} [{low:+.3f}, {high:+.3f}]",
            str(arm["calls"]),
            output.seconds(arm["seconds"]),
        )
    output.console.print(out)
    output.console.print()
