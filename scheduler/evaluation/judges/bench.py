"""Judges on rows with known scores: each is fitted where it learns, asked once per case, and its decisions are kept."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeGuard

from db.errors import UsageError
from db.logs import get_logger
from scheduler.evaluation.judges.cases import case_of, is_pair, keys_of
from scheduler.evaluation.judges.raw import raw_choices
from scheduler.evaluation.judges.teaching import Lesson, taught_by
from worker.judges import create_judge
from worker.judges.artifact import Artifact
from worker.judges.jury import Jury

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from db.registry import JudgeEntry
    from scheduler.evaluation.judges.cases import Case, Split
    from scheduler.evaluation.judges.replies import Remembering
    from scheduler.evaluation.judges.rows import Kind, Row
    from worker.judges import Decision, Judge, Question
    from worker.judges.jury import Evidence

    Learned = tuple[Lesson, Evidence]

log = get_logger(__name__)
LEARNS = frozenset({"jury", "cascade"})
LEARNING_TIME = 0.6  # of the seconds allowed


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A case, what the judge decided (None: it failed), and prompts that its language model read for it.

    `calls` is None where nobody counted. `swapped`: the decision with the ranks turned round, of a pair whose judge
    keeps no raw reply of either order.
    """

    case: Case
    decision: Decision | None
    calls: int | None
    learned_from: tuple[Row, ...]
    swapped: Decision | None = None


@dataclass(frozen=True, kw_only=True)
class Sitting:
    """A judge that has learned what it can, and the cases it is to be asked."""

    judge: Judge
    cases: tuple[Case, ...]
    learned_from: tuple[Row, ...]


@dataclass(kw_only=True)
class Bench:
    """One judge on one set. `seconds`: no further row is begun after so long; `limit`: rows reported at most."""

    entry: JudgeEntry
    model: Remembering | None
    kind: Kind
    blind: bool = False
    candidates: int = 4
    limit: int | None = None
    seconds: float | None = None
    cards: list[dict[str, Any]] = field(default_factory=list)  # of every fit
    errors: list[str] = field(default_factory=list)
    learning_calls: int = 0
    due: int = 0  # rows to report, had there been time
    cut: bool = False  # whether there was too little to learn from all rows
    started: float = field(default_factory=time.monotonic)

    def sittings(self, parts: Sequence[Split]) -> Iterator[Sitting]:
        """The judge of each part, taught by the part's rows to learn from, with the rows to report as cases."""
        left = self.limit
        planned = []
        for split in parts:
            rows = split.report[: None if left is None else max(0, left)]
            left = None if left is None else left - len(rows)
            if rows:
                keys = keys_of(split.learn, self.candidates)
                cases = (case_of(row, keys, self.kind, blind=self.blind) for row in rows)
                planned.append((split, keys, tuple(case for case in cases if len(case.keys) > 1)))
        self.due = sum(len(cases) for _, _, cases in planned)
        for number, (split, keys, asked) in enumerate(planned, 1):
            if self.late():
                return
            judge = self._judge(split.learn, keys, LEARNING_TIME * number / len(planned))
            yield Sitting(judge=judge, cases=asked, learned_from=split.learn)

    def run(self, parts: Sequence[Split]) -> list[Asked]:
        """Ask the judge about every row to report, each by what it learned from others."""
        out: list[Asked] = []
        for sitting in self.sittings(parts):
            for case in sitting.cases:
                if self.late() and out:
                    break
                out.append(self._asked(sitting, case))
        return out

    def _asked(self, sitting: Sitting, case: Case) -> Asked:
        before = self._calls
        decision = self._decided(sitting.judge, case.question)
        calls = self._calls - before
        swapped = self._decided(sitting.judge, self.turned(case).question) if needs_turning(case, decision) else None
        return Asked(case=case, decision=decision, calls=calls, learned_from=sitting.learned_from, swapped=swapped)

    def turned(self, case: Case) -> Case:
        """The case with its ranks turned round."""
        return case_of(case.row, case.keys, self.kind, blind=self.blind, swapped=True)

    def _decided(self, judge: Judge, question: Question) -> Decision | None:
        """The judge's decision, or None where it fails: an error is no tie."""
        try:
            return judge.decide(question)
        except Exception as error:  # noqa: BLE001 - whatever a judge raises is a figure of the bench
            self.failed(f"{type(error).__name__}: {error}")
            return None

    def failed(self, reason: str) -> None:
        """Note that the judge failed."""
        if not self.errors:
            log.warning(f"{self.entry.name} failed: {reason}", action="judge_failed", judge=self.entry.name)
        self.errors.append(reason)

    def late(self, share: float = 1.0) -> bool:
        """Whether this share of the seconds is over."""
        return self.seconds is not None and time.monotonic() - self.started > share * self.seconds

    @property
    def _calls(self) -> int:
        return self.model.calls if self.model else 0

    # --- judges that learn

    def _judge(self, learn: Sequence[Row], keys: Sequence[str], share: float) -> Judge:
        nameless = self.blind or any(is_pair(row) and not row.names for row in learn)
        judge = create_judge(nameless_entry(self.entry) if nameless else self.entry, self.model)
        if learns(judge):
            self.teach(judge, self.lessons(judge, learn, keys, share))
        return judge

    def lessons(self, jury: Jury, learn: Sequence[Row], keys: Sequence[str], share: float) -> list[Learned]:
        """Rows with what the jury finds in them, until that share of the seconds is over."""
        before = self._calls
        read = []
        for row in learn:
            if self.late(share):
                self.cut = True
                break
            case = case_of(row, keys, self.kind, blind=self.blind)
            if len(case.keys) < 2:
                continue
            scores = tuple(row.scores[case.key(answer.id)] for answer in case.question.answers)
            lesson = Lesson(group=row.group, question=case.question, scores=scores)
            read.append((lesson, jury.read(case.question)))
        self.learning_calls += self._calls - before
        return read

    def teach(self, jury: Jury, read: Sequence[Learned]) -> None:
        """Fit the jury's weights for the set's capability; where that is too little it stays with its prior."""
        try:
            fitted = taught_by(read, jury.speaks_with)
        except UsageError as error:
            self.cards.append({"not_fitted": str(error)})
            return
        self.cards.append(fitted.card)
        jury.artifact = Artifact(capabilities={**jury.artifact.capabilities, self.kind.capability: fitted})


def learns(judge: Judge) -> TypeGuard[Jury]:
    """Whether a judge is fitted before it is asked: one that was given no weights."""
    return isinstance(judge, Jury) and judge.params.artifact is None


def nameless_entry(entry: JudgeEntry) -> JudgeEntry:
    """The judge that does not look at who answered."""
    if entry.method not in LEARNS:
        return entry
    return entry.model_copy(update={"params": entry.params | {"identity": False}})


def needs_turning(case: Case, decision: Decision | None) -> bool:
    """Whether a pair has to be asked again to know if the judge says the same in both orders."""
    return decision is not None and is_pair(case.row) and not raw_choices(decision)
