"""Planners and integrators are killed while they think: every task is planned once, answered once, and none is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from tests.conftest import wait_until
from tests.faults import guard
from tests.faults.cluster import Cluster, gone
from tests.faults.load import GIVE_UP, Load

pytestmark = pytest.mark.faults

TASKS = 60  # two subtasks each
OPTIONS = {"planner": "splits", "integrate": "tells"}

InFlight = Callable[..., Load]


@pytest.fixture
def thinking(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with a worker that plans and integrates."""
    with cluster.also("thinker", "worker", "--planner", "--integrator"):
        yield cluster


def wait_for(cluster: Cluster, state: str) -> None:
    """Wait until somebody works on a task in this state."""
    wait_until(
        lambda: cluster.query("SELECT FROM task WHERE status = :state AND token IS NOT NULL LIMIT 1", state=state),
        GIVE_UP,
        cluster.explain,
    )


def assert_answered_once(load: Load) -> None:
    """Every task is done, by two steps with a verdict each, and its answer is what was written, once."""
    cluster = load.cluster

    def open_tasks() -> int:
        return int(
            cluster.query("SELECT count(*) AS n FROM task WHERE source = :s AND finished_at IS NULL", s=load.source)[
                0
            ].n
        )

    wait_until(lambda: open_tasks() == 0, GIVE_UP, cluster.explain)
    rows: list[Any] = cluster.query(
        """
        SELECT t.status, t.answer, count(s.id) AS steps, count(v.id) AS verdicts,
               bool_and(s.status = 'done') AS done, count(*) FILTER (WHERE s.token IS NOT NULL) AS held,
               max(c.output) FILTER (WHERE s.name = 'b') AS second
        FROM task AS t JOIN subtask AS s ON s.task_id = t.id LEFT JOIN verdict AS v ON v.subtask_id = s.id
        LEFT JOIN candidate AS c ON c.id = v.winner_id
        WHERE t.source = :s GROUP BY t.id
        """,
        s=load.source,
    )
    assert len(rows) == load.count
    for row in rows:
        assert (row.status, row.steps, row.verdicts, row.done, row.held) == ("done", 2, 2, True, 0), cluster.explain()
        assert row.answer == "It is answered.\n\nSources: [a] beta; [b] beta"
        assert row.second.startswith("beta says more: Then:\n\nbeta says more: work ")
    assert guard.violations(cluster) == []


@pytest.mark.parametrize("state", ["planning", "integrating"])
def test_killed_child_that_thinks(thinking: Cluster, in_flight: InFlight, state: str) -> None:
    load = in_flight(options=OPTIONS)

    wait_for(thinking, state)
    child = thinking.child("thinker")
    child.kill()

    assert_answered_once(load)


@pytest.mark.parametrize("state", ["planning", "integrating"])
def test_killed_worker_that_thinks(thinking: Cluster, in_flight: InFlight, state: str) -> None:
    load = in_flight(options=OPTIONS)

    wait_for(thinking, state)
    child = thinking.child("thinker")
    thinking.kill("thinker")

    wait_until(lambda: gone(child), 2, lambda: "the child outlives its parent")
    assert_answered_once(load)


def test_killed_scheduler_with_plans_in_flight(thinking: Cluster, in_flight: InFlight, chance: Random) -> None:
    load = in_flight(options=OPTIONS)

    load.wait_for_share(chance.uniform(0.05, 0.6))
    thinking.kill("scheduler")

    assert_answered_once(load)


def test_redis_flushed_with_plans_in_flight(thinking: Cluster, in_flight: InFlight, chance: Random) -> None:
    load = in_flight(options=OPTIONS)

    load.wait_for_share(chance.uniform(0.05, 0.6))
    with thinking.redis_client() as client:
        client.flushall()

    assert_answered_once(load)
