"""`bakeoff evaluate report DIR`: every evaluation of judges, as one page and one JSON file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from db.errors import UsageError
from db.settings import load_settings
from scheduler.evaluation.attack.attacks import PACKAGED, attack_file
from scheduler.evaluation.report.page import page_of
from scheduler.evaluation.report.parts import PLAIN, Wanted, finished_parts, run_parts, there, write_json
from scheduler.evaluation.report.results import results_of

if TYPE_CHECKING:
    from db.settings import Settings

SELECTIONS = ("multi_gsm8k", "multi_mathvista", "multi_thumb_mscoco", "multi_summeval", "multi_alpacaeval2_mid6")
PAIRS = ("pairs_pandalm", "pairs_llmbar_extra", "pairs_autoj", "pairs_cherry_gptjudge", "pairs_judgebench")
HOSTS = ("pairs_pandalm",)
STRONGEST = "gpt-4-1106-preview"  # of multi_gsm8k: with it there is nothing to choose
JUDGES = "jury,cascade,nll,consensus"
NONE = "none"


def report_command(
    *,
    folder: Annotated[Path, typer.Argument(help="Where results.json, index.html and a file per part are put.")],
    judges: Annotated[str, typer.Option(help="Judges of the registry or methods, parted by commas.")] = JUDGES,
    judge_model: Annotated[str | None, typer.Option(help="The language model they ask, from the registry.")] = None,
    selection: Annotated[str, typer.Option(help="Sets of several models' answers; `none`.")] = ",".join(SELECTIONS),
    pairs: Annotated[str, typer.Option(help="Sets of pairs; `none`.")] = ",".join(PAIRS),
    exclude_model: Annotated[list[str] | None, typer.Option(help="Leave a candidate out; repeatable.")] = None,
    attacked: Annotated[
        str, typer.Option(help=f"Judges to attack; `{PLAIN}`: the language model alone; `none`.")
    ] = f"jury,cascade,{PLAIN}",
    attacks: Annotated[
        list[str] | None, typer.Option(help="`known`, `held-out` or a file of attacks, repeatable; default: both.")
    ] = None,
    hosts_from: Annotated[str, typer.Option(help="Sets whose answers attack.")] = ",".join(HOSTS),
    hosts: Annotated[int, typer.Option(min=1, help="Answers attacked, each by every attack.")] = 10,
    limit: Annotated[int | None, typer.Option(min=1, help="Rows to report of a set, at most.")] = None,
    seconds: Annotated[float | None, typer.Option(min=1, help="For all that is still to be run.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Run finished parts anew.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run what is not there yet, and write the page of everything that is.

    Several runs with other judges, models or sets add to the same folder. What is finished is kept: run again with
    --again after the code has changed.
    """
    from scheduler.cli.live import happening  # noqa: PLC0415 - the command line imports this module
    from scheduler.cli.output import console, print_json  # noqa: PLC0415 - the command line imports this module

    settings = load_settings()
    asked = {name: _names(given) for name, given in (("selection", selection), ("pairs", pairs), ("hosts", hosts_from))}
    found = {name: there(names, settings) for name, names in asked.items()}
    missing = list(dict.fromkeys(sentence for _, sentences in found.values() for sentence in sentences))
    wanted = Wanted(
        judges=_names(judges),
        selections=found["selection"][0],
        pairs=found["pairs"][0],
        attacked=_names(attacked),
        attack_files=tuple(attack_file(name) for name in attacks or PACKAGED),
        hosts_from=found["hosts"][0],
        judge_model=judge_model,
        excluded=tuple(exclude_model or (STRONGEST,)),
        limit=limit,
        hosts=hosts,
        seconds=seconds,
        again=again,
    )
    with happening("measuring") as say:
        missing += run_parts(
            settings, _made(folder), wanted, lambda what, done, total: say(f"{what}: {done} of {total} parts")
        )
    page = write_report(settings, folder, missing)
    if as_json:
        print_json({"page": str(page), "results": str(page.with_name("results.json")), "left_out": missing})
        return
    for sentence in missing:
        console.print(f"left out: {sentence}", soft_wrap=True)
    console.print(f"{page}, {page.with_name('results.json')}", soft_wrap=True)


def write_report(settings: Settings, folder: Path, missing: list[str]) -> Path:
    """Write `results.json` and the page from the parts that are there. Returns the page."""
    results = results_of(settings, finished_parts(folder), missing)
    write_json(folder / "results.json", results)
    page = folder / "index.html"
    page.write_text(page_of(results), encoding="utf-8")
    return page


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"DIR = {str(folder)!r} cannot be made ({error.strerror}).") from None
    return folder


def _names(given: str) -> tuple[str, ...]:
    return () if given == NONE else tuple(name.strip() for name in given.split(",") if name.strip())
