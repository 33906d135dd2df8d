"""Judges on rows with known scores: each is fitted where it learns, asked once per case, and its decisions are kept."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from db.errors import UsageError
from db.logs import get_logger
from scheduler.evaluation.judges.cases import case_of, is_pair, keys_of
from scheduler.evaluation.judges.teaching import Lesson, taught_by
from worker.judges import create_judge
from worker.judges.artifact import Artifact
from worker.judges.jury import Jury

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from db.registry import JudgeEntry
    from scheduler.evaluation.judges.cases import Case, Split
    from scheduler.evaluation.judges.replies import Remembering
    from scheduler.evaluation.judges.rows import Kind, Row
    from worker.judges import Decision, Judge, Question

log = get_logger(__name__)
LEARNS = frozenset({"jury", "cascade"})
LEARNING_TIME = 0.6  # of the seconds allowed


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A case, what the judge decided (None: it failed), and prompts that its language model read for it."""

    case: Case
    judge: Judge
    decision: Decision | None
    calls: int
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
    started: float = field(default_factory=time.monotonic)

    def run(self, parts: Sequence[Split]) -> list[Asked]:
        """Ask the judge about every row to report, each by what it learned from others."""
        left = self.limit
        out: list[Asked] = []
        for number, split in enumerate(parts, 1):
            rows = split.report[: None if left is None else max(0, left)]
            if not rows or self._late(1.0):
                continue
            keys = keys_of(split.learn, self.candidates)
            judge = self._judge(split.learn, keys, LEARNING_TIME * number / len(parts))
            out += self._asked(judge, rows, keys, split.learn)
            left = None if left is None else left - len(rows)
        return out

    def _asked(self, judge: Judge, rows: Sequence[Row], keys: Sequence[str], learned: tuple[Row, ...]) -> list[Asked]:
        out: list[Asked] = []
        for row in rows:
            if self._late(1.0) and out:
                break
            case = case_of(row, keys, self.kind, blind=self.blind)
            if len(case.keys) < 2:
                continue
            before = self.model.calls if self.model else 0
            decision = self.decide(judge, case.question)
            calls = (self.model.calls if self.model else 0) - before
            out.append(Asked(case=case, judge=judge, decision=decision, calls=calls, learned_from=learned))
        return out

    def decide(self, judge: Judge, question: Question) -> Decision | None:
        """The judge's decision, or None where it fails: an error is no tie."""
        try:
            return judge.decide(question)
        except Exception as error:  # noqa: BLE001 - whatever a judge raises is a figure of the bench
            if not self.errors:
                log.warning(f"{self.entry.name} failed: {error}", action="judge_failed", judge=self.entry.name)
            self.errors.append(f"{type(error).__name__}: {error}")
            return None

    def _late(self, share: float) -> bool:
        return self.seconds is not None and time.monotonic() - self.started > share * self.seconds

    # --- judges that learn

    def _judge(self, learn: Sequence[Row], keys: Sequence[str], share: float) -> Judge:
        entry = self.entry
        nameless = self.blind or any(is_pair(row) and not row.names for row in learn)
        if entry.method in LEARNS and nameless:
            entry = entry.model_copy(update={"params": entry.params | {"identity": False}})
        judge = create_judge(entry, self.model)
        if isinstance(judge, Jury) and "artifact" not in entry.params:
            self._teach(judge, learn, keys, share)
        return judge

    def _teach(self, jury: Jury, learn: Sequence[Row], keys: Sequence[str], share: float) -> None:
        before = self.model.calls if self.model else 0
        read = []
        for row in learn:
            if self._late(share):
                break
            case = case_of(row, keys, self.kind, blind=self.blind)
            if len(case.keys) < 2:
                continue
            scores = tuple(row.scores[case.key(answer.id)] for answer in case.question.answers)
            lesson = Lesson(group=row.group, question=case.question, scores=scores)
            read.append((lesson, jury.read(case.question)))
        self.learning_calls += (self.model.calls if self.model else 0) - before
        try:
            fitted = taught_by(read, jury.speaks_with)
        except UsageError as error:
            self.cards.append({"not_fitted": str(error)})
            return
        self.cards.append(fitted.card)
        jury.artifact = Artifact(capabilities={self.kind.capability: fitted})
