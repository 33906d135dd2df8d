"""SIGTERM, which asks a process to stop in order, and SIGSTOP, which makes it look dead until it goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random

import pytest
from celery import Celery

from tests.conftest import wait_until
from tests.faults.cluster import Cluster
from tests.faults.load import Load, Outcome
from tests.faults.registry import MODELS

pytestmark = pytest.mark.faults

InFlight = Callable[..., Load]
Settled = Callable[..., Outcome]

LONGEST_WAIT_FOR_LOCKS = 40.0  # seconds, the work itself included: the server must end an idle transaction soon
BEYOND_THE_LEASE = 8.0  # seconds; leases of the suite are 4 s, a worker is taken for dead after 5 s


@pytest.mark.parametrize("to", ["process", "group"])
def test_model_worker_asked_to_stop(
    cluster: Cluster, in_flight: InFlight, chance: Random, settled: Settled, to: str
) -> None:
    model = chance.choice(MODELS)
    load = in_flight()

    load.wait_for_a_moment()
    load.wait_for_running(model)
    load.fault_is_now()
    code = cluster.ask_to_stop(model, group=to == "group")

    outcome = settled(load)
    assert code == 0
    outcome.assert_sound()
    assert outcome.most_attempts == 1


def test_model_worker_asked_to_stop_in_a_batch_that_takes_longer(
    cluster: Cluster, in_flight: InFlight, settled: Settled
) -> None:
    load = in_flight(capability="text-generation/wide", special={1: "alpha is slow"})

    load.wait_for_running("wide-alpha")
    load.fault_is_now()
    code = cluster.ask_to_stop("alpha")

    outcome = settled(load)
    assert code == 0
    outcome.assert_sound()
    assert outcome.most_attempts == 1, "what was given back was charged"


def test_judge_asked_to_stop(cluster: Cluster, in_flight: InFlight, settled: Settled) -> None:
    load = in_flight()

    load.wait_for_a_moment()
    load.wait_for_judging()
    load.fault_is_now()
    code = cluster.ask_to_stop("judge")

    outcome = settled(load)
    assert code == 0
    outcome.assert_sound()
    assert outcome.fallbacks == 0
    assert cluster.query("SELECT FROM subtask WHERE source = :source AND attempt > 1", source=load.source) == []


def test_scheduler_asked_to_stop(cluster: Cluster, in_flight: InFlight, settled: Settled) -> None:
    load = in_flight()

    load.wait_for_a_moment()
    load.fault_is_now()
    code = cluster.ask_to_stop("scheduler")

    outcome = settled(load)
    assert code == 0
    outcome.assert_sound()
    assert outcome.repeated_calls == 0


def test_intake_asked_to_stop(cluster: Cluster, chance: Random, settled: Settled) -> None:
    count, stop_after = 200, chance.randint(20, 150)
    source = f"stopped intake {chance.random()}"
    load = Load(cluster, source, count, chance)
    sender = Celery(broker=cluster.redis_url)
    with cluster.also("intake", "worker", "--intake"):
        for number in range(count):
            sender.send_task("bakeoff.submit", (f"work {number}",), {"source": source}, queue="intake")
            if number == stop_after:
                load.fault_is_now()
                code = cluster.ask_to_stop("intake")

        outcome = settled(load)
    assert code == 0
    outcome.assert_sound()
    assert cluster.query("SELECT count(*) AS n FROM task WHERE source = :source", source=source)[0].n == count


def test_frozen_model_worker_goes_on_after_its_lease(
    cluster: Cluster, in_flight: InFlight, chance: Random, settled: Settled
) -> None:
    model = chance.choice(MODELS)
    load = in_flight()

    load.wait_for_a_moment(most=0.4)
    load.wait_for_running(model)
    load.fault_is_now()
    cluster.freeze(model)
    time.sleep(BEYOND_THE_LEASE)
    cluster.thaw(model)

    outcome = settled(load)
    outcome.assert_sound()
    # Its process may have stood between two batches; a batch that it was in came too late.
    late = "result_too_late" in (cluster.folder / f"{model}.log").read_text()
    assert late or outcome.repeated_calls == 0


def test_frozen_judge_goes_on_after_its_lease(cluster: Cluster, in_flight: InFlight, settled: Settled) -> None:
    load = in_flight()

    load.wait_for_a_moment(most=0.4)
    load.wait_for_judging()
    load.fault_is_now()
    cluster.freeze("judge")
    time.sleep(BEYOND_THE_LEASE)
    cluster.thaw("judge")

    outcome = settled(load)
    outcome.assert_sound()
    assert outcome.fallbacks == 0


def test_frozen_scheduler_beside_another(cluster: Cluster, in_flight: InFlight, settled: Settled) -> None:
    with cluster.also("scheduler-2", "scheduler"):
        load = in_flight()

        load.wait_for_a_moment(most=0.4)
        load.fault_is_now()
        cluster.freeze("scheduler")
        time.sleep(BEYOND_THE_LEASE)
        cluster.thaw("scheduler")

        settled(load).assert_sound()


def test_frozen_scheduler_that_holds_locks(cluster: Cluster, in_flight: InFlight, settled: Settled) -> None:
    with cluster.also("scheduler-2", "scheduler"):
        load = in_flight()

        load.wait_for_a_moment(most=0.1)
        freeze_in_a_transaction(cluster, "scheduler")
        load.fault_is_now()
        outcome = settled(load, within=110)
        cluster.thaw("scheduler")
    outcome.assert_sound()
    assert outcome.recovery < LONGEST_WAIT_FOR_LOCKS, "everybody waited for a scheduler that does nothing"


def freeze_in_a_transaction(cluster: Cluster, name: str) -> None:
    """Freeze a process at a moment when a transaction of its own holds locks on rows."""

    def caught() -> bool:
        cluster.freeze(name)
        holding = cluster.query(
            """
            SELECT FROM pg_stat_activity AS a JOIN pg_locks AS l ON l.pid = a.pid AND l.mode LIKE 'Row%'
            WHERE a.state = 'idle in transaction' AND a.application_name = :application LIMIT 1
            """,
            application=f"bakeoff scheduler {cluster.pid(name)}",
        )
        if not holding:
            cluster.thaw(name)
        return bool(holding)

    wait_until(caught, 30, lambda: f"{name} was never caught in a transaction")
