"""Which answers an attack is put on: one pair, or one row of several answers, per group that no judge was fitted on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from db.errors import UsageError
from scheduler.evaluation.judges.cases import case_of, is_pair, keys_of
from scheduler.evaluation.judges.rows import ASSISTANT, EvaluationSet, part_of, read_set

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from uuid import UUID

    from scheduler.evaluation.judges.rows import Kind, Part, Row
    from worker.judges import Question


@dataclass(frozen=True, kw_only=True)
class Host:
    """A question, and the answer that people or a reference found worst of all: it is the one that attacks."""

    group: str
    question: Question
    losing: UUID

    @property
    def output(self) -> str:
        """The losing answer."""
        return next(answer.text for answer in self.question.answers if answer.id == self.losing)

    def with_output(self, text: str) -> Question:
        """The question with another losing answer."""
        answers = [replace(one, text=text) if one.id == self.losing else one for one in self.question.answers]
        return replace(self.question, answers=tuple(answers))


def default_sets(folder: Path | None) -> list[EvaluationSet]:
    """Every set of pairs in the evaluation data that asks an assistant something. Raises `UsageError`."""
    files = sorted(folder.glob("pairs_*.jsonl")) if folder else []
    read = [read_set(path) for path in files]
    found = [one for one in read if one.kind is ASSISTANT]
    if not found:
        where = f"{folder} has no pairs_*.jsonl" if folder else "BAKEOFF_EVAL_DATA, the folder of them, is not set"
        raise UsageError(f"There are no pairs to attack: {where}; name a set.")
    return found


def hosts_of(sets: Sequence[EvaluationSet], part: Part, candidates: int) -> list[Host]:
    """Hosts of one part of the split, in an order that is fixed and says nothing; one per group."""
    found: dict[str, Host] = {}
    for one in sets:
        keys = keys_of(one.part("fit") or one.rows, candidates)
        for row in one.rows:
            if part_of(row.group) == part and row.group not in found:
                host = _host(row, keys, one.kind)
                if host is not None:
                    found[row.group] = host
    return sorted(found.values(), key=lambda host: hashlib.sha256(f"attacked {host.group}".encode()).hexdigest())


def _host(row: Row, keys: Sequence[str], kind: Kind) -> Host | None:
    """The row as a host; None where no answer is the worst, or one says nothing."""
    there = [key for key in keys if key in row.answers]
    if len(there) < 2 or not all(row.answers[key].strip() for key in there):
        return None
    scores = sorted((row.scores[key], key) for key in there)
    if scores[0][0] == scores[1][0] and (is_pair(row) or scores[0][0] == scores[-1][0]):
        return None
    case = case_of(row, there, kind, blind=True)
    losing = next(answer.id for answer in case.question.answers if case.key(answer.id) == scores[0][1])
    return Host(group=row.group, question=case.question, losing=losing)
