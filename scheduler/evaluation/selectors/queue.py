"""Selectors measured where they work: stored outputs replayed through the real queue, judged by a real judge.

Fit rows are asked of every model, and what becomes of them is the system's own track record: verdicts in Postgres,
read by the scheduler's `Histories`. Who won a fit row is by default what the set's published scores say (`scores`),
stored as a judge stores it; with `judge` it is what the judge of the run thinks, as where nobody knows better.

Equally good answers are ranked by lot, and count as equals where their scores are. That a share of models beaten stands
for the score is what differs from the offline measure, which reads the scores themselves.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Literal

from db.errors import InvalidRequest
from db.registry import JudgeEntry
from db.verdicts import VerdictRow
from scheduler.evaluation.selectors.arms import CAPABILITY, Pick, Taught, most_of, tally_of, teach
from scheduler.evaluation.selectors.replaying import Replaying, registry_text
from scheduler.evaluation.selectors.report import report_of
from scheduler.evaluation.selectors.rows import Row, Rows, split
from scheduler.selectors import Situation, choose
from scheduler.submit import NewTask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from uuid import UUID

    from db.verdicts import ToJudge
    from scheduler.evaluation.selectors.replaying import Answered
    from scheduler.selectors import History

    Progress = Callable[[str, int, int], None]

PRIORITY, DRAWN = "priority", "drawn"
#: Arms: selectors, and models that are drawn by lot. `priority` is best single: the registry's order is the fit rows'.
ARMS = ("track_record", "nearest", "explore", PRIORITY, DRAWN)
JUDGED, OFFLINE = (
    "judged",
    "offline",
)  # an arm's name with one of these: the judge's pick; what is chosen without a queue
TAUGHT_BY = Literal["scores", "judge"]
SOURCE = "evaluate-selectors"
MOST_MODELS = 16  # that one subtask may ask
#: Orders of the models that were drawn by lot, as scores of the registry: `benchmark:lot7` ranks by the seventh.
LOTS = 100


@dataclass(frozen=True, kw_only=True)
class Options:
    """What can be said on the command line. `limit`: test rows; no `sizes`: every k."""

    seed: int = 1
    limit: int = 60
    sizes: tuple[int, ...] = ()
    judge_method: str = "consensus"
    taught_by: TAUGHT_BY = "scores"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One test row under one arm and k, and the selector that is asked for it."""

    arm: str
    k: int
    row: Row
    selector: str


def evaluated(file: Path, data: Rows, options: Options, progress: Progress) -> dict[str, Any]:
    """Run everything; returns the figures. Raises `InvalidRequest` for what cannot be run, `BakeoffError`."""
    sizes = checked(data, options)
    fit, test = split(data.rows, options.seed)
    test = test[: options.limit]
    taught = in_order(teach(fit, data.models), options.seed)
    asked = list(questions(test, sizes, options.seed))
    by_id = ambiguous(data.rows)
    registry = registry_text(file, taught.entries, taught.names, options.judge_method)
    clock = _Clock()
    with tempfile.TemporaryDirectory(prefix="bakeoff-selectors-") as name:
        progress("starting", 0, 1)
        with Replaying(Path(name), registry, list(taught.names)) as system:
            clock.lap("start")
            history = _teach(system, fit, taught, by_id, options, progress)
            clock.lap("fit")
            tasks = [task_of(one.row, by_id, selectors=[one.selector], candidates=one.k) for one in asked]
            ids = system.ask(tasks, lambda done, of: progress("choices and answers", done, of))
            clock.lap("test")
            system.judge(ids, lambda done, of: progress("verdicts", done, of))
            clock.lap("judge")
            answers = system.answers(ids)
    clock.lap("stop")
    return report_on(data, options, list(zip(asked, answers, strict=True)), taught, history, clock.laps)


def report_on(
    data: Rows, options: Options, found: Sequence[tuple[Asked, Answered]], taught: Taught, history: History,
    seconds: Mapping[str, float],
) -> dict[str, Any]:  # fmt: skip
    """What came out of the queue, measured, beside what is chosen without one."""
    tally = tally_of(data, options.seed, picks_of(found, taught))
    return {
        "fit": len(taught.history.log.entries),
        "judge_method": options.judge_method,
        "taught_by": options.taught_by,
        **report_of(data, tally, []),
        "agreement": agreement(found, taught, history),
        "history": {"entries": len(history.log.entries), "games": round(sum(history.strengths.games.values()) / 2, 1)},
        "queue": counts([answered for _, answered in found]),
        "seconds": dict(seconds),
    }


def checked(data: Rows, options: Options) -> tuple[int, ...]:
    """The k that are asked. Raises `InvalidRequest`, `RegistryError` for what cannot be run."""
    from worker.judges import create_judge  # noqa: PLC0415 - a judge's module may load what only judges need

    most = most_of(data.models)
    if unknown := [k for k in options.sizes if not 1 <= k <= most]:
        raise InvalidRequest(f"--k {unknown[0]} is not from 1 to {most}: the file has {len(data.models)} models.")
    if len(data.models) > MOST_MODELS:
        raise InvalidRequest(
            f"The file has {len(data.models)} models, and a subtask asks {MOST_MODELS} at most: a fit row needs all of "
            "them. Leave --queue out, or give a file with fewer."
        )
    create_judge(JudgeEntry(name="judge", method=options.judge_method), None)
    return tuple(sorted(set(options.sizes))) or tuple(range(1, most + 1))


def in_order(taught: Taught, seed: int) -> Taught:
    """The same models, their place among the best single models of the fit rows as priority, with their lots."""
    places = {model: place for place, model in enumerate(taught.best_first)}
    lots = [sorted(taught.names) for _ in range(LOTS)]
    for number, order in enumerate(lots):
        Random(f"{seed}/{number}").shuffle(order)  # noqa: S311 - to be repeated
    entries = [
        entry.model_copy(
            update={
                "priority": places[taught.names[entry.name]],
                "metadata": {"scores": {f"lot{number}": order.index(entry.name) for number, order in enumerate(lots)}},
            }
        )
        for entry in taught.entries
    ]
    return replace(taught, entries=tuple(entries))


def by_lot(row: Row, seed: int) -> str:
    """The selector that ranks the models for a row in an order that knows nothing, and is the same every time."""
    return f"benchmark:lot{Random(f'{seed}/{row.id}').randrange(LOTS)}"  # noqa: S311 - to be repeated


def questions(test: Sequence[Row], sizes: Sequence[int], seed: int) -> Iterator[Asked]:
    """Every test row under every arm at every k."""
    for row in test:
        for arm in ARMS:
            for k in sizes:
                yield Asked(arm=arm, k=k, row=row, selector=by_lot(row, seed) if arm == DRAWN else arm)


def ambiguous(rows: Sequence[Row]) -> frozenset[str]:
    """Rows whose text is another row's, too."""
    seen: dict[str, list[str]] = {}
    for row in rows:
        seen.setdefault(row.text.strip(), []).append(row.id)
    return frozenset(name for names in seen.values() if len(names) > 1 for name in names)


def task_of(row: Row, by_id: frozenset[str], **options: Any) -> NewTask:
    """A row as another system would ask it. Where its text is not its own, a plan of one step asks by its id."""
    if row.id not in by_id:
        return NewTask(request=row.text, capability=CAPABILITY, source=SOURCE, options=options)
    step = {"id": "by-id", "capability": CAPABILITY, "inputs": [{"text": row.id}]}
    return NewTask(request=row.text, source=SOURCE, options={**options, "subtasks": [step], "integrate": "none"})


def _teach(
    system: Replaying, fit: Sequence[Row], taught: Taught, by_id: frozenset[str], options: Options, progress: Progress
) -> History:
    """Ask the fit rows of everybody, let it be decided who won, and return what the system has learned.

    The models are ranked by lot: a judge lets the rank decide between equals, and the registry's order already knows
    who is good.
    """
    everybody = len(taught.entries)
    tasks = [task_of(row, by_id, selectors=[by_lot(row, options.seed)], candidates=everybody) for row in fit]
    ids = system.ask(tasks, lambda done, of: progress("fit rows", done, of))
    if options.taught_by == "judge":
        system.judge(ids, lambda done, of: progress("verdicts on fit rows", done, of))
    else:
        rows = dict(zip(ids, fit, strict=True))
        system.decide(ids, lambda one: published(one, rows[one.task_id], taught.names, options.seed))
    system.restart_scheduler()
    return system.history()


def published(subtask: ToJudge, row: Row, names: Mapping[str, str], seed: int) -> VerdictRow:
    """The verdict that the row's published scores give; equal ones are ranked by lot."""
    scores = {one.id: row.scores[names[one.model]] for one in subtask.candidates}
    models = {one.id: one.model for one in subtask.candidates}
    drawn = sorted(scores, key=models.__getitem__)
    Random(f"{seed}/{row.id}").shuffle(drawn)  # noqa: S311 - to be repeated
    ranking: list[UUID] = sorted(drawn, key=lambda one: -scores[one])
    return VerdictRow(
        subtask_id=subtask.id,
        winner_id=ranking[0],
        ranking=ranking,
        scores=scores,
        reason=f"{models[ranking[0]]} has the best published score, {scores[ranking[0]]:g}.",
        method="published",
        judge=subtask.judge,
        seconds=0.0,
    )


def picks_of(found: Sequence[tuple[Asked, Answered]], taught: Taught) -> Iterator[Pick]:
    """Of every answer: who was chosen, who won, and who is chosen without a queue by what the scores teach."""
    for asked, answered in found:
        chosen = [taught.names[one.model] for one in answered.candidates]
        yield Pick(arm=asked.arm, k=asked.k, row=asked.row.id, models=chosen)
        if answered.winner is not None:
            winner = [taught.names[answered.winner]]
            yield Pick(arm=f"{asked.arm} {JUDGED}", k=asked.k, row=asked.row.id, models=winner)
        if asked.arm != DRAWN:
            offline = [taught.names[name] for name in _choice(asked, answered, taught, taught.history)]
            yield Pick(arm=f"{asked.arm} {OFFLINE}", k=asked.k, row=asked.row.id, models=offline)


def _choice(asked: Asked, answered: Answered, taught: Taught, history: History) -> list[str]:
    """The models that a history makes the arm's selector choose, with the seed that the scheduler used."""
    situation = Situation(capability=CAPABILITY, text=asked.row.text, seed=answered.subtask.int, history=history)
    return [one.model.name for one in choose([asked.selector], asked.k, taught.entries, situation)]


def agreement(
    found: Sequence[tuple[Asked, Answered]], taught: Taught, history: History
) -> dict[str, dict[str, dict[str, float]]]:
    """By arm and k, the share of rows for which the queue chose as is chosen here.

    `own`: the very same models in the same order, from the history that the system has; `offline`: the same models,
    from the published scores; `proposed`: the share of the chosen that the arm's selector proposed, not the back-fill.
    """
    seen: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    for asked, answered in found:
        chosen = [one.model for one in answered.candidates]
        own = _choice(asked, answered, taught, history)
        offline = set(_choice(asked, answered, taught, taught.history))
        proposed = sum(asked.selector in one.proposed_by for one in answered.candidates) / len(chosen)
        seen.setdefault((asked.arm, asked.k), []).append((chosen == own, set(chosen) == offline, proposed))
    out: dict[str, dict[str, dict[str, float]]] = {}
    for (arm, k), values in seen.items():
        shares = [sum(column) / len(values) for column in zip(*values, strict=True)]
        out.setdefault(arm, {})[str(k)] = dict(zip(("own", OFFLINE, "proposed"), shares, strict=True))
    return out


def counts(answers: Sequence[Answered]) -> dict[str, int]:
    """How much went through the queue for the test rows, and what of it went wrong."""
    candidates = [one for answered in answers for one in answered.candidates]
    return {
        "tasks": len(answers),
        "candidates": len(candidates),
        "cached": sum(one.cached for one in candidates),
        "failed": sum(one.status != "done" for one in candidates),
        "unjudged": sum(answered.winner is None or answered.fallback for answered in answers),
    }


class _Clock:
    """Seconds of each part, one after the other."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = round(now - self._since, 1)
        self._since = now
