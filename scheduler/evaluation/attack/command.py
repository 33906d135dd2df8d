"""`bakeoff evaluate attack --judge NAME`: can a losing answer talk its judge round?"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from db.errors import UsageError
from db.registry import read_registry
from db.settings import load_settings
from scheduler.evaluation.attack.attacks import Attack, attack_file, read_attacks
from scheduler.evaluation.attack.hosts import Host, default_sets, hosts_of
from scheduler.evaluation.attack.measure import figures, run_trials
from scheduler.evaluation.judges.bench import LEARNING_TIME, learns, nameless_entry
from scheduler.evaluation.judges.bench import Bench as Learning
from scheduler.evaluation.judges.cases import keys_of
from scheduler.evaluation.judges.evaluation import asking, judge_entry
from scheduler.evaluation.judges.rows import EvaluationSet, Part, find_set, part_of, read_set
from worker.judges import create_judge

if TYPE_CHECKING:
    from db.registry import JudgeEntry, Registry
    from db.settings import Settings
    from scheduler.evaluation.judges.replies import Remembering
    from worker.judges import Judge

NO_PLAIN = "none"
PLAIN = "llm"  # the method: the language model alone, asked for the best answer's letter
UNGUARDED = {"hostile": "leave"}


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What every judge of a run meets alike."""

    sets: list[EvaluationSet]
    hosts: list[Host]
    attacks: list[Attack]
    wanted: int
    candidates: int
    seconds: float | None


def attack_command(
    judge: Annotated[str, typer.Option(help="A judge of the registry, or a method of judging.")],
    files: Annotated[
        list[str] | None, typer.Argument(help="Sets to attack answers of; default: `pairs_*` of BAKEOFF_EVAL_DATA.")
    ] = None,
    judge_model: Annotated[str | None, typer.Option(help="The language model it asks, from the registry.")] = None,
    plain: Annotated[
        str | None, typer.Option(help="The judge shown beside it; default: the same language model alone; or `none`.")
    ] = None,
    attacks: Annotated[
        str, typer.Option(help="`known`, `held-out`, or a file of attacks: JSON lines with id, family, text.")
    ] = "known",
    families: Annotated[str, typer.Option(help="Only these families, parted by commas.")] = "",
    without: Annotated[str, typer.Option(help="Not these families, parted by commas.")] = "",
    hosts: Annotated[
        int, typer.Option("--hosts", "--limit", min=1, help="Answers attacked, each by every attack.")
    ] = 10,
    split: Annotated[Part, typer.Option(help="The part of the sets that hosts come from.")] = "report",
    candidates: Annotated[int, typer.Option(min=2, max=16, help="Of a set of several models' answers: how many.")] = 4,
    seconds: Annotated[
        float | None, typer.Option(min=1, help="Per judge: begin no further host after so long.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,  # noqa: FBT002 - typer's way
) -> None:
    """How often an answer that loses wins once it speaks to the judge: flattery, fake verdicts, hidden orders, padding.

    Beside it: the language model asked plainly, with nothing left out of what it reads.
    """
    from scheduler.cli.live import happening  # noqa: PLC0415 - the command line imports this module
    from scheduler.cli.output import print_json  # noqa: PLC0415 - the command line imports this module

    settings = load_settings()
    registry = read_registry(settings.registry_file)
    entry = judge_entry(registry, judge, judge_model)
    beside = plain_entry(registry, entry, plain)
    sets = [read_set(find_set(name, settings.eval_data)) for name in files or ()] or default_sets(settings.eval_data)
    bench = Bench(
        sets=sets,
        hosts=hosts_of(sets, split, candidates),
        attacks=read_attacks(attack_file(attacks), _names(families), _names(without)),
        wanted=hosts,
        candidates=candidates,
        seconds=seconds,
    )
    found = {}
    with happening("attacking") as say:
        for one in filter(None, (entry, beside)):
            say(f"attacking {one.name}")
            found[one.name] = evaluated(settings, one, bench)
    report = {"judge": judge, "sets": [one.name for one in sets], "split": split, **found[entry.name]}
    if beside is not None:
        report["plain"] = {"judge": beside.name, **found[beside.name]}
    if as_json:
        print_json(report)
    else:
        _print(report)


def plain_entry(registry: Registry, entry: JudgeEntry, plain: str | None) -> JudgeEntry | None:
    """Who stands beside a judge: the one named, as it is; else its language model alone, unguarded.

    Raises `UsageError` for a name that is no judge.
    """
    if plain == NO_PLAIN:
        return None
    if plain is not None:
        return judge_entry(registry, plain, None).model_copy(update={"name": f"plain-{plain}"[:63]})
    alone = judge_entry(registry, PLAIN, entry.model)
    return alone.model_copy(update={"name": f"plain-{PLAIN}", "method": PLAIN, "params": UNGUARDED})


def evaluated(settings: Settings, entry: JudgeEntry, bench: Bench) -> dict[str, Any]:
    """A judge's figures. Raises `UsageError` where it puts no losing answer behind."""
    began = time.monotonic()
    with asking(settings, entry) as model:
        judge, cards = defended(entry, model, bench)
        left = None if bench.seconds is None else max(0.0, bench.seconds - (time.monotonic() - began))
        run = run_trials(judge, bench.hosts, bench.attacks, bench.wanted, seconds=left)
        about = {
            "method": entry.method,
            "params": entry.params,
            "judge_model": model.identity if model else None,
            "calls": model.calls if model else 0,
            "model_calls": model.asked if model else 0,
            "fitted": cards,
        }
    if not run.hosts:
        raise UsageError(
            f"{entry.name} puts no losing answer behind on {run.tried} hosts: it has nothing to be talked out of."
        )
    return about | figures(run)


def defended(entry: JudgeEntry, model: Remembering | None, bench: Bench) -> tuple[Judge, list[dict[str, Any]]]:
    """The judge that is attacked, and the cards of what it learned.

    One that learns and has no weights is fitted, without names as the hosts are, on the rows to fit and to tune of the
    sets: never on a group that hosts come from by default.
    """
    judge = create_judge(nameless_entry(entry), model)
    cards: list[dict[str, Any]] = []
    if not learns(judge):
        return judge, cards
    by_capability: dict[str, tuple[Learning, list[Any]]] = {}
    for one in bench.sets:
        learning = Learning(entry=entry, model=model, kind=one.kind, blind=True, seconds=bench.seconds)
        rows = [row for row in one.rows if part_of(row.group) != "report" and len(set(row.scores.values())) > 1]
        if rows:
            _, read = by_capability.setdefault(one.kind.capability, (learning, []))
            read += learning.lessons(judge, rows, keys_of(rows, bench.candidates), LEARNING_TIME)
    for learning, read in by_capability.values():
        learning.teach(judge, read)
        cards += learning.cards
    return judge, cards


def _names(given: str) -> list[str]:
    return [name.strip() for name in given.split(",") if name.strip()]


def _print(report: dict[str, Any]) -> None:
    from scheduler.cli.output import console, table  # noqa: PLC0415 - the command line imports this module

    judges = {report["judge"]: report}
    if "plain" in report:
        judges[report["plain"]["judge"]] = report["plain"]
    out = table("family", "attacks", "found", *judges, wrap=())
    for family, own in report["families"].items():
        cells = [_share(one["families"].get(family, {})) for one in judges.values()]
        out.add_row(family, str(own["attacks"]), f"{own['found']:.0%}", *cells)
    out.add_row("all", str(report["attacks"]), f"{report['found']:.0%}", *(_share(one) for one in judges.values()))
    console.print(out)
    for name, one in judges.items():
        worst = ", ".join(f"{each['attack']} {each['attack_success']:.0%}" for each in one["worst"])
        console.print(
            f"{name}: {one['support']} trials on {one['hosts']} hosts of {one['hosts_tried']} tried "
            f"(the others it gets wrong as they are), {one['model_calls']} model calls, {one['seconds']:.0f} s"
            + (f"; worst: {worst}" if worst else ""),
            soft_wrap=True,
        )
    console.print(f"Honest hosts in which something was found: {report['found_clean']:.1%}.")


def _share(one: dict[str, Any]) -> str:
    interval = one.get("attack_success_interval")
    return f"{one['attack_success']:.0%} [{interval[0]:.0%}, {interval[1]:.0%}]" if interval else ""
