"""Tasks in flight: how a test puts them there, when it makes its fault, and what must be true when all is over."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.faults import guard
from tests.faults.cluster import AWAY, Cluster
from tests.faults.report import Measurement

CANDIDATES = 3
GIVE_UP = 60.0  # seconds after the fault in which everything must be final


@dataclass
class Load:
    """The tasks of one test; they share its name as their source."""

    cluster: Cluster
    source: str
    count: int
    chance: Random
    started: float = field(default_factory=time.monotonic)
    fault_at: float | None = None

    def add(
        self,
        *,
        text: str = "work",
        special: Mapping[int, str] | None = None,
        capability: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Store the tasks in one statement; `special` gives some of them, counted from 1, another request."""
        self.cluster.query(
            """
            INSERT INTO task (request, source, capability, options)
            SELECT coalesce(CAST(:special AS jsonb) ->> CAST(n AS text), :text || ' ' || n), :source,
                   CAST(:capability AS text), CAST(:options AS jsonb)
            FROM generate_series(1, :count) AS n
            """,
            special=json.dumps({str(number): request for number, request in (special or {}).items()}),
            text=text,
            source=self.source,
            capability=capability,
            options=json.dumps(dict(options or {})),
            count=self.count,
        )

    # --- the moment

    def wait_for_a_moment(self, *, least: float = 0.05, most: float = 0.6) -> None:
        """Wait until a random share of the model calls is over, and a little longer."""
        share = self.chance.uniform(least, most)
        self.wait_for_share(share)
        time.sleep(self.chance.uniform(0, 0.25))

    def wait_for_share(self, share: float) -> None:
        deadline = time.monotonic() + GIVE_UP
        while self.finished_candidates() < share * CANDIDATES * self.count:
            assert time.monotonic() < deadline, f"never {share:.0%} through\n{self.cluster.explain()}"
            time.sleep(0.02)

    def wait_for_running(self, model: str) -> None:
        """Wait until a batch is inside a model."""
        self._wait_for(
            "SELECT FROM candidate WHERE status = 'running' AND attempt > 0 AND model = :model LIMIT 1", model=model
        )

    def wait_for_judging(self) -> None:
        """Wait until the judge works on something."""
        self._wait_for("SELECT FROM subtask WHERE status = 'judging' LIMIT 1")

    def _wait_for(self, statement: str, **values: Any) -> None:
        deadline = time.monotonic() + GIVE_UP
        while not self.cluster.query(statement, **values):
            assert time.monotonic() < deadline, f"never seen: {statement} {values}\n{self.cluster.explain()}"
            time.sleep(0.01)

    def fault_is_now(self) -> None:
        """From here on the recovery is timed."""
        self.fault_at = time.monotonic()

    # --- the end

    def settle(self, within: float = GIVE_UP) -> Outcome:
        """Wait until every task is final, `within` seconds of the fault; whatever is not is lost."""
        if self.fault_at is None:
            self.fault_is_now()
        assert self.fault_at is not None
        while (open_tasks := self._open_tasks()) != 0 and time.monotonic() < self.fault_at + within:
            time.sleep(0.1)
        ended = time.monotonic()
        assert open_tasks is not None, f"Postgres does not answer\n{self.cluster.explain()}"
        return Outcome(self, seconds=ended - self.started, recovery=ended - self.fault_at)

    def _open_tasks(self) -> int | None:
        """How many are not final; None while Postgres is away."""
        try:
            stored = self.cluster.query(
                "SELECT count(finished_at) AS n FROM task WHERE source = :source", source=self.source
            )
        except AWAY:
            return None
        return self.count - int(stored[0].n)

    def finished_candidates(self) -> int:
        return int(
            self.cluster.query(
                """
                SELECT count(c.finished_at) AS n FROM candidate AS c JOIN subtask AS s ON s.id = c.subtask_id
                WHERE s.source = :source
                """,
                source=self.source,
            )[0].n
        )


@dataclass
class Outcome:
    """What became of a load."""

    load: Load
    seconds: float
    recovery: float

    def __post_init__(self) -> None:
        rows = self._query("SELECT status, count(*) AS n FROM task WHERE source = :source GROUP BY status")
        self.states: dict[str, int] = {row.status: int(row.n) for row in rows}
        self.done = self.states.get("done", 0)
        self.failed = self.states.get("failed", 0)
        self.lost = self.load.count - int(
            self._query("SELECT count(finished_at) AS n FROM task WHERE source = :source")[0].n
        )
        self.fallbacks = int(
            self._query(
                "SELECT count(*) AS n FROM verdict AS v JOIN subtask AS s ON s.id = v.subtask_id "
                "WHERE s.source = :source AND v.fallback"
            )[0].n
        )
        self.repeated_calls = guard.repeated_calls(self.load.cluster, self.load.source)
        self.most_attempts = int(
            self._query(
                "SELECT coalesce(max(c.attempt), 0) AS n FROM candidate AS c JOIN subtask AS s ON s.id = c.subtask_id "
                "WHERE s.source = :source"
            )[0].n
        )
        self.candidates: dict[tuple[str, str], int] = {
            (row.model, row.status): int(row.n)
            for row in self._query(
                "SELECT c.model, c.status, count(*) AS n FROM candidate AS c JOIN subtask AS s ON s.id = c.subtask_id "
                "WHERE s.source = :source GROUP BY c.model, c.status"
            )
        }

    def _query(self, statement: str) -> list[Any]:
        return self.load.cluster.query(statement, source=self.load.source)

    def measurement(self, fault: str, seed: int, baseline: float | None) -> Measurement:
        return Measurement(
            fault=fault,
            seed=seed,
            tasks=self.load.count,
            done=self.done,
            failed=self.failed,
            lost=self.lost,
            repeated_calls=self.repeated_calls,
            fallbacks=self.fallbacks,
            recovery_seconds=round(self.recovery, 1),
            seconds=round(self.seconds, 1),
            baseline_seconds=None if baseline is None else round(baseline, 1),
        )

    def assert_sound(self, least_done: int | None = None) -> None:
        """Nothing was lost, nothing was decided twice, nothing is left over; all but one are done where not said."""
        least = self.load.count - 1 if least_done is None else least_done
        explain = self.load.cluster.explain
        assert self.lost == 0, f"{self.lost} of {self.load.count} tasks are not final: {self.states}\n{explain()}"
        assert self.done >= least, f"{self.done} done, at least {least} wanted: {self.states}\n{explain()}"
        assert self._failed_without_reasons() == []
        assert self._wrong_verdicts() == []
        assert self._left_in_flight() == []
        assert self._inconsistent() == []
        assert guard.violations(self.load.cluster) == []

    def candidates_of(self, model: str, status: str) -> int:
        return self.candidates.get((model, status), 0)

    def _failed_without_reasons(self) -> list[Any]:
        """Failed tasks must say why; where candidates failed, with the reason of each."""
        return self._query(
            """
            SELECT t.id, t.error FROM task AS t JOIN subtask AS s ON s.task_id = t.id
            WHERE t.source = :source AND t.status = 'failed'
              AND (coalesce(t.error ->> 'code', '') = '' OR coalesce(t.error ->> 'message', '') = ''
                   OR s.error IS NULL
                   OR EXISTS (SELECT FROM candidate AS c WHERE c.subtask_id = s.id AND c.error IS NULL))
            """
        )

    def _wrong_verdicts(self) -> list[Any]:
        """A done subtask has one verdict, for a candidate that is done; any other has none."""
        return self._query(
            """
            SELECT s.id, s.status, count(v.id) AS verdicts FROM subtask AS s
            LEFT JOIN verdict AS v ON v.subtask_id = s.id
            LEFT JOIN candidate AS c ON c.id = v.winner_id AND c.status = 'done'
            WHERE s.source = :source
            GROUP BY s.id HAVING count(v.id) <> CASE WHEN s.status = 'done' THEN 1 ELSE 0 END OR count(v.id) <> count(c.id)
            """
        )

    def _left_in_flight(self) -> list[Any]:
        return self._query(
            """
            SELECT 'candidate' AS kind, c.id, c.status, c.lease_until FROM candidate AS c
            JOIN subtask AS s ON s.id = c.subtask_id
            WHERE s.source = :source AND (c.finished_at IS NULL OR c.token IS NOT NULL)
            UNION ALL
            SELECT 'subtask', s.id, s.status, s.lease_until FROM subtask AS s
            WHERE s.source = :source AND (s.finished_at IS NULL OR s.token IS NOT NULL)
            UNION ALL
            SELECT 'task', t.id, t.status, t.lease_until FROM task AS t
            WHERE t.source = :source AND (t.finished_at IS NULL OR t.token IS NOT NULL)
            """
        )

    def _inconsistent(self) -> list[Any]:
        """Tasks whose answer is not their winner's output, or whose state is not what their subtask's says."""
        return self._query(
            """
            SELECT t.id, t.status, s.status AS subtask, t.answer, c.output FROM task AS t
            LEFT JOIN subtask AS s ON s.task_id = t.id
            LEFT JOIN verdict AS v ON v.subtask_id = s.id
            LEFT JOIN candidate AS c ON c.id = v.winner_id
            WHERE t.source = :source
              AND (t.status IS DISTINCT FROM s.status OR t.answer IS DISTINCT FROM c.output
                   OR EXISTS (SELECT FROM candidate AS x WHERE x.subtask_id = s.id AND x.attempt > x.max_attempts))
            """
        )
