"""From rows to questions: who is a candidate, in what order, under which name; and which rows are fitted on."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from uuid import UUID

from db.errors import UsageError
from scheduler.evaluation.judges.rows import best_models, part_of
from scheduler.evaluation.running import plain_name
from worker.judges import Answer, Question
from worker.judges.fitting import FOLDS, fold_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scheduler.evaluation.judges.rows import EvaluationSet, Kind, Row

SplitName = Literal["auto", "parts", "folds"]
ENOUGH = 100  # groups kept to report: with fewer, every row is predicted in turn by weights that did not see it


@dataclass(frozen=True, kw_only=True)
class Case:
    """A row as it is asked: an answer's id is the place of its key in `keys`."""

    row: Row
    keys: tuple[str, ...]
    question: Question

    def key(self, answer: UUID) -> str:
        """Whose answer an id stands for."""
        return self.keys[answer.int]


@dataclass(frozen=True, kw_only=True)
class Split:
    """Rows to learn from, and rows to report that share no group with them."""

    learn: tuple[Row, ...]
    report: tuple[Row, ...]


def splits(evaluation: EvaluationSet, how: SplitName, learn: EvaluationSet | None = None) -> tuple[str, list[Split]]:
    """How a set is split, and the parts. With a set of its own to learn from, every row is reported."""
    if learn is not None:
        known = {row.group for row in evaluation.rows}
        rows = tuple(row for row in learn.rows if row.group not in known)
        return f"fitted on {learn.name}", [Split(learn=rows, report=evaluation.rows)]
    kept = evaluation.part("report")
    if how == "parts" or (how == "auto" and len({row.group for row in kept}) >= ENOUGH):
        rest = tuple(row for row in evaluation.rows if part_of(row.group) != "report")
        return "fit and tune, report", [Split(learn=rest, report=tuple(kept))]
    folds = [fold_of(f"reported {row.group}") for row in evaluation.rows]
    found = [
        Split(
            learn=tuple(row for row, own in zip(evaluation.rows, folds, strict=True) if own != fold),
            report=tuple(row for row, own in zip(evaluation.rows, folds, strict=True) if own == fold),
        )
        for fold in range(FOLDS)
    ]
    return f"{FOLDS}-fold by group", [split for split in found if split.learn and split.report]


def keys_of(rows: Sequence[Row], count: int) -> list[str]:
    """The best models of rows to learn from, best first; both answers of a pair."""
    if not rows:
        raise UsageError("The set has no rows to choose its models on.")
    return ["1", "2"] if is_pair(rows[0]) else best_models(rows, count)


def is_pair(row: Row) -> bool:
    """Whether the row is two answers that stand for themselves, not for models that answer every row."""
    return set(row.answers) == {"1", "2"}


def case_of(row: Row, keys: Sequence[str], kind: Kind, *, blind: bool = False, swapped: bool = False) -> Case:
    """What a judge is asked about a row.

    Ranks are the order of `keys`; where that says nothing (a pair) or must not be known (`blind`) they are drawn by lot
    from the row's id, and names follow the ranks. `swapped` turns the ranks round.
    """
    there = [key for key in keys if key in row.answers]
    ranks = list(range(len(there)))
    if blind or is_pair(row):
        random.Random(f"rank {row.id}").shuffle(ranks)  # noqa: S311 - a fixed shuffle, not a secret
    if swapped:
        ranks = [len(ranks) - 1 - rank for rank in ranks]
    nameless = blind or (is_pair(row) and not row.names)
    answers = [
        Answer(
            id=UUID(int=place),
            model=f"candidate-{rank}" if nameless else plain_name(row.names.get(key, key)),
            text=row.answers[key],
            rank=rank,
        )
        for place, (key, rank) in enumerate(zip(there, ranks, strict=True))
    ]
    question = Question(
        id=UUID(int=0),
        capability=kind.capability,
        instruction=kind.instruction,
        request=row.request,
        answers=tuple(sorted(answers, key=lambda answer: answer.rank)),
    )
    return Case(row=row, keys=tuple(there), question=question)
