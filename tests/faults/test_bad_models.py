"""Models that misbehave on some inputs, or on all of them: the others answer, and every reason is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import wait_until
from tests.faults.cluster import Cluster
from tests.faults.load import Load, Outcome

pytestmark = pytest.mark.faults

InFlight = Callable[..., Load]
Settled = Callable[..., Outcome]

SPECIAL = (20, 90, 160)  # tasks whose request does harm: in different messages


def failed_candidates(load: Load) -> list[Any]:
    """Candidates that did not answer, with their task's request."""
    return load.cluster.query(
        """
        SELECT t.request, c.model, c.status, c.attempt, c.error FROM candidate AS c
        JOIN subtask AS s ON s.id = c.subtask_id JOIN task AS t ON t.id = s.task_id
        WHERE s.source = :source AND c.status <> 'done' ORDER BY t.request
        """,
        source=load.source,
    )


def assert_only_these_failed(load: Load, request: str, count: int) -> None:
    """The harmful inputs failed on alpha, each with a reason; their neighbours, and every other model, did not."""
    failed = failed_candidates(load)
    assert {(row.request, row.model) for row in failed} == {(request, "alpha")}, load.cluster.explain()
    assert len(failed) == count
    assert all(row.error["message"] for row in failed)


def test_model_raises(cluster: Cluster, in_flight: InFlight, settled: Settled) -> None:
    load = in_flight(special=dict.fromkeys(SPECIAL, "alpha raises"))

    settled(load).assert_sound(least_done=load.count)
    assert_only_these_failed(load, "alpha raises", len(SPECIAL))


def test_model_returns_nothing(cluster: Cluster, in_flight: InFlight, settled: Settled) -> None:
    load = in_flight(special=dict.fromkeys(SPECIAL, "alpha returns nothing"))

    settled(load).assert_sound(least_done=load.count)
    assert_only_these_failed(load, "alpha returns nothing", len(SPECIAL))


def test_model_returns_50_mb(cluster: Cluster, in_flight: InFlight, settled: Settled) -> None:
    load = in_flight(special=dict.fromkeys(SPECIAL, "alpha says too much"))

    settled(load).assert_sound(least_done=load.count)
    assert_only_these_failed(load, "alpha says too much", len(SPECIAL))


@pytest.mark.parametrize("how", ["hangs", "holds the lock"])
def test_model_hangs(cluster: Cluster, in_flight: InFlight, settled: Settled, how: str) -> None:
    load = in_flight(special={SPECIAL[1]: f"alpha {how}"})

    settled(load, within=90).assert_sound(least_done=load.count)
    assert_only_these_failed(load, f"alpha {how}", 1)


def test_model_allocates_without_end(cluster: Cluster, in_flight: InFlight, settled: Settled) -> None:
    load = in_flight(special={SPECIAL[1]: "alpha allocates"})

    settled(load).assert_sound(least_done=load.count)
    assert_only_these_failed(load, "alpha allocates", 1)


def test_model_exits_on_one_input_of_a_message_of_32(cluster: Cluster, in_flight: InFlight, settled: Settled) -> None:
    load = in_flight(capability="text-generation/wide", special={SPECIAL[1]: "alpha exits"})

    outcome = settled(load)
    outcome.assert_sound(least_done=load.count)
    (dead,) = failed_candidates(load)
    assert (dead.request, dead.model, dead.status) == ("alpha exits", "wide-alpha", "dead")
    assert dead.error["message"]
    assert outcome.candidates_of("wide-alpha", "done") == load.count - 1


def test_broken_model_is_suspended_and_comes_back(cluster: Cluster, in_flight: InFlight, settled: Settled) -> None:
    with cluster.switched("alpha-is-broken"):
        load = in_flight()
        outcome = settled(load)
        alpha = cluster.query("SELECT status, reason FROM model WHERE name = 'alpha'")[0]
    outcome.assert_sound(least_done=load.count)
    assert alpha.status == "suspended", cluster.explain()
    assert alpha.reason
    calls = cluster.query(
        """
        SELECT coalesce(sum(c.attempt), 0) AS n FROM candidate AS c JOIN subtask AS s ON s.id = c.subtask_id
        WHERE c.model = 'alpha' AND s.source = :source
        """,
        source=load.source,
    )[0].n
    assert calls < 50, f"a broken model was called {calls} times for {load.count} tasks"

    mended = in_flight()
    wait_until(
        lambda: cluster.query("SELECT FROM model WHERE name = 'alpha' AND status = 'active'"), 30, cluster.explain
    )
    settled(mended).assert_sound(least_done=mended.count)
