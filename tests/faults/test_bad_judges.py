"""Judges that misbehave: every task gets its one verdict, and a judge that is only away costs no fallback."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from tests.faults.cluster import Cluster
from tests.faults.load import Load, Outcome

pytestmark = pytest.mark.faults

InFlight = Callable[..., Load]
Settled = Callable[..., Outcome]

AWAY = 120.0 if os.environ.get("BAKEOFF_FAULT_FULL") == "1" else 20.0  # seconds
SPECIAL = (20, 90, 160)


@pytest.mark.parametrize("how", ["raise", "garbage", "hang", "exit"])
def test_judge_fails_on_some_answers(cluster: Cluster, in_flight: InFlight, settled: Settled, how: str) -> None:
    special = SPECIAL[:1] if how == "hang" else SPECIAL  # each try of a judge that hangs costs its whole time limit
    load = in_flight(special=dict.fromkeys(special, "confuse the judge"), options={"judge": how})

    outcome = settled(load, within=90)
    outcome.assert_sound(least_done=load.count)
    fallbacks = cluster.query(
        """
        SELECT t.request, v.reason FROM verdict AS v JOIN subtask AS s ON s.id = v.subtask_id
        JOIN task AS t ON t.id = s.task_id WHERE s.source = :source AND v.fallback
        """,
        source=load.source,
    )
    assert {row.request for row in fallbacks} == {"confuse the judge"}, "a neighbour paid for it"
    assert all(row.reason for row in fallbacks)


@pytest.mark.parametrize("how", ["raise", "garbage", "unreachable"])
def test_judge_is_broken_for_a_while(cluster: Cluster, in_flight: InFlight, settled: Settled, how: str) -> None:
    with cluster.switched("judge-is-broken"):
        load = in_flight(options={"judge": f"{how}-for-a-while"})
        load.wait_for_share(0.3)
        time.sleep(5)
    load.fault_is_now()

    outcome = settled(load)
    outcome.assert_sound(least_done=load.count)
    assert outcome.fallbacks == 0, "the judge was down, and the selectors decided"


def test_judge_is_down(cluster: Cluster, in_flight: InFlight, settled: Settled) -> None:
    load = in_flight()

    load.wait_for_a_moment()
    load.wait_for_judging()
    load.fault_is_now()
    cluster.retire("judge", signal.SIGKILL)
    time.sleep(AWAY)
    cluster.start("judge", "worker", "--judge")

    outcome = settled(load, within=AWAY + 60)
    outcome.assert_sound()
    assert outcome.fallbacks == 0
