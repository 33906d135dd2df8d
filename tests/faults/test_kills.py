"""`kill -9` of every kind of process, at a random moment of 200 tasks in flight."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from celery import Celery

from tests.conftest import wait_until
from tests.faults import guard
from tests.faults.cluster import Cluster, gone
from tests.faults.load import Load, Outcome
from tests.faults.registry import MODELS

pytestmark = pytest.mark.faults

InFlight = Callable[..., Load]
Settled = Callable[..., Outcome]

BATCH = 8  # inputs that one lost child was working on, at most


def test_killed_child_of_a_model_worker(
    cluster: Cluster, in_flight: InFlight, chance: Random, settled: Settled
) -> None:
    model = chance.choice(MODELS)
    load = in_flight()

    load.wait_for_a_moment()
    child = cluster.child(model)
    load.wait_for_running(model)
    load.fault_is_now()
    child.kill()

    outcome = settled(load)
    outcome.assert_sound()
    assert outcome.repeated_calls <= BATCH
    assert outcome.most_attempts <= 2


def test_killed_model_worker(cluster: Cluster, in_flight: InFlight, chance: Random, settled: Settled) -> None:
    model = chance.choice(MODELS)
    load = in_flight()

    load.wait_for_a_moment()
    child = cluster.child(model)
    load.wait_for_running(model)
    load.fault_is_now()
    cluster.kill(model)

    wait_until(lambda: gone(child), 2, lambda: f"the child of {model} outlives its parent: a second copy of the model")
    outcome = settled(load)
    outcome.assert_sound()
    assert outcome.repeated_calls <= BATCH
    assert outcome.most_attempts <= 2


def test_killed_child_of_the_judge(cluster: Cluster, in_flight: InFlight, settled: Settled) -> None:
    load = in_flight()

    load.wait_for_a_moment()
    child = cluster.child("judge")
    load.wait_for_judging()
    load.fault_is_now()
    child.kill()

    outcome = settled(load)
    outcome.assert_sound()
    assert outcome.fallbacks == 0


def test_killed_judge(cluster: Cluster, in_flight: InFlight, settled: Settled) -> None:
    load = in_flight()

    load.wait_for_a_moment()
    child = cluster.child("judge")
    load.wait_for_judging()
    load.fault_is_now()
    cluster.kill("judge")

    wait_until(lambda: gone(child), 2, lambda: "the child of the judge outlives its parent")
    outcome = settled(load)
    outcome.assert_sound()
    assert outcome.fallbacks == 0


def test_killed_scheduler(cluster: Cluster, in_flight: InFlight, settled: Settled) -> None:
    load = in_flight()

    load.wait_for_a_moment()
    load.fault_is_now()
    cluster.kill("scheduler")

    outcome = settled(load)
    outcome.assert_sound()
    assert outcome.repeated_calls == 0


def test_killed_scheduler_beside_another(cluster: Cluster, in_flight: InFlight, settled: Settled) -> None:
    with cluster.also("scheduler-2", "scheduler"):
        load = in_flight()

        load.wait_for_a_moment()
        load.fault_is_now()
        cluster.kill("scheduler")

        outcome = settled(load)
    outcome.assert_sound()
    assert outcome.repeated_calls == 0


def test_killed_intake(cluster: Cluster, chance: Random, settled: Settled) -> None:
    count, kill_after = 200, chance.randint(20, 150)
    source = f"killed intake {chance.random()}"
    load = Load(cluster, source, count, chance)
    sender = Celery(broker=cluster.redis_url)
    with cluster.also("intake", "worker", "--intake"):
        for number in range(count):
            sender.send_task("bakeoff.submit", (f"work {number}",), {"source": source}, queue="intake")
            if number == kill_after:
                load.fault_is_now()
                cluster.kill("intake")

        outcome = settled(load)
    outcome.assert_sound()
    stored = cluster.query("SELECT count(DISTINCT request) AS n FROM task WHERE source = :source", source=source)
    assert stored[0].n == count
    assert cluster.query("SELECT count(*) AS n FROM task WHERE source = :source", source=source)[0].n == count


def test_everything_killed_at_once(cluster: Cluster, in_flight: InFlight, settled: Settled) -> None:
    load = in_flight()

    load.wait_for_a_moment()
    load.fault_is_now()
    for name in ("scheduler", "judge", *MODELS):
        cluster.kill(name)

    outcome = settled(load)
    outcome.assert_sound()
    assert outcome.repeated_calls <= BATCH * len(MODELS)
    assert guard.violations(cluster) == []
