"""Two transactions at once, in the order that hurts: each pair ends, nobody is a deadlock's victim."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, text

from db import candidates as c
from db import endings, prune, replacing, verdicts
from db.breaker import Guarded, note_failure, start_probe
from db.errors import NotFound
from db.registry import ModelEntry
from db.settings import BreakerRules
from db.workers import sync_models
from tests.integration.test_transitions import finish_all, judge, sent
from worker.judging import store_decided

pytestmark = pytest.mark.integration

RULES = BreakerRules(failures=1, probe_seconds=60)

__all__ = ["sent"]  # a fixture

Sent = tuple[UUID, list[c.Message]]


@pytest.fixture
def meanwhile(database: Engine) -> Iterator[Callable[[Callable[[Connection], Any]], Future[Any]]]:
    """Run a transaction beside the test's own; returns when it is done or waits for a lock."""
    threads = ThreadPoolExecutor(2)

    def start(statements: Callable[[Connection], Any]) -> Future[Any]:
        def transaction() -> Any:
            with database.begin() as connection:
                return statements(connection)

        running = threads.submit(transaction)
        while not running.done() and not somebody_waits(database):
            time.sleep(0.01)
        return running

    yield start
    threads.shutdown()


def somebody_waits(database: Engine) -> bool:
    with database.begin() as connection:
        waiting = text(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND cardinality(pg_blocking_pids(pid)) > 0"
        )
        return bool(connection.execute(waiting).scalar_one())


def test_a_cancel_and_a_rebind_of_the_same_subtask_both_end(
    database: Engine, sent: Sent, meanwhile: Callable[..., Future[Any]]
) -> None:
    subtask, messages = sent
    waiting = next(message for message in messages if message.model == "alpha")
    with database.begin() as connection:
        c.unsend(connection, [waiting.id])
        task = connection.execute(text("SELECT task_id FROM subtask")).scalar_one()
        connection.execute(text("INSERT INTO model (name, capability, backend, source, queue) "
                                "VALUES ('delta', 'text-generation', 'scripted', '', 'model.delta')"))  # fmt: skip

    with database.begin() as connection:
        (overdue,) = replacing.lock_overdue(connection, ["alpha"], 0, 8, UUID(int=0))
        cancelling = meanwhile(lambda other: endings.cancel_tasks(other, [task]))
        replacing.give_up(connection, overdue.waiting, "away")
        added = replacing.Addition(subtask_id=subtask, model="delta", proposed_by=[], max_attempts=1)
        assert replacing.add_candidates(connection, [added]) == 1

    assert cancelling.result(10) == [task]
    with database.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM candidate WHERE finished_at IS NULL")).scalar_one() == 0


def test_a_judge_that_fails_again_and_a_message_to_it_both_end(
    database: Engine, sent: Sent, meanwhile: Callable[..., Future[Any]]
) -> None:
    _, messages = sent
    finish_all(database, messages)
    with database.begin() as connection:
        connection.execute(text("INSERT INTO judge (name) VALUES ('longest')"))
        note_failure(connection, Guarded.JUDGE, "longest", "no", RULES)
        connection.execute(text("UPDATE subtask SET sent_at = now() - interval '1 h', message_id = bakeoff_uuid7()"))

    with database.begin() as connection:
        again = verdicts.send_judge_probe(connection, verdicts.Patience(grace=0, lost_after=0), "longest")
        assert again is not None
        failing = meanwhile(lambda other: note_failure(other, Guarded.JUDGE, "longest", "no", RULES))
        start_probe(connection, Guarded.JUDGE, "longest", RULES)

    assert failing.result(10) is True


def test_a_task_that_is_pruned_while_it_is_tried_again_is_not_found(
    database: Engine, sent: Sent, meanwhile: Callable[..., Future[Any]]
) -> None:
    with database.begin() as connection:
        task = connection.execute(text("SELECT task_id FROM subtask")).scalar_one()
        endings.cancel_tasks(connection, [task])

    with database.begin() as connection:
        assert prune.delete_finished(connection, 0, 1) == 1
        retrying = meanwhile(lambda other: endings.retry_task(other, task))

    with pytest.raises(NotFound):
        retrying.result(10)


def test_a_verdict_and_the_end_of_its_lease_both_end(
    database: Engine, sent: Sent, meanwhile: Callable[..., Future[Any]]
) -> None:
    subtask, messages = sent
    finish_all(database, messages)
    got = judge(database, subtask)
    with database.begin() as connection:
        connection.execute(text("INSERT INTO judge (name, consecutive_failures) VALUES ('longest', 1)"))
        connection.execute(text("UPDATE subtask SET attempt = 1, lease_until = now() - interval '1 s'"))
        (waiting,) = verdicts.load_to_judge(connection, got)
    winner = messages[0].candidate_ids[0]
    row = verdicts.VerdictRow(subtask_id=subtask, winner_id=winner, ranking=[winner], scores={}, reason="because",
                              method="scripted", judge="longest", seconds=0.0)  # fmt: skip

    with database.begin() as connection:
        assert verdicts.expire_judging(connection) == {"longest": 1}
        storing = meanwhile(lambda other: store_decided(other, got.token, [(waiting, row)]))
        assert note_failure(connection, Guarded.JUDGE, "longest", "its worker was lost", RULES)

    storing.result(10)
    with database.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM verdict")).scalar_one() == 0


def test_processes_that_bring_in_a_new_registry_at_the_same_moment_all_start(database: Engine) -> None:
    starting, rounds = 4, 40
    together = Barrier(starting)

    def start(number: int) -> None:
        models = [
            ModelEntry(name=f"new-{number}-{one}", capability="text-generation", backend="scripted") for one in range(7)
        ]
        with database.begin() as connection:
            connection.execute(text("SELECT 1"))
            together.wait(10)
            sync_models(connection, models)

    with ThreadPoolExecutor(starting) as processes:
        for number in range(rounds):
            list(processes.map(start, [number] * starting))

    with database.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM model")).scalar_one() == rounds * 7
