"""What is stopped between submit and verdict goes on: Postgres is the truth, a message is dispensable."""

from __future__ import annotations

import signal

import pytest
import redis

from tests.conftest import SCRIPTED, Installation, wait_until

pytestmark = pytest.mark.integration

FEW = ("alpha", "beta", "gamma")


def enqueue(installation: Installation, count: int, text: str = "work") -> None:
    installation.query(
        "INSERT INTO task (request) SELECT :text || ' ' || n FROM generate_series(1, :count) AS n",
        text=text,
        count=count,
    )


def done(installation: Installation) -> int:
    return int(installation.query("SELECT count(*) AS n FROM task WHERE status = 'done'")[0].n)


def assert_consistent(installation: Installation, count: int) -> None:
    assert done(installation) == count
    assert installation.query("SELECT count(*) AS n FROM verdict")[0].n == count
    assert installation.query("SELECT 1 FROM candidate WHERE finished_at IS NULL") == []
    assert installation.query("SELECT 1 FROM subtask WHERE finished_at IS NULL") == []


def test_everything_is_killed_between_submit_and_verdict_and_goes_on(installation: Installation) -> None:
    installation.start_all(FEW)
    enqueue(installation, 20, "slow")
    wait_until(lambda: installation.query("SELECT 1 FROM candidate WHERE status = 'running'"), 30, installation.logs)

    installation.stop_all()
    assert done(installation) < 20
    installation.start_all(FEW)

    wait_until(lambda: done(installation) == 20, 90, installation.logs)
    assert_consistent(installation, 20)


def test_a_flushed_redis_loses_nothing(installation: Installation) -> None:
    installation.start_all(FEW)
    enqueue(installation, 30, "slow")
    wait_until(lambda: installation.query("SELECT 1 FROM candidate WHERE status = 'sent'"), 30, installation.logs)

    redis.Redis.from_url(installation.redis_url).flushdb()

    wait_until(lambda: done(installation) == 30, 90, installation.logs)
    assert_consistent(installation, 30)


def test_a_killed_child_costs_one_attempt_and_no_task(installation: Installation) -> None:
    installation.settings["BAKEOFF_LEASE_SECONDS"] = "300"  # the parent ends it: nobody waits for it to run out
    installation.start_all(FEW)
    enqueue(installation, 5, "slow")
    wait_until(
        lambda: installation.query("SELECT 1 FROM candidate WHERE status = 'running' AND model = 'alpha'"),
        30,
        installation.logs,
    )

    import psutil

    (child,) = [
        process
        for process in psutil.Process(installation.processes["alpha"].pid).children(recursive=True)
        if "semaphore_tracker" not in " ".join(process.cmdline())
    ]
    child.send_signal(signal.SIGKILL)

    wait_until(lambda: done(installation) == 5, 60, installation.logs)
    assert_consistent(installation, 5)
    attempts = installation.query(
        "SELECT max(attempt) AS most FROM candidate WHERE model = 'alpha' AND status = 'done'"
    )
    assert attempts[0].most == 2


def test_a_scheduler_that_stops_is_replaced_by_the_next(installation: Installation) -> None:
    installation.start_all(FEW)
    code = installation.stop("scheduler")
    enqueue(installation, 3)
    installation.start("scheduler-2", "scheduler")

    wait_until(lambda: done(installation) == 3, 30, installation.logs)
    assert code == 0


def test_a_worker_that_is_asked_to_stop_leaves_the_list(installation: Installation) -> None:
    installation.start("alpha", "worker", "alpha")
    installation.wait_ready(1)

    code = installation.stop("alpha")

    assert code == 0
    assert installation.query("SELECT name FROM worker") == []


def test_two_workers_of_one_model_share_its_queue_under_two_names(installation: Installation) -> None:
    installation.start_all(FEW)
    installation.start("alpha-2", "worker", "alpha")
    installation.wait_ready(6)
    enqueue(installation, 10)

    wait_until(lambda: done(installation) == 10, 30, installation.logs)
    names = {row.name.partition("@")[0] for row in installation.query("SELECT name FROM worker")}
    assert {"alpha", "alpha-2"} <= names
    assert_consistent(installation, 10)


def test_a_worker_that_cannot_load_its_model_eats_nothing_from_one_that_can(installation: Installation) -> None:
    installation.start_all(FEW)
    broken = SCRIPTED.replace(
        'params = { answer = "alpha: {text}",', 'params = { load_fails = true, answer = "alpha: {text}",'
    )
    sound = installation.models_file.read_text()
    installation.models_file.write_text(broken)
    installation.start("alpha-broken", "worker", "alpha")
    wait_until(lambda: installation.query("SELECT 1 FROM worker WHERE status = 'broken'"), 60, installation.logs)
    enqueue(installation, 12)

    wait_until(lambda: done(installation) == 12, 60, installation.logs)
    assert installation.query("SELECT 1 FROM candidate WHERE status <> 'done'") == []
    installation.models_file.write_text(sound)
