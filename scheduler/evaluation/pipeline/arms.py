"""Arms: whose answers are taken at each step, what that costs, and whether the final answer is right."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from scheduler.evaluation.pipeline.items import ANSWER, HEAR, READ, STEPS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scheduler.evaluation.pipeline.items import Item

DOWNLOADS, BEST_SINGLE, RANDOM, JUDGED, ORACLE = "downloads", "best single", "random", "judged", "oracle"
ARMS = (DOWNLOADS, BEST_SINGLE, RANDOM, JUDGED, ORACLE)
#: Arms that ask every candidate; the others ask one model per step.
ASK_ALL = frozenset({JUDGED, ORACLE})


@dataclass(frozen=True, kw_only=True)
class Said:
    """What one candidate said; None: it failed. `seconds` is what it took."""

    text: str | None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One step as it ran: what each candidate said, and the verdict."""

    said: Mapping[str, Said]
    winner: str | None
    judge_seconds: float


@dataclass(frozen=True, kw_only=True)
class ItemRun:
    """One item as it ran, and what else was answered for it: (read, heard, model) → what that model said."""

    item: Item
    steps: Mapping[str, Judged]
    answers: dict[tuple[str, str, str], Said]

    def text(self, step: str, model: str | None) -> str | None:
        """What a model said at a step; None where it failed or was not asked."""
        said = self.steps[step].said.get(model or "")
        return None if said is None else said.text

    def right_models(self, step: str) -> list[str]:
        """Models whose candidate is right at this step, in the order of their ranks."""
        said = self.steps[step].said
        return [model for model in said if self.item.is_right(step, said[model].text)]


@dataclass(frozen=True, kw_only=True)
class Picks:
    """Whose answers an arm takes: one model that reads, one that hears, and those that are asked for the answer."""

    read: str | None
    hear: str | None
    answer: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an item ended under an arm, and what it cost: model calls and their seconds, judge included."""

    right: bool
    calls: int
    seconds: float


def run_of(item: Item, story: Mapping[str, Any]) -> ItemRun:
    """What a finished task tells."""
    found = {subtask["name"]: _judged(subtask) for subtask in story["subtasks"]}
    steps = {name: found.get(name) or Judged(said={}, winner=None, judge_seconds=0.0) for name in STEPS}
    run = ItemRun(item=item, steps=steps, answers={})
    read, heard = (run.text(step, steps[step].winner) for step in (READ, HEAR))
    if read is not None and heard is not None:
        run.answers.update({(read, heard, model): said for model, said in steps[ANSWER].said.items()})
    return run


def _judged(subtask: Mapping[str, Any]) -> Judged:
    verdict = subtask["verdict"] or {}
    said = {
        one["model"]: Said(text=one["output"] if one["status"] == "done" else None, seconds=one["seconds"] or 0.0)
        for one in subtask["candidates"]
    }
    return Judged(said=said, winner=verdict.get("winner"), judge_seconds=verdict.get("seconds") or 0.0)


def best_by(runs: Sequence[ItemRun], models: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The model that is right most often at each step; of equals the first."""
    return {
        step: max(models[step], key=lambda model: sum(model in run.right_models(step) for run in runs))
        for step in STEPS
    }


def picks_of(arm: str, run: ItemRun, fixed: Mapping[str, str], random: Random) -> Picks:
    """Whose answers an arm takes for an item; `fixed` are the models of an arm that always asks the same ones."""
    if arm == ORACLE:
        leaf = {step: _right_one(run, step) for step in (READ, HEAR)}
        return Picks(read=leaf[READ], hear=leaf[HEAR], answer=tuple(run.steps[ANSWER].said))
    if arm == JUDGED:
        return Picks(read=run.steps[READ].winner, hear=run.steps[HEAR].winner, answer=tuple(run.steps[ANSWER].said))
    chosen = {step: random.choice(sorted(run.steps[step].said) or [fixed[step]]) for step in STEPS}
    one = chosen if arm == RANDOM else fixed
    return Picks(read=one[READ], hear=one[HEAR], answer=(one[ANSWER],))


def _right_one(run: ItemRun, step: str) -> str | None:
    """A model that is right: the judge's winner where it is, or nobody else is; else the first one that is.

    Equally right answers are not equally well put, and the step that reads them minds.
    """
    right, winner = run.right_models(step), run.steps[step].winner
    return winner if winner in right or not right else right[0]


def unanswered(run: ItemRun, picks: Picks) -> list[tuple[str, str, str]]:
    """(read, heard, model) of every answer that these picks need and nobody gave yet."""
    read, heard = run.text(READ, picks.read), run.text(HEAR, picks.hear)
    if read is None or heard is None:
        return []
    return [key for model in picks.answer if (key := (read, heard, model)) not in run.answers]


def outcome_of(arm: str, run: ItemRun, picks: Picks) -> Outcome:
    """How the item ended; a step that failed leaves nothing to answer from."""
    read, heard = run.text(READ, picks.read), run.text(HEAR, picks.hear)
    answers: dict[str, Said] = {}
    if read is not None and heard is not None:
        answers = {m: said for m in picks.answer if (said := run.answers.get((read, heard, m))) is not None}
    right = [model for model, said in answers.items() if run.item.is_right(ANSWER, said.text)]
    asked = list(answers.values())
    for step, model in ((READ, picks.read), (HEAR, picks.hear)):
        candidates = run.steps[step].said
        asked += [said for name, said in candidates.items() if arm in ASK_ALL or name == model]
    judges = sum(step.judge_seconds for step in run.steps.values()) if arm == JUDGED else 0.0
    return Outcome(
        right=run.steps[ANSWER].winner in right if arm == JUDGED else bool(right),
        calls=len(asked),
        seconds=sum(said.seconds for said in asked) + judges,
    )
