"""Redis and Postgres die, forget, and stay away."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.faults.cluster import Cluster
from tests.faults.load import Load, Outcome

pytestmark = pytest.mark.faults

InFlight = Callable[..., Load]
Settled = Callable[..., Outcome]


def test_redis_flushed(cluster: Cluster, in_flight: InFlight, settled: Settled) -> None:
    load = in_flight()

    load.wait_for_a_moment()
    load.fault_is_now()
    with cluster.redis_client() as client:
        client.flushall()

    settled(load).assert_sound()


def test_redis_killed_and_started_again(cluster: Cluster, in_flight: InFlight, settled: Settled) -> None:
    load = in_flight()

    load.wait_for_a_moment()
    load.fault_is_now()
    cluster.servers.redis.kill()
    cluster.servers.redis.start()

    settled(load).assert_sound()


def test_redis_away_for_15_seconds(cluster: Cluster, in_flight: InFlight, settled: Settled) -> None:
    load = in_flight()

    load.wait_for_a_moment()
    killed = cluster.times_logged("Hard time limit")
    load.fault_is_now()
    cluster.servers.redis.kill()
    time.sleep(15)
    cluster.servers.redis.start()

    settled(load).assert_sound()
    # What a child did meanwhile is over: its worker must not wait for it until a time limit kills it.
    assert cluster.times_logged("Hard time limit") == killed, cluster.explain()


def test_redis_killed_and_started_empty(cluster: Cluster, in_flight: InFlight, settled: Settled) -> None:
    load = in_flight()

    load.wait_for_a_moment()
    load.fault_is_now()
    cluster.servers.redis.kill()
    cluster.servers.forget_redis()
    cluster.servers.redis.start()

    settled(load).assert_sound()


def test_postgres_restarted_at_once(cluster: Cluster, in_flight: InFlight, settled: Settled) -> None:
    load = in_flight()

    load.wait_for_a_moment()
    load.fault_is_now()
    cluster.servers.postgres.stop(at_once=True)
    cluster.servers.postgres.start()

    settled(load).assert_sound()


def test_postgres_killed_and_started_again(cluster: Cluster, in_flight: InFlight, settled: Settled) -> None:
    load = in_flight()

    load.wait_for_a_moment()
    load.fault_is_now()
    cluster.servers.postgres.kill()
    cluster.servers.postgres.start()

    settled(load).assert_sound()


def test_postgres_away_for_a_minute(cluster: Cluster, in_flight: InFlight, settled: Settled) -> None:
    load = in_flight()

    load.wait_for_a_moment()
    pids = {name: cluster.pid(name) for name in cluster.processes}
    load.fault_is_now()
    cluster.servers.postgres.stop(at_once=True)
    time.sleep(60)
    cluster.servers.postgres.start()

    settled(load, within=120).assert_sound()
    assert {name: cluster.pid(name) for name in cluster.processes} == pids, "a process died of it"
