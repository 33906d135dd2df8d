"""What happens to a part of a wave happens to that part only: waves of 32, cancelled, expired and poisoned inside."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.faults.cluster import Cluster
from tests.faults.load import Load, Outcome
from tests.faults.messages import every_message_twice

pytestmark = pytest.mark.faults

InFlight = Callable[..., Load]
Settled = Callable[..., Outcome]

POISON = 90
CANCELLED = tuple(range(5, 200, 10))  # some of every wave
EXPIRED = tuple(range(8, 200, 10))


def ids(load: Load, numbers: tuple[int, ...]) -> list[str]:
    """Task ids by number, as they were stored."""
    rows = load.cluster.query(
        "SELECT id FROM task WHERE source = :source AND request = ANY(CAST(:requests AS text[]))",
        source=load.source,
        requests=[f"work {number}" for number in numbers],
    )
    return [str(row.id) for row in rows]


def expire(load: Load, numbers: tuple[int, ...]) -> None:
    """Their deadline is now, wherever they are."""
    load.cluster.query(
        """
        WITH mine AS (SELECT CAST(id AS uuid) AS id FROM unnest(CAST(:ids AS text[])) AS t (id)), tasks AS (
            UPDATE task SET deadline = now() WHERE id IN (SELECT id FROM mine) AND finished_at IS NULL)
        UPDATE subtask SET deadline = now() WHERE task_id IN (SELECT id FROM mine) AND finished_at IS NULL
        """,
        ids=ids(load, numbers),
    )


def cancel(load: Load, numbers: tuple[int, ...]) -> None:
    code = load.cluster.run_module("scheduler.cli", "cancel", *ids(load, numbers))
    assert code in {0, 1}  # 1: some were done before


def states(load: Load, numbers: tuple[int, ...]) -> set[str]:
    wanted = set(ids(load, numbers))
    rows = load.cluster.query("SELECT id, status FROM task WHERE source = :source", source=load.source)
    return {row.status for row in rows if str(row.id) in wanted}


@pytest.mark.parametrize("twice", [False, True], ids=["once", "delivered-twice"])
def test_cancelled_expired_and_poisoned_inside_waves(
    cluster: Cluster, in_flight: InFlight, settled: Settled, *, twice: bool
) -> None:
    load = in_flight(capability="text-generation/wide", special={POISON: "alpha exits"})
    if twice:
        with every_message_twice(cluster.redis_url):
            outcome = disturb(load, settled)
    else:
        outcome = disturb(load, settled)

    outcome.assert_sound(least_done=load.count - len(CANCELLED) - len(EXPIRED))
    assert states(load, CANCELLED) <= {"done", "cancelled"}
    assert states(load, EXPIRED) <= {"done", "expired"}
    others = tuple(n for n in range(1, load.count + 1) if n not in {*CANCELLED, *EXPIRED, POISON})
    assert states(load, others) == {"done"}, cluster.explain()
    assert "cancelled" in outcome.states


def disturb(load: Load, settled: Settled) -> Outcome:
    load.wait_for_running("wide-beta")
    time.sleep(load.chance.uniform(0, 0.5))
    load.fault_is_now()
    cancel(load, CANCELLED)
    expire(load, EXPIRED)
    return settled(load)
