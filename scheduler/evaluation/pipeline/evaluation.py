"""The evaluation: items through the queue with given plans, some with a planner's, then what else the arms need."""

from __future__ import annotations

import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from db.errors import UsageError
from db.registry import read_registry
from scheduler.evaluation.pipeline.arms import BEST_SINGLE, DOWNLOADS, Said, outcome_of, run_of, unanswered
from scheduler.evaluation.pipeline.files import make_files
from scheduler.evaluation.pipeline.items import ANSWER, HEAR, READ, draw_items
from scheduler.evaluation.pipeline.registry import Selection, judges_of, run_tables
from scheduler.evaluation.pipeline.report import (
    all_picks,
    arm_figures,
    most_downloaded,
    planner_figures,
    step_figures,
)
from scheduler.evaluation.pipeline.running import Running
from scheduler.submit import NewTask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from db.settings import Settings
    from scheduler.evaluation.pipeline.arms import ItemRun, Outcome, Picks
    from scheduler.evaluation.pipeline.items import Item

    Progress = Callable[[str, int, int], None]

SOURCE = "evaluate-pipeline"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What can be said on the command line. `planner` plans the first `planned` items once more."""

    items: int
    seed: int
    arms: tuple[str, ...]
    planner: str | None
    planned: int
    judge: str | None


def evaluated(settings: Settings, options: Options, progress: Progress) -> dict[str, Any]:
    """Run everything; returns the figures. Raises `UsageError`, `WeightsError`, `BakeoffError`."""
    began = time.monotonic()
    registry = read_registry(settings.registry_file)
    for key, known in (("judge", registry.judges), ("planner", registry.planners)):
        if (name := getattr(options, key)) is not None and name not in known:
            raise UsageError(f"--{key} {name!r} is none of the registry's: {', '.join(known)}.")
    selection = Selection(settings, registry)
    judges = judges_of(registry, selection.models, options.judge)
    given = tomllib.loads(settings.registry_file.read_text())
    tables = run_tables(given, selection.models, judges, options.planner)
    downloads, note = most_downloaded(registry, selection.models)
    with tempfile.TemporaryDirectory(prefix="bakeoff-pipeline-") as name:
        folder = Path(name)
        items = draw_items(options.items, options.seed, folder / "inputs")
        progress("making inputs", 0, len(items))
        make_files(items, options.seed, settings.cache)
        progress("starting", 0, 1)
        with Running(settings, folder, tables) as running:
            runs, planned = _first_round(running, items, options, progress)
            picks = all_picks(options.arms, runs, selection.models, downloads, options.seed)
            asked = _second_round(running, runs, picks, progress)
    outcomes = {
        arm: [outcome_of(arm, run, one) for run, one in zip(runs, chosen, strict=True)] for arm, chosen in picks.items()
    }
    return {
        "items": len(items),
        "seed": options.seed,
        "models": selection.models,
        "missing": selection.missing,
        "judges": judges,
        "fixed": {DOWNLOADS: downloads, BEST_SINGLE: _counted(picks.get(BEST_SINGLE, []))},
        "downloads": note,
        "arms": arm_figures(outcomes, runs),
        "steps": step_figures(runs, selection.models),
        "planner": {"planner": options.planner, **planner_figures(runs, planned)} if planned else None,
        "rows": [_row(run, {arm: outcomes[arm][place] for arm in outcomes}) for place, run in enumerate(runs)],
        "tasks": {"first": len(items) + len(planned), "second": asked},
        "seconds": round(time.monotonic() - began, 1),
    }


def _first_round(
    running: Running, items: Sequence[Item], options: Options, progress: Progress
) -> tuple[list[ItemRun], list[dict[str, Any]]]:
    """Every item with its plan given, and the first ones planned."""
    given = [_task(item, {"subtasks": item.subtasks}) for item in items]
    few = items[: options.planned] if options.planner else []
    planned = [_task(item, {"planner": options.planner, "params": item.params}) for item in few]
    stories = running.ask([*given, *planned], lambda done, of: progress("candidates and verdicts", done, of))
    runs = [run_of(item, story) for item, story in zip(items, stories[: len(items)], strict=True)]
    return runs, stories[len(items) :]


def _task(item: Item, options: Mapping[str, Any]) -> NewTask:
    return NewTask(
        request=item.request,
        source=SOURCE,
        options={"integrate": "none", **options},
        attachments=[item.picture, item.recording],
    )


def _second_round(
    running: Running, runs: Sequence[ItemRun], picks: Mapping[str, Sequence[Picks]], progress: Progress
) -> int:
    """Ask for the answers that arms need and nobody gave, each once; returns how many there were."""
    wanted = dict.fromkeys(
        (place, key)
        for chosen in picks.values()
        for place, one in enumerate(chosen)
        for key in unanswered(runs[place], one)
    )
    tasks = [_answer_task(runs[place].item, *key) for place, key in wanted]
    stories = running.ask(tasks, lambda done, of: progress("answers for other arms", done, of))
    for (place, key), story in zip(wanted, stories, strict=True):
        said = run_of(runs[place].item, story).steps[ANSWER].said.get(key[2])
        runs[place].answers[key] = said or Said(text=None, seconds=0.0)
    return len(tasks)


def _answer_task(item: Item, read: str, heard: str, model: str) -> NewTask:
    step = item.answer_step(read, heard)
    return NewTask(
        request=item.request,
        source=SOURCE,
        options={"integrate": "none", "models": [model], "subtasks": [step]},
    )


def _row(run: ItemRun, outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """One item: what was to be found, what was said at each step, which arms ended right."""
    item = run.item
    return {
        "request": item.request,
        "operation": item.operation,
        "expected": {READ: item.shown, HEAR: item.said, ANSWER: item.answer},
        "noise": item.noise,
        "said": {name: {model: one.text for model, one in step.said.items()} for name, step in run.steps.items()},
        "winners": {name: step.winner for name, step in run.steps.items()},
        "right": [arm for arm, outcome in outcomes.items() if outcome.right],
    }


def _counted(picks: Iterable[Picks]) -> dict[str, int]:
    """How many items each choice of models answers, as `read + hear + answer`."""
    found: dict[str, int] = {}
    for one in picks:
        name = " + ".join([one.read or "-", one.hear or "-", *one.answer])
        found[name] = found.get(name, 0) + 1
    return found
