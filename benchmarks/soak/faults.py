"""Faults: which ones there are, how often, and making them. A seed gives the same faults in the same order."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import TYPE_CHECKING

from benchmarks.soak.registry import MODELS, SCHEDULERS
from scheduler.local.cluster import AWAY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scheduler.local.cluster import Cluster


class Kind(StrEnum):
    """What goes wrong."""

    KILL_CHILD = "kill -9 of a model's process"
    KILL_MODEL = "kill -9 of a model worker"
    KILL_JUDGE = "kill -9 of the judge"
    KILL_SCHEDULER = "kill -9 of a scheduler"
    KILL_INTAKE = "kill -9 of the intake"
    STOP = "SIGTERM"
    FREEZE = "SIGSTOP, later SIGCONT"
    REDIS_KILLED = "Redis killed and started again"
    REDIS_FLUSHED = "Redis FLUSHALL"
    POSTGRES_KILLED = "Postgres stopped at once and started again"


WORKERS = (*MODELS, "judge")
EVERYBODY = (*WORKERS, "intake", *SCHEDULERS)

#: How often each comes, relative to the others, and whom it may hit.
WEIGHTS: dict[Kind, tuple[int, tuple[str, ...]]] = {
    Kind.KILL_CHILD: (4, (*MODELS, "judge")),
    Kind.KILL_MODEL: (3, tuple(MODELS)),
    Kind.KILL_JUDGE: (2, ("judge",)),
    Kind.KILL_SCHEDULER: (3, SCHEDULERS),
    Kind.KILL_INTAKE: (2, ("intake",)),
    Kind.STOP: (4, EVERYBODY),
    Kind.FREEZE: (3, EVERYBODY),
    Kind.REDIS_KILLED: (2, ("redis",)),
    Kind.REDIS_FLUSHED: (2, ("redis",)),
    Kind.POSTGRES_KILLED: (2, ("postgres",)),
}
#: Seconds that it lasts, where it is not over at once. A freeze may be longer than a lease.
LENGTHS: dict[Kind, tuple[float, float]] = {
    Kind.FREEZE: (2.0, 14.0),
    Kind.REDIS_KILLED: (0.0, 3.0),
    Kind.POSTGRES_KILLED: (0.0, 3.0),
}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault: what, to whom, and for how many seconds."""

    kind: Kind
    target: str
    seconds: float = 0.0


def faults(seed: int) -> Iterator[Fault]:
    """Faults without end."""
    chance = Random(seed)
    kinds = list(WEIGHTS)
    weights = [WEIGHTS[kind][0] for kind in kinds]
    while True:
        kind = chance.choices(kinds, weights)[0]
        yield Fault(
            kind=kind,
            target=chance.choice(WEIGHTS[kind][1]),
            seconds=round(chance.uniform(*LENGTHS[kind]), 1) if kind in LENGTHS else 0.0,
        )


class Injector:
    """Makes faults, and ends those that last."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._ends: list[tuple[float, Callable[[], object]]] = []
        self._makers: dict[Kind, Callable[[Fault], bool]] = {
            Kind.KILL_CHILD: self._kill_child,
            Kind.STOP: self._stop,
            Kind.FREEZE: self._freeze,
            Kind.REDIS_KILLED: self._kill_redis,
            Kind.REDIS_FLUSHED: self._flush_redis,
            Kind.POSTGRES_KILLED: self._kill_postgres,
        }
        self.made: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()  # the target was down already

    def make(self, fault: Fault) -> bool:
        """Make a fault. Returns False where its target is down already."""
        made = self._makers.get(fault.kind, self._kill)(fault)
        (self.made if made else self.missed)[str(fault.kind)] += 1
        return made

    def tick(self) -> None:
        """End what has lasted long enough. A server that cannot be started yet is tried again."""
        now = time.monotonic()
        due = [entry for entry in self._ends if entry[0] <= now]
        self._ends = [entry for entry in self._ends if entry[0] > now]
        for _, end in due:
            try:
                end()
            except AWAY:
                self._ends.append((now + 0.5, end))

    def heal(self) -> None:
        """End everything that lasts."""
        while self._ends:
            self._ends = [(0.0, end) for _, end in self._ends]
            self.tick()

    def _kill(self, fault: Fault) -> bool:
        return self._signal(fault.target, signal.SIGKILL)

    def _stop(self, fault: Fault) -> bool:
        return self._signal(fault.target, signal.SIGTERM)

    def _kill_child(self, fault: Fault) -> bool:
        child = self._cluster.child(fault.target)
        if child is None:
            return False
        child.kill()
        return True

    def _freeze(self, fault: Fault) -> bool:
        if not self._cluster.runs(fault.target):
            return False
        pid = self._cluster.members[fault.target].process.pid
        os.killpg(pid, signal.SIGSTOP)

        def thaw() -> None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGCONT)

        self._ends.append((time.monotonic() + fault.seconds, thaw))
        return True

    def _kill_redis(self, fault: Fault) -> bool:
        if not self._cluster.redis.alive():
            return False
        self._cluster.redis.kill()
        self._ends.append((time.monotonic() + fault.seconds, self._cluster.redis.start))
        return True

    def _flush_redis(self, _: Fault) -> bool:
        try:
            with self._cluster.redis_client() as client:
                client.flushall()
        except AWAY:
            return False
        return True

    def _kill_postgres(self, fault: Fault) -> bool:
        if not self._cluster.postgres.alive():
            return False
        self._cluster.postgres.stop(at_once=True)
        self._ends.append((time.monotonic() + fault.seconds, self._cluster.postgres.start))
        return True

    def _signal(self, name: str, number: signal.Signals) -> bool:
        if not self._cluster.runs(name):
            return False
        self._cluster.members[name].process.send_signal(number)
        return True
