"""What this process measured: how long its models and judges take, and what follows from it.

As many questions enter a judge together as it answers within a moment, by what it took lately. A chunk is charged in
one statement and stored in one. A process that is lost costs every subtask of its chunk an attempt, so a subtask that
was charged before goes alone, and so does the first one of a judge that nobody timed yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from db.verdicts import ToJudge

if TYPE_CHECKING:
    from collections import deque

MOMENT = 0.5  # seconds
MOST = 256  # questions
WEIGHT = 0.2  # of the latest measurement in an average
NEGLIGIBLE = 0.001  # seconds per item below which nobody plans with the difference


class Speeds:
    """Seconds per item of each model of this process, a moving average; the database is told what is news.

    The row of a model is what schedulers lock, so it is not written for every batch.
    """

    def __init__(self) -> None:
        self._average: dict[str, float] = {}
        self._told: dict[str, float] = {}

    def took(self, model: str, seconds: float) -> None:
        """An item of the latest batch took so long."""
        before = self._average.get(model, seconds)
        self._average[model] = before + WEIGHT * (seconds - before)

    def news(self, model: str) -> float | None:
        """The average, where it is a quarter away from what was told last."""
        average, told = self._average[model], self._told.get(model)
        if told is not None and abs(average - told) <= 0.25 * max(told, NEGLIGIBLE):
            return None
        return average

    def told(self, model: str, seconds: float) -> None:
        """The database knows."""
        self._told[model] = seconds


class JudgePace:
    """Seconds per question of each judge of this process, a moving average."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def took(self, judge: str, seconds: float) -> None:
        """A question took so long."""
        before = self._seconds.get(judge, seconds)
        self._seconds[judge] = before + WEIGHT * (seconds - before)

    def size(self, judge: str) -> int:
        """Questions that enter together."""
        seconds = self._seconds.get(judge)
        if seconds is None:
            return 1
        return max(1, min(MOST, int(MOMENT / max(seconds, 1e-6))))

    def next_of(self, waiting: deque[ToJudge]) -> list[ToJudge]:
        """Take the next chunk from the left: of one judge, and alone what cost a process before."""
        if not waiting:
            return []
        judge, chunk, asked = waiting[0].judge, list[ToJudge](), list[ToJudge]()
        while waiting and len(chunk) < MOST and waiting[0].judge == judge:
            if asks(waiting[0]):
                if asked and (len(asked) >= self.size(judge) or asked[-1].attempt or waiting[0].attempt):
                    break
                asked.append(waiting[0])
            chunk.append(waiting.popleft())
        return chunk


def asks(subtask: ToJudge) -> bool:
    """Whether there is something to ask a judge: a single survivor wins without."""
    return len(subtask.candidates) > 1
