"""`bakeoff evaluate curation FILE...`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from db.errors import UsageError
from db.settings import load_settings
from scheduler.evaluation.curation.arms import ALL, ARMS, RANDOM
from scheduler.evaluation.curation.evaluation import Options, evaluated
from scheduler.evaluation.curation.rows import lines_of, read_instructions
from scheduler.evaluation.curation.scoring import IFD
from scheduler.evaluation.judges.rows import find_set

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scheduler.evaluation.curation.rows import InstructionSet

STATE = "curation-evaluation"  # folder of the cache


def curation_command(
    files: Annotated[list[str], typer.Argument(help="Instruction sets: files, or names in BAKEOFF_EVAL_DATA.")],
    arms: Annotated[str, typer.Option(help="What to train on, of these, with commas between.")] = ",".join(ARMS),
    curated: Annotated[
        list[str] | None,
        typer.Option(
            help="Who curates, repeatable: `ifd` (default), a scorer of the registry, `flag:FIELD`, a job's file."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Runs per arm.")] = 3,
    share: Annotated[float, typer.Option(min=0.001, max=1, help="Of the rows: what every arm but `all` gets.")] = 0.1,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens every arm reads; default: as many as one pass over all.")
    ] = None,
    held_out: Annotated[float, typer.Option(min=0.01, max=0.9, help="Of the groups: kept back to test with.")] = 0.2,
    model: Annotated[str, typer.Option(help="The language model of the registry that is fine-tuned.")] = "smollm2-135m",
    state: Annotated[Path | None, typer.Option(help="Folder of runs that are done; default: in the cache.")] = None,
    write_train: Annotated[
        Path | None, typer.Option(help="Write the rows that are not kept back, for a curation job; train nothing.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,  # noqa: FBT002 - typer's way
) -> None:
    """Does a small model learn as much from a curated tenth? LoRA on equal budgets of tokens, loss on unseen answers.

    A run that is done is kept: the same command goes on with the first one that is missing.
    """
    from scheduler.cli.live import happening  # noqa: PLC0415 - the command line imports this module
    from scheduler.cli.output import print_json  # noqa: PLC0415 - the command line imports this module

    settings = load_settings()
    sets = [read_instructions(find_set(file, settings.eval_data), held_out) for file in files]
    if write_train is not None:
        _write(write_train, sets)
        return
    options = Options(
        arms=_arms(arms),
        curated=tuple(curated or (IFD,)),
        seeds=seeds,
        share=share,
        held_out=held_out,
        tokens=tokens,
        model=model,
        state=state or settings.cache / STATE,
    )
    with happening("starting") as say:
        found = evaluated(settings, sets, options, lambda what, done, total: say(f"{what}: {done} of {total}"))
    if as_json:
        print_json(found)
    else:
        _print(found)


def _arms(said: str) -> tuple[str, ...]:
    """The arms of an option, in the order of the report. Raises `UsageError`."""
    wished = [name.strip() for name in said.split(",") if name.strip()]
    if unknown := sorted(set(wished) - set(ARMS)):
        raise UsageError(f"--arms {unknown[0]!r} is no arm; there are: {', '.join(ARMS)}.")
    if not wished:
        raise UsageError(f"--arms names nothing; there are: {', '.join(ARMS)}.")
    return tuple(name for name in ARMS if name in wished)


def _write(path: Path, sets: Sequence[InstructionSet]) -> None:
    from scheduler.cli.output import console  # noqa: PLC0415 - the command line imports this module

    rows = [row for instructions in sets for row in instructions.train]
    try:
        path.write_text(lines_of(rows), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--write-train {path}: cannot be written ({error.strerror}).") from None
    console.print(f"{len(rows)} rows to curate: {path}", soft_wrap=True)


def _print(found: Mapping[str, Any]) -> None:
    from scheduler.cli.output import console, seconds, table  # noqa: PLC0415 - the command line imports this module

    for one in found["sets"]:
        console.print(
            f"{one['set']}: {one['train_rows']} rows, {one['held_out_rows']} kept back; "
            f"{one['recipe']['tokens']} tokens per run; untrained {one['untrained_loss']:.4f}",
            soft_wrap=True,
        )
        out = table("arm", "rows", "passes", "loss", "minus random", "minus all", "time", wrap=())
        for name, arm in one["arms"].items():
            rows = str(round(sum(arm["rows"]) / len(arm["rows"])))
            against = [_cell(arm.get(f"against_{other}")) for other in (RANDOM, ALL)]
            out.add_row(name, rows, f"{arm['passes']:.1f}", f"{arm['loss']:.4f}", *against, seconds(arm["seconds"]))
        console.print(out)
        for name, arm in one["arms"].items():
            if "note" in arm:
                console.print(f"{name}: {arm['note']}", soft_wrap=True)
        for sentence in one["says"]:
            console.print(sentence, soft_wrap=True)


def _cell(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    interval = "" if found["interval"] is None else " [{:+.4f}, {:+.4f}]".format(*found["interval"])
    return f"{found['difference']:+.4f}{interval}"
