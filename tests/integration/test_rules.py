"""The reconciler's statements and the breaker, one database, no process."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, text

from db import breaker, endings, replacing, subtasks, tasks, verdicts
from db import candidates as c
from db.errors import BacklogFull, InvalidRequest
from db.registry import ModelEntry
from db.settings import BreakerRules
from db.states import ModelState
from db.workers import model_states, sync_models
from scheduler.replacing import FIRST
from tests.integration.test_transitions import charge, claim, decide, finish_all, judge, rows, run, store, subtask_of

pytestmark = pytest.mark.integration

RULES = BreakerRules(failures=5, probe_seconds=60)
BROKEN = {"error": {"kind": "model", "code": "X", "message": "no GPU"}}


@pytest.fixture(autouse=True)
def models(database: Engine) -> None:
    with database.begin() as connection:
        sync_models(
            connection,
            [ModelEntry(name=n, capability="text-generation", backend="scripted") for n in ("alpha", "beta", "gamma")],
        )
        connection.execute(text("INSERT INTO judge (name) VALUES ('longest')"))


def plan(database: Engine, *, source: str = "test", priority: int = 0, needs: dict[str, tuple[str, ...]] | None = None,
         **changes: Any) -> UUID:  # fmt: skip
    """A running task with one subtask, or with those that `needs` names; each depends on what it needs."""
    with database.begin() as connection:
        task, _ = tasks.insert_task(connection, tasks.TaskRow(request="hello", source=source, priority=priority))
        (pending,) = tasks.read_pending(connection, [task])
        rows_ = [
            tasks.SubtaskRow(
                **{**vars(subtask_of(pending)), "name": name, "position": place, "needs": needed, **changes}
            )
            for place, (name, needed) in enumerate((needs or {"only": ()}).items())
        ]
        tasks.start_tasks(connection, rows_)
    return task


def send(database: Engine, task: UUID, *models: str, name: str = "only") -> list[c.Message]:
    with database.begin() as connection:
        subtask = connection.execute(
            text("SELECT id FROM subtask WHERE task_id = :t AND name = :n"), {"t": task, "n": name}
        ).scalar_one()
        sent = c.choose_and_send(
            connection,
            [
                c.Choice(subtask_id=subtask, model=m, rank=r, proposed_by=[], max_attempts=3, message_id=uuid4())
                for r, m in enumerate(models)
            ],
        )
    return sorted(sent.messages, key=lambda message: models.index(message.model))


def fail(database: Engine, message: c.Message, kind: str = "input") -> None:
    got = claim(database, message)
    charge(database, got)
    store(database, got, error={"kind": kind, "code": "X", "message": f"{message.model} cannot"})


def do(database: Engine, rule: Any, *arguments: Any, **named: Any) -> Any:
    with database.begin() as connection:
        return rule(connection, *arguments, **named)


def status(database: Engine, task: UUID) -> dict[str, str]:
    return {r.name: r.status for r in rows(database, "SELECT name, status FROM subtask WHERE task_id = :t", t=task)}


def task_row(database: Engine, task: UUID) -> Any:
    return rows(database, "SELECT * FROM task WHERE id = :t", t=task)[0]


# --- the plan


def test_a_blocked_subtask_becomes_ready_when_all_it_needs_is_done(database: Engine) -> None:
    task = plan(database, needs={"a": (), "b": (), "c": ("a", "b")})
    assert status(database, task) == {"a": "ready", "b": "ready", "c": "blocked"}
    run(database, "UPDATE subtask SET status = 'done', finished_at = now() WHERE name = 'a'")
    assert do(database, subtasks.unblock) == 0

    run(database, "UPDATE subtask SET status = 'done', finished_at = now() WHERE name = 'b'")

    assert do(database, subtasks.unblock) == 1
    assert status(database, task)["c"] == "ready"


def test_a_step_starts_with_the_verdict_that_it_waited_for(database: Engine) -> None:
    # given two steps that a third one waits for
    task = plan(database, needs={"a": (), "b": (), "c": ("a", "b")})
    for name in ("a", "b"):
        (message,) = send(database, task, "alpha", name=name)
        finish_all(database, [message])
        assert status(database, task)["c"] == "blocked"

        # when each is judged
        decide(database, judge(database, message.subtask_ids[0]), message.candidate_ids[0])

    # then the second verdict makes it ready in its own transaction, and what it reads is what the winners said
    assert status(database, task)["c"] == "ready"


def test_what_needs_a_failed_subtask_is_skipped_all_the_way_down_and_the_task_fails(database: Engine) -> None:
    task = plan(database, needs={"a": (), "b": ("a",), "c": ("b",)})
    (message,) = send(database, task, "alpha", name="a")
    fail(database, message)
    do(database, verdicts.fail_exhausted, [message.subtask_ids[0]])

    assert do(database, subtasks.skip_unreachable) == 2
    assert status(database, task) == {"a": "failed", "b": "skipped", "c": "skipped"}
    row = task_row(database, task)
    assert row.status == "failed"
    assert "alpha cannot" in row.error["message"]
    assert row.error["subtasks"]["c"]["message"] == "it needs b, which is skipped"


def test_a_plan_that_is_too_long_or_needs_what_is_not_there_is_refused(database: Engine) -> None:
    pending = tasks.PendingTask(
        id=uuid4(), request="", capability=None, source="s", priority=0, options={}, attachments=[], deadline=None
    )
    many = [tasks.SubtaskRow(**{**vars(subtask_of(pending)), "name": str(n), "position": n}) for n in range(4)]
    with pytest.raises(InvalidRequest, match="MAX_SUBTASKS"):
        do(database, tasks.start_tasks, many, max_subtasks=3)
    with pytest.raises(InvalidRequest, match="needs 'x'"):
        plan(database, needs={"a": ("x",)})


# --- deadlines, cancel


def past_deadline(database: Engine, seconds: int = 1) -> None:
    run(database, f"UPDATE subtask SET deadline = now() - interval '{seconds} s'")
    run(database, f"UPDATE task SET deadline = now() - interval '{seconds} s'")


def test_past_the_deadline_a_subtask_with_its_quorum_is_judged_with_what_exists(database: Engine) -> None:
    task = plan(database, quorum=2)
    messages = send(database, task, "alpha", "beta", "gamma")
    finish_all(database, messages[:2])
    claim(database, messages[2])
    past_deadline(database)

    assert do(database, subtasks.expire_subtasks, 30) == 0
    found = rows(database, "SELECT status, error FROM candidate WHERE model = 'gamma'")[0]
    assert (found.status, found.error["code"]) == ("cancelled", "deadline")
    assert judge(database, messages[0].subtask_ids[0]).ids == [messages[0].subtask_ids[0]]


def test_past_the_deadline_without_a_quorum_everything_expires(database: Engine) -> None:
    task = plan(database, quorum=2)
    messages = send(database, task, "alpha", "beta", "gamma")
    finish_all(database, messages[:1])
    past_deadline(database)

    assert do(database, subtasks.expire_subtasks, 30) == 1
    row = task_row(database, task)
    assert (row.status, row.error["code"]) == ("expired", "deadline_passed")
    assert "1 of 3 candidates were done, the quorum is 2" in row.error["message"]
    assert rows(database, "SELECT 1 FROM candidate WHERE finished_at IS NULL") == []


def test_a_quorum_without_a_judge_expires_after_the_grace(database: Engine) -> None:
    task = plan(database)
    finish_all(database, send(database, task, "alpha"))
    past_deadline(database, 10)

    assert do(database, subtasks.expire_subtasks, 30) == 0
    assert do(database, subtasks.expire_subtasks, 5) == 1
    assert "no judge was to be had" in task_row(database, task).error["message"]


def test_a_pending_task_past_its_deadline_expires(database: Engine) -> None:
    run(database, "INSERT INTO task (request, deadline) VALUES ('late', now() - interval '1 s'), ('fine', null)")

    assert do(database, endings.expire_pending) == 1
    assert [r.request for r in rows(database, "SELECT request FROM task WHERE status = 'expired'")] == ["late"]


def test_cancel_ends_everything_and_a_worker_finds_its_token_gone(database: Engine) -> None:
    task = plan(database, needs={"a": (), "b": ("a",)})
    message, other = send(database, task, "alpha", "beta", name="a")
    got = claim(database, message)

    assert do(database, endings.cancel_tasks, [task]) == [task]
    assert do(database, endings.cancel_tasks, [task]) == []
    assert store(database, got, output="too late") == []
    assert claim(database, other).ids == []
    assert set(status(database, task).values()) == {"cancelled"}
    assert rows(database, "SELECT 1 FROM candidate WHERE status <> 'cancelled'") == []


def test_a_finished_task_is_not_cancelled(database: Engine) -> None:
    run(database, "INSERT INTO task (request, status, answer, finished_at, finished_xid) "
                  "VALUES ('x', 'done', 'y', now(), pg_current_xact_id())")  # fmt: skip
    (task,) = rows(database, "SELECT id FROM task")

    assert do(database, endings.cancel_tasks, [task.id]) == []
    assert task_row(database, task.id).status == "done"


# --- other models


def test_a_subtask_that_all_models_failed_gets_others_and_fails_without(database: Engine) -> None:
    task = plan(database)
    (message,) = send(database, task, "alpha")
    fail(database, message)
    with database.begin() as connection:
        (exhausted,) = replacing.lock_exhausted(connection, 10, FIRST)
        assert exhausted.tried == ["alpha"]
        added = replacing.add_candidates(
            connection,
            [
                replacing.Addition(subtask_id=exhausted.id, model=m, proposed_by=[], max_attempts=3)
                for m in ("beta", "gamma")
            ],
        )
    assert added == 2
    ranks = rows(database, "SELECT model, rank, status FROM candidate ORDER BY rank")
    assert [(r.model, r.rank, r.status) for r in ranks] == [
        ("alpha", 0, "error"), ("beta", 1, "chosen"), ("gamma", 2, "chosen"),
    ]  # fmt: skip
    assert do(database, replacing.lock_exhausted, 10, FIRST) == []


def test_a_candidate_waits_for_its_model_only_so_long(database: Engine) -> None:
    task = plan(database)
    alpha, beta = send(database, task, "alpha", "beta")
    finish_all(database, [alpha])
    run(database, "UPDATE candidate SET sent_at = now() - interval '10 s' WHERE model = 'beta'")

    assert do(database, replacing.take_back_unserved, ["beta"], 20) == 0
    assert do(database, replacing.take_back_unserved, ["beta"], 5) == 1
    with database.begin() as connection:
        (overdue,) = replacing.lock_overdue(connection, ["beta"], 5, 10, FIRST)
        assert (overdue.done, overdue.open, overdue.waiting) == (1, 1, beta.candidate_ids)
        assert replacing.give_up(connection, overdue.waiting, "It was away.") == 1
    assert judge(database, alpha.subtask_ids[0]).ids == alpha.subtask_ids


# --- the breaker


def test_a_model_that_fails_five_calls_in_a_row_is_suspended_and_loses_what_was_sent(database: Engine) -> None:
    (waiting,) = send(database, plan(database), "alpha")
    broken = c.Result(id=uuid4(), seconds=0, **BROKEN)

    told = [do(database, breaker.note_batch, "alpha", [broken], RULES) for _ in range(5)]

    assert told == [False] * 4 + [True]
    (row,) = rows(database, "SELECT status, reason FROM model WHERE name = 'alpha'")
    assert (row.status, row.reason) == ("suspended", "5 calls failed in a row; the last: no GPU")
    (taken,) = rows(database, "SELECT status, attempt FROM candidate")
    assert (taken.status, taken.attempt) == ("chosen", 0)
    assert claim(database, waiting).ids == []


@pytest.mark.parametrize("between", ["success", "input"])
def test_a_success_starts_the_count_over_and_a_bad_input_says_nothing(database: Engine, between: str) -> None:
    broken = c.Result(id=uuid4(), seconds=0, **BROKEN)
    fine = c.Result(id=uuid4(), seconds=0, output="yes")
    bad = c.Result(id=uuid4(), seconds=0, error={"kind": "input", "code": "X", "message": "unreadable"})
    for _ in range(4):
        do(database, breaker.note_batch, "alpha", [broken], RULES)

    do(database, breaker.note_batch, "alpha", [fine, broken] if between == "success" else [bad], RULES)

    suspended = do(database, breaker.note_batch, "alpha", [broken], RULES)
    assert suspended is (between == "input")


def test_a_suspended_model_is_probed_once_in_a_while_and_resumes_on_success(database: Engine) -> None:
    do(database, breaker.note_failure, breaker.Guarded.MODEL, "alpha", "no", RULES, calls=5)
    assert do(database, model_states, ["alpha"])["alpha"].probe_due is False
    run(database, "UPDATE model SET probe_after = now() - interval '1 s' WHERE name = 'alpha'")
    assert do(database, model_states, ["alpha"])["alpha"].probe_due is True

    do(database, breaker.start_probe, breaker.Guarded.MODEL, "alpha", RULES)
    assert do(database, model_states, ["alpha"])["alpha"].probe_due is False
    assert do(database, breaker.note_success, breaker.Guarded.MODEL, "alpha") is True
    assert do(database, model_states, ["alpha"])["alpha"].status == ModelState.ACTIVE


def test_a_suspended_judge_is_asked_by_its_probe_only(database: Engine) -> None:
    subtasks_ = []
    for _ in range(3):
        messages = send(database, plan(database), "alpha", "beta")
        finish_all(database, messages)
        subtasks_ += messages[0].subtask_ids
    do(database, breaker.note_failure, breaker.Guarded.JUDGE, "longest", "no", RULES, calls=5)
    assert judge(database, subtasks_[0]).ids == []

    assert do(database, verdicts.send_judging, verdicts.Patience(grace=0, lost_after=5), 8) is None
    probe = do(database, verdicts.send_judge_probe, verdicts.Patience(grace=0, lost_after=5), "longest")
    assert probe is not None
    assert len(probe.subtask_ids) == 1
    with database.begin() as connection:
        assert verdicts.claim_judging(connection, subtasks_, probe.id, 60).ids == probe.subtask_ids


def test_a_judge_is_probed_with_another_subtask_each_time(database: Engine) -> None:
    for _ in range(3):
        finish_all(database, send(database, plan(database), "alpha", "beta"))
    do(database, breaker.note_failure, breaker.Guarded.JUDGE, "longest", "no", RULES, calls=5)

    asked = []
    for _ in range(3):
        probe = do(database, verdicts.send_judge_probe, verdicts.Patience(grace=0, lost_after=5), "longest")
        asked += probe.subtask_ids
        do(database, verdicts.unsend_judging, probe.id)

    assert len(set(asked)) == 3


def test_what_needs_no_judge_waits_for_none(database: Engine) -> None:
    (message,) = send(database, plan(database), "alpha")
    finish_all(database, [message])
    do(database, breaker.note_failure, breaker.Guarded.JUDGE, "longest", "no", RULES, calls=5)

    assert do(database, verdicts.send_judge_probe, verdicts.Patience(grace=0, lost_after=5), "longest") is None
    assert do(database, verdicts.send_judging, verdicts.Patience(grace=0, lost_after=5), 8).subtask_ids
    assert judge(database, message.subtask_ids[0]).ids == message.subtask_ids


def test_an_operator_pauses_drains_and_resumes(database: Engine) -> None:
    send(database, plan(database), "alpha")

    assert do(database, breaker.set_model_state, "alpha", ModelState.DRAINING) == "active"
    assert rows(database, "SELECT status FROM candidate")[0].status == "sent"
    assert do(database, breaker.set_model_state, "alpha", ModelState.PAUSED, "why not") == "draining"
    assert rows(database, "SELECT status FROM candidate")[0].status == "chosen"
    assert do(database, breaker.set_model_state, "alpha", ModelState.ACTIVE) == "paused"


# --- order and admission


def test_ready_subtasks_leave_by_priority_then_in_turn_between_sources_then_by_age(database: Engine) -> None:
    for source, priority in [("flood", 0)] * 6 + [("small", 0)] * 2 + [("flood", 5)]:
        plan(database, source=source, priority=priority)

    ready = do(database, subtasks.lock_ready, 8, ["text-generation"])
    order = {r.id: (r.source, r.priority) for r in rows(database, "SELECT id, source, priority FROM subtask")}

    assert [order[r.id] for r in ready][:6] == [
        ("flood", 5), ("flood", 0), ("small", 0), ("flood", 0), ("small", 0), ("flood", 0),
    ]  # fmt: skip


def test_urgent_work_of_one_source_goes_before_that_of_many_others(database: Engine) -> None:
    with database.begin() as connection:
        connection.execute(
            text(
                """
                INSERT INTO task (request, source, priority)
                SELECT 'x', 'other ' || n, 0 FROM generate_series(1, 60) AS n
                UNION ALL SELECT 'x', 'urgent', 9 FROM generate_series(1, 20)
                """
            )
        )
        ids = tasks.lock_pending(connection, 16)
        urgent = tasks.read_pending(connection, ids)
        tasks.start_tasks(connection, [subtask_of(task) for task in tasks.read_pending(connection, _all(connection))])
        ready = subtasks.lock_ready(connection, 16, ["text-generation"])

    assert {task.source for task in urgent} == {"urgent"}
    sources = {r.id: r.source for r in rows(database, "SELECT id, source FROM subtask")}
    assert {sources[subtask.id] for subtask in ready} == {"urgent"}


def _all(connection: Any) -> list[UUID]:
    return list(connection.execute(text("SELECT id FROM task")).scalars())


def test_a_source_with_much_in_flight_waits_for_the_others(database: Engine) -> None:
    for _ in range(3):
        send(database, plan(database, source="busy"), "alpha")
    plan(database, source="busy")
    idle = plan(database, source="idle")

    first = do(database, subtasks.lock_ready, 1, ["text-generation"])

    assert first[0].task_id == idle


def test_pending_tasks_are_planned_in_turn_between_sources(database: Engine) -> None:
    run(database, "INSERT INTO task (request, source) SELECT 'x', 'flood' FROM generate_series(1, 50)")
    run(database, "INSERT INTO task (request, source, run_at) VALUES ('x', 'later', now() + interval '1 h')")
    run(database, "INSERT INTO task (request, source, run_at) VALUES ('x', 'due', now() - interval '1 s')")
    run(database, "INSERT INTO task (request, source) VALUES ('x', 'single')")

    ids = do(database, tasks.lock_pending, 5)
    sources = {r.id: r.source for r in rows(database, "SELECT id, source FROM task")}

    assert {sources[task] for task in ids} == {"flood", "single", "due"}


def test_past_its_backlog_a_source_is_refused_but_a_known_key_is_not(database: Engine) -> None:
    def insert(source: str, key: str | None = None) -> UUID:
        with database.begin() as connection:
            return tasks.insert_task(
                connection, tasks.TaskRow(request="x", source=source, idempotency_key=key), max_backlog=2
            )[0]

    first = insert("greedy", "k")
    insert("greedy")
    with pytest.raises(BacklogFull) as refused:
        insert("greedy")

    assert 1 <= refused.value.retry_after <= 300
    assert insert("greedy", "k") == first
    assert insert("modest")
