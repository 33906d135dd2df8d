"""A judge message from claim to verdicts, in one process: what is charged, what is stored together, what goes back."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import Engine, event

from db.settings import Settings
from db.workers import sync_registry
from tests.conftest import SCRIPTED
from tests.integration.test_rules import plan, send
from tests.integration.test_transitions import finish_all, rows
from worker.judges import Decision, Question
from worker.judging import judge_wave
from worker.process import ModelProcess
from worker.role import WorkerRole

pytestmark = pytest.mark.integration

Decide = Callable[[Question], Decision]


@pytest.fixture
def process(tmp_path: Path, database: Engine) -> ModelProcess:
    models_file = tmp_path / "models.toml"
    models_file.write_text(SCRIPTED)
    settings = Settings(models_file=models_file, profile="demo", breaker_failures=2)
    with database.begin() as connection:
        sync_registry(connection, settings.registry)
    return ModelProcess(settings, WorkerRole(name="judge", judge=True), database)


def complete(database: Engine, count: int) -> list[UUID]:
    """Subtasks with two candidates each, all of them done."""
    subtasks = []
    for _ in range(count):
        messages = send(database, plan(database), "alpha", "beta")
        finish_all(database, messages)
        subtasks += messages[0].subtask_ids
    return subtasks


def patched(process: ModelProcess, around: Callable[[Decide, Question], Decision]) -> None:
    judge: Any = process.judge("longest")
    decide = judge.decide
    judge.decide = lambda question: around(decide, question)


def attempts(database: Engine) -> list[tuple[str, int]]:
    return [(row.status, row.attempt) for row in rows(database, "SELECT status, attempt FROM subtask ORDER BY id")]


def test_a_fast_judge_costs_two_transactions_a_wave(
    process: ModelProcess, database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a judge that is known to be fast, on a machine that may be slow
    monkeypatch.setattr("worker.judging.STORE_WITHIN", 600.0)
    monkeypatch.setattr(process.judge_pace, "size", lambda _: 32)
    judge_wave(process, uuid4(), complete(database, 1))
    waiting = complete(database, 20)
    commits = []

    @event.listens_for(database, "commit")
    def _count(connection: object) -> None:
        commits.append(connection)

    judge_wave(process, uuid4(), waiting)
    assert len(commits) == 2
    assert attempts(database) == [("done", 1)] * 21


def test_a_slow_judge_stores_each_verdict_as_it_comes(process: ModelProcess, database: Engine) -> None:
    seen = []

    def slow(decide: Decide, question: Question) -> Decision:
        seen.append(sum(status == "done" for status, _ in attempts(database)))
        time.sleep(0.6)
        return decide(question)

    patched(process, slow)
    judge_wave(process, uuid4(), complete(database, 3))

    assert seen == [0, 1, 2]


def test_what_a_suspended_judge_leaves_of_a_chunk_goes_back_uncharged(process: ModelProcess, database: Engine) -> None:
    judge_wave(process, uuid4(), complete(database, 1))

    def broken(_: Decide, __: Question) -> Decision:
        raise RuntimeError("no idea")

    patched(process, broken)
    judge_wave(process, uuid4(), complete(database, 5))

    assert sorted(attempts(database)) == [("done", 1), *[("running", 0)] * 4, ("running", 1)]
    (judge,) = rows(database, "SELECT status, consecutive_failures FROM judge WHERE name = 'longest'")
    assert (judge.status, judge.consecutive_failures) == ("suspended", 2)


def test_the_time_limit_of_the_message_is_nobodys_fault(process: ModelProcess, database: Engine) -> None:
    judge_wave(process, uuid4(), complete(database, 1))
    asked = []

    def late(decide: Decide, question: Question) -> Decision:
        asked.append(question.id)
        if len(asked) == 2:
            raise SoftTimeLimitExceeded
        return decide(question)

    patched(process, late)
    judge_wave(process, uuid4(), complete(database, 4))

    assert sorted(attempts(database)) == [*[("done", 1)] * 2, *[("running", 0)] * 3]
    (judge,) = rows(database, "SELECT consecutive_failures FROM judge WHERE name = 'longest'")
    assert judge.consecutive_failures == 0


def test_no_question_is_begun_that_the_message_has_no_time_for(process: ModelProcess, database: Engine) -> None:
    limit = process.registry.judges["longest"].timeout + 15.5  # one question, and time to end
    process.settings = process.settings.model_copy(update={"message_limit": limit})

    def slow(decide: Decide, question: Question) -> Decision:
        time.sleep(0.6)
        return decide(question)

    patched(process, slow)
    judge_wave(process, uuid4(), complete(database, 3))

    assert sorted(attempts(database)) == [("done", 1), ("running", 0), ("running", 0)]


def test_a_judge_that_left_the_registry_is_stood_in_for(process: ModelProcess, database: Engine) -> None:
    subtasks = complete(database, 1)
    with database.begin() as connection:
        connection.exec_driver_sql("UPDATE subtask SET judge = 'of old'")

    judge_wave(process, uuid4(), subtasks)

    (verdict,) = rows(database, "SELECT judge FROM verdict")
    assert verdict.judge == "longest"


def test_what_is_decided_does_not_wait_for_a_slow_question(process: ModelProcess, database: Engine) -> None:
    single = []
    for _ in range(3):
        messages = send(database, plan(database), "alpha")
        finish_all(database, messages)
        single += messages[0].subtask_ids
    asked = complete(database, 1)
    seen = []

    def slow(decide: Decide, question: Question) -> Decision:
        seen.append(sum(status == "done" for status, _ in attempts(database)))
        return decide(question)

    patched(process, slow)
    judge_wave(process, uuid4(), [*single, *asked])

    assert seen == [3]
