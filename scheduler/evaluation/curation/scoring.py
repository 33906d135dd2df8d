"""Rows scored here and now, without a job: by IFD of the model that is fine-tuned, or by a scorer of the registry.

A scorer is a model whose output is a number: a reward model, or the backend `ifd`. What it said is kept on disk; it is
loaded at the first text that it never scored.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from db.errors import UsageError
from worker.backends import Failure, Input
from worker.reward.text import QUESTION_REWARD, rendered

if TYPE_CHECKING:
    from collections.abc import Callable

    from db.registry import ModelEntry
    from scheduler.curation.turns import Turn
    from scheduler.evaluation.curation.rows import Row
    from scheduler.evaluation.judges.replies import Replies
    from worker.backends import Backend

IFD = "ifd"


def ifd_of(model: ModelEntry) -> ModelEntry:
    """A language model as a scorer of instruction-following difficulty (`worker.backends.ifd`)."""
    return model.model_copy(update={"backend": IFD, "capability": f"text-classification/{IFD}"})


class Scorer:
    """Scores rows, higher is better, with the figures that are on disk."""

    def __init__(self, entry: ModelEntry, identity: str, load: Callable[[], Backend], replies: Replies) -> None:
        self._entry, self._load, self._replies = entry, load, replies
        self._of = f"{identity} {entry.backend}"
        self._backend: Backend | None = None

    def score(self, row: Row) -> float | None:
        """The mean over a row's turns.

        None where a turn cannot be scored, and for an IFD above 1: there the question is a hindrance to the answer,
        and the two do not belong together.
        """
        found = [self._said(turn) for turn in row.turns]
        known = [score for score in found if score is not None]
        if len(known) < len(found):
            return None
        mean = sum(known) / len(known)
        return None if self._entry.backend == IFD and mean > 1 else mean

    def close(self) -> None:
        """Give the model's memory back."""
        if self._backend is not None:
            self._backend.close()

    def _said(self, turn: Turn) -> float | None:
        asked = self._entry.capability == QUESTION_REWARD
        text = rendered("", turn.question) if asked else rendered(turn.question, turn.answer)
        key = hashlib.sha256(json.dumps([self._of, text]).encode()).digest()
        known = self._replies.get(key)
        if known is None:
            known = [self._asked(text)]
            self._replies.put(key, known)
        score: float | None = known[0]
        return score

    def _asked(self, text: str) -> float | None:
        if self._backend is None:
            self._backend = self._load()
        (output,) = self._backend.run([Input(text=text)])
        if isinstance(output, Failure):
            return None
        try:
            return float(output.text)
        except ValueError:
            raise UsageError(
                f"--curated {self._entry.name}: its output {output.text[:40]!r} is no number, so it is no scorer."
            ) from None
