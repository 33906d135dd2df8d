"""Messages that come twice, and messages that were never sent."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from tests.faults import crashing_scheduler
from tests.faults.cluster import Cluster
from tests.faults.load import Load, Outcome
from tests.faults.messages import every_message_twice

pytestmark = pytest.mark.faults

InFlight = Callable[..., Load]
Settled = Callable[..., Outcome]

WAVES = 25  # of 8 tasks each


def test_every_message_delivered_twice(cluster: Cluster, in_flight: InFlight, settled: Settled) -> None:
    with every_message_twice(cluster.redis_url) as copies:
        outcome = settled(in_flight())

    assert len(copies.sent) == len(copies.seen) >= 3 * WAVES
    outcome.assert_sound(least_done=outcome.load.count)
    assert outcome.repeated_calls == 0


def test_every_message_delivered_twice_at_the_same_time(
    cluster: Cluster, in_flight: InFlight, settled: Settled
) -> None:
    with (
        cluster.also("alpha-2", "worker", "alpha"),
        cluster.also("judge-2", "worker", "--judge"),
        every_message_twice(cluster.redis_url) as copies,
    ):
        outcome = settled(in_flight())

    assert len(copies.sent) == len(copies.seen) >= 3 * WAVES
    outcome.assert_sound(least_done=outcome.load.count)
    assert outcome.repeated_calls == 0


@pytest.mark.parametrize("published", [0, 1, 2], ids=["nothing-sent", "one-sent", "two-sent"])
def test_scheduler_crashes_between_commit_and_publish(
    cluster: Cluster, in_flight: InFlight, chance: Random, settled: Settled, published: int
) -> None:
    cluster.retire("scheduler")
    load = in_flight()
    try:
        code = cluster.run_module("tests.faults.crashing_scheduler", str(chance.randint(1, 12)), str(published))
        load.fault_is_now()
    finally:
        cluster.start("scheduler", "scheduler")

    outcome = settled(load)
    assert code == crashing_scheduler.EXIT_CODE
    outcome.assert_sound()
    assert outcome.repeated_calls == 0
