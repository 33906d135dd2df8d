"""What this system has seen of a capability: strengths from verdicts and preferences, and the run log."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from sqlalchemy import Engine

from db.engine import transaction
from db.track import Judged, Preferred, judged_subtasks, preferences_between_models
from scheduler.selectors.run_log import Entry, RunLog
from scheduler.selectors.strength import Strengths, fit_strengths, games_of

LATEST = 2000  # verdicts, and preferences, per capability
SECONDS = 60.0  # between two readings

#: What a preference weighs, in games. People are asked seldom and know best; a verdict's games weigh 1.
WEIGHTS = {"human": 5.0, "import": 1.0, "judge": 1.0}

#: Selectors that read a history.
LEARNING = frozenset({"track_record", "nearest", "explore"})


@dataclass(frozen=True, kw_only=True)
class History:
    """Bradley-Terry strengths and past subtasks of one capability."""

    strengths: Strengths = field(default_factory=Strengths)
    log: RunLog = field(default_factory=RunLog)


NOTHING_KNOWN = History()


def history_of(judged: Iterable[Judged], preferred: Iterable[Preferred] = ()) -> History:
    """What follows from verdicts and preferences.

    In the log a model's score is the share of the others that tried which came after it: 1 for the winner and for those
    that said the same, 0 for those that failed.
    """
    wins: dict[tuple[str, str], float] = defaultdict(float)
    entries = []
    for one in judged:
        groups = (*one.ranking, one.failed) if one.failed else one.ranking
        if sum(map(len, groups)) > 1:
            for pair, weight in games_of(groups).items():
                wins[pair] += weight
            entries.append(Entry(text=one.request, scores=_shares(one)))
    for choice in preferred:
        wins[choice.better, choice.worse] += WEIGHTS[choice.origin]
    return History(strengths=fit_strengths(wins), log=RunLog(entries))


def _shares(judged: Judged) -> dict[str, float]:
    after = others = sum(map(len, judged.ranking)) + len(judged.failed) - 1
    out = dict.fromkeys(judged.failed, 0.0)
    for place, group in enumerate(judged.ranking):
        after -= len(group)
        out |= dict.fromkeys(group, (after + 1) / others if place else 1.0)
    return out


class Histories:
    """The histories of a process, per capability: read at most every so many seconds, and never while choosing."""

    def __init__(
        self,
        engine: Engine,
        *,
        latest: int = LATEST,
        seconds: float = SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._latest = latest
        self._seconds = seconds
        self._clock = clock
        self._known: dict[str, History] = {}
        self._read_at: dict[str, float] = {}

    def of(self, capability: str) -> History:
        """What was last read of a capability; nothing where it was never refreshed. Touches no database."""
        return self._known.get(capability, NOTHING_KNOWN)

    def refresh(self, capabilities: Iterable[str]) -> int:
        """Read those of these that were not read for as long; two statements each. Returns how many.

        Call it outside of any transaction: it takes one of its own, and then the time to learn (about .2 s for 2,000
        verdicts).
        """
        due = [name for name in capabilities if self._clock() - self._read_at.get(name, float("-inf")) >= self._seconds]
        for capability in due:
            now = self._clock()
            with transaction(self._engine) as connection:
                judged = judged_subtasks(connection, capability, self._latest)
                preferred = preferences_between_models(connection, capability, self._latest)
            history = history_of(judged, preferred)
            history.log.prepare()
            self._known[capability], self._read_at[capability] = history, now
        return len(due)


def learns(selectors: Iterable[str]) -> bool:
    """Whether one of these selectors reads a history."""
    return not LEARNING.isdisjoint(selectors)
