"""Tasks in the hands of a planner or an integrator: claims are exclusive, late writes change nothing, nothing waits
for ever."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, text

from db import endings, lease, planning, tasks, thinking
from db.states import TaskState
from db.subtasks import stop_waiting
from db.verdicts import Patience

pytestmark = pytest.mark.integration

PATIENT = Patience(grace=0, lost_after=60)
STEP = {"id": "only", "capability": "text-generation", "inputs": [{"request": True}]}


def rows(database: Engine, statement: str, **values: Any) -> list[Any]:
    with database.begin() as connection:
        result = connection.execute(text(statement), values)
        return list(result) if result.returns_rows else []


def the_task(database: Engine) -> Any:
    (row,) = rows(database, "SELECT * FROM task")
    return row


@pytest.fixture
def waiting(database: Engine) -> UUID:
    """A task that waits for a planner."""
    with database.begin() as connection:
        task, _ = tasks.insert_task(connection, tasks.TaskRow(request="hello"))
        tasks.lock_pending(connection, 1)
        planning.begin_planning(connection, {task: {"planner": "p"}})
    return task


def send(database: Engine, state: TaskState = TaskState.PLANNING, **patience: Any) -> list[thinking.ThinkingMessage]:
    with database.begin() as connection:
        return thinking.send_thinking(connection, state, Patience(**{**vars(PATIENT), **patience}), 10)


def claim(database: Engine, task: UUID, state: TaskState = TaskState.PLANNING) -> thinking.Thought | None:
    with database.begin() as connection:
        return thinking.claim_thinking(connection, task, state, uuid4(), 60)


def claimed(database: Engine, task: UUID, state: TaskState = TaskState.PLANNING) -> thinking.Thought:
    thought = claim(database, task, state)
    assert thought is not None
    return thought


@pytest.fixture
def integrating(database: Engine, waiting: UUID) -> UUID:
    """A task whose only subtask is done, and whose plan names an integrator."""
    thought = claimed(database, waiting)
    with database.begin() as connection:
        thinking.store_plan(connection, thought, {"steps": [STEP], "integrator": "i"})
        planning.lock_planned(connection, 1)
        tasks.start_tasks(connection, [first_step(waiting)])
    end_the_subtask(database, waiting)
    return waiting


def first_step(task: UUID) -> tasks.SubtaskRow:
    return tasks.SubtaskRow(
        task_id=task, position=0, name="only", capability="text-generation", inputs=[{"request": True}],
        options={}, source="s", priority=0, candidates_wanted=1, quorum=1, judge="j", deadline=None,
    )  # fmt: skip


def end_the_subtask(database: Engine, task: UUID) -> None:
    rows(
        database,
        """
        WITH m AS (INSERT INTO model (name, capability, backend, source, queue) VALUES ('m', 'x', 'x', 'x', 'x')),
             s AS (UPDATE subtask SET status = 'done', finished_at = now() WHERE task_id = :task RETURNING id),
             c AS (INSERT INTO candidate (subtask_id, model, rank, status, output, finished_at)
                   SELECT id, 'm', 0, 'done', 'said', now() FROM s RETURNING id, subtask_id)
        INSERT INTO verdict (subtask_id, winner_id, ranking, scores, reason, method, judge, seconds)
        SELECT subtask_id, id, '[]', '{}', 'x', 'x', 'x', 0 FROM c
        """,
        task=task,
    )
    with database.begin() as connection:
        assert endings.finish_tasks(connection, [task]) == 1


def test_a_task_is_sent_once_until_its_message_is_lost(database: Engine, waiting: UUID) -> None:
    (message,) = send(database)
    assert (message.task_id, send(database), send(database, queue_empty=True)) == (waiting, [], [])

    # when nobody claims it, and its queue is empty
    rows(database, "UPDATE task SET sent_at = now() - interval '2 minutes'")
    with database.begin() as connection:
        assert thinking.waiting_to_think(connection, 60) == {"planning": 1}
    assert send(database) == []
    assert len(send(database, queue_empty=True)) == 1


def test_a_task_has_one_planner_at_a_time(database: Engine, waiting: UUID) -> None:
    first = claimed(database, waiting)
    assert claim(database, waiting) is None
    assert claim(database, waiting, TaskState.INTEGRATING) is None
    assert first.attempt == 1


def test_a_late_plan_changes_nothing(database: Engine, waiting: UUID) -> None:
    # given a planner whose lease ran out, and another one after it
    late = claimed(database, waiting)
    rows(database, "UPDATE task SET lease_until = now() - interval '1 second'")
    with database.begin() as connection:
        assert thinking.expire_thinking(connection) == 1
    second = claimed(database, waiting)

    with database.begin() as connection:
        assert not thinking.store_plan(connection, late, {"steps": ["late"]})
        assert not thinking.refuse_plan(connection, late, {"code": "x", "message": "late"})
        assert not thinking.thinking_failed(connection, late, {"code": "x", "message": "late"}, 1)
        assert thinking.store_plan(connection, second, {"steps": [STEP]})

    assert (the_task(database).plan, the_task(database).planned) == ({"steps": [STEP]}, True)


def test_a_flood_of_one_source_leaves_the_others_their_turn(database: Engine) -> None:
    # given a hundred tasks of one source that wait for a planner, and a later one of another
    with database.begin() as connection:
        flood = [tasks.insert_task(connection, tasks.TaskRow(request="x", source="flood"))[0] for _ in range(100)]
        other, _ = tasks.insert_task(connection, tasks.TaskRow(request="x", source="other"))
        tasks.lock_pending(connection, 200)
        thinking_of = {task: {"planner": "p"} for task in [*flood, other]}
        planning.begin_planning(connection, thinking_of)

    # then it is among the first that are sent
    assert other in {message.task_id for message in send(database)}


def test_a_message_that_comes_again_does_not_skip_the_wait(database: Engine, waiting: UUID) -> None:
    thought = claimed(database, waiting)
    with database.begin() as connection:
        thinking.thinking_failed(connection, thought, {"code": "x", "message": "y"}, 30)
    assert claim(database, waiting) is None
    rows(database, "UPDATE task SET not_before = NULL, attempt = max_attempts")
    assert claim(database, waiting) is None


@pytest.fixture
def half_way(database: Engine, waiting: UUID) -> UUID:
    """A task that is planned step by step: its first step is done, and the planner is to be asked for the next."""
    thought = claimed(database, waiting)
    with database.begin() as connection:
        thinking.store_plan(connection, thought, {"steps": [STEP], "more": True})
        planning.lock_planned(connection, 1)
        tasks.start_tasks(connection, [first_step(waiting)])
    end_the_subtask(database, waiting)
    assert the_task(database).status == "planning"
    return waiting


@pytest.mark.parametrize("change", ["deadline = now() - interval '1 second'", "attempt = max_attempts"])
def test_a_planner_that_gives_no_further_step_loses_no_result(database: Engine, half_way: UUID, change: str) -> None:
    rows(database, f"UPDATE task SET {change}")
    with database.begin() as connection:
        thinking.expire_thinking(connection)
    row = the_task(database)
    assert (row.status, row.answer, list(row.winners), row.plan["more"]) == ("done", "said", ["only"], False)
    assert row.plan["stopped"]


def test_a_refused_step_loses_no_result(database: Engine, half_way: UUID) -> None:
    thought = claimed(database, half_way)
    with database.begin() as connection:
        assert thinking.refuse_plan(connection, thought, {"code": "invalid_plan", "message": "no such tool"})
    row = the_task(database)
    assert (row.status, row.answer, row.plan["stopped"]) == ("done", "said", "no such tool")


def test_a_failure_waits_and_is_charged_only_where_it_is_the_tasks(database: Engine, waiting: UUID) -> None:
    thought = claimed(database, waiting)
    with database.begin() as connection:
        thinking.thinking_failed(connection, thought, {"code": "x", "message": "y"}, 30, charged=False)
    row = the_task(database)
    assert (row.attempt, row.token, row.error["message"], row.status) == (0, None, "y", "planning")
    assert send(database) == []


def test_planning_is_given_up_after_its_attempts_and_past_the_deadline(database: Engine, waiting: UUID) -> None:
    rows(database, 'UPDATE task SET attempt = max_attempts, error = \'{"message": "lost"}\'')
    with database.begin() as connection:
        thinking.expire_thinking(connection)
    row = the_task(database)
    assert (row.status, row.error["message"]) == ("failed", "It was tried 3 times and not planned (lost).")


def test_a_plan_comes_too_late_for_a_task_past_its_deadline(database: Engine, waiting: UUID) -> None:
    rows(database, "UPDATE task SET deadline = now() - interval '1 second'")
    with database.begin() as connection:
        thinking.expire_thinking(connection)
    assert the_task(database).status == "expired"


def test_a_cancelled_task_takes_no_plan(database: Engine, waiting: UUID) -> None:
    thought = claimed(database, waiting)
    with database.begin() as connection:
        endings.cancel_tasks(connection, [waiting])
        assert not thinking.store_plan(connection, thought, {"steps": [STEP]})
        assert lease.renew(connection, lease.Leased.TASK, thought.token, 60) == 0
    assert the_task(database).status == "cancelled"


def test_a_lease_is_renewed_and_ended_with_its_message(database: Engine, waiting: UUID) -> None:
    message = uuid4()
    with database.begin() as connection:
        thought = thinking.claim_thinking(connection, waiting, TaskState.PLANNING, message, 60)
        assert thought is not None
        assert lease.renew(connection, lease.Leased.TASK, thought.token, 60) == 1
        assert lease.return_message(connection, message) == 1
    row = the_task(database)
    assert (row.status, row.token, row.attempt) == ("planning", None, 0)


def test_a_done_plan_waits_for_its_integrator_whose_answer_ends_it(database: Engine, integrating: UUID) -> None:
    assert (the_task(database).status, the_task(database).attempt) == ("integrating", 0)
    thought = claimed(database, integrating, TaskState.INTEGRATING)
    with database.begin() as connection:
        (result,) = thinking.step_results(connection, integrating)
        assert endings.store_answer(connection, thought.id, thought.token, "written", {"integrator": "i"})
        assert not endings.store_answer(connection, thought.id, thought.token, "again", {})

    row = the_task(database)
    assert (result.output, result.model) == ("said", "m")
    assert (row.status, row.answer, row.error, list(row.winners)) == ("done", "written", None, ["only"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("deadline = now() - interval '1 second'", "Nobody wrote the answer: the deadline passed."),
        (
            'attempt = 3, error = \'{"message": "it wrote nothing"}\'',
            "Nobody wrote the answer: it was tried as often as a task may be (it wrote nothing).",
        ),
    ],
)
def test_an_answer_that_nobody_writes_is_the_results(
    database: Engine, integrating: UUID, change: str, reason: str
) -> None:
    rows(database, f"UPDATE task SET {change}")
    with database.begin() as connection:
        thinking.expire_thinking(connection)
    row = the_task(database)
    assert (row.status, row.answer, row.integration["reason"], row.error) == ("done", "said", reason, None)


def test_plans_that_worked_are_kept_for_others(database: Engine, integrating: UUID) -> None:
    with database.begin() as connection:
        assert planning.stored_plans(connection, 10) == []
    thought = claimed(database, integrating, TaskState.INTEGRATING)
    with database.begin() as connection:
        endings.store_answer(connection, thought.id, thought.token, "written", {})
    rows(database, 'UPDATE task SET plan = plan || \'{"method": "llm"}\'')

    with database.begin() as connection:
        (plan,) = planning.stored_plans(connection, 10)
    assert (plan.request, plan.steps, plan.media_types) == ("hello", [STEP], [])


def test_what_is_late_after_the_grace_is_cancelled_and_what_is_not_waits(database: Engine, waiting: UUID) -> None:
    # given a subtask with a quorum of one and a grace of ten seconds, one of two candidates done
    rows(
        database,
        """
        WITH m AS (INSERT INTO model (name, capability, backend, source, queue)
                   VALUES ('a', 'x', 'x', 'x', 'a'), ('b', 'x', 'x', 'x', 'b')),
             t AS (UPDATE task SET status = 'running' RETURNING id),
             s AS (INSERT INTO subtask (task_id, position, name, capability, inputs, source, priority,
                                        candidates_wanted, judge, status, grace)
                   SELECT id, 0, 'x', 'x', '[]', 's', 0, 2, 'j', 'running', 10 FROM t RETURNING id)
        INSERT INTO candidate (subtask_id, model, rank, status, output, finished_at)
        SELECT id, 'a', 0, 'done', 'said', now() FROM s UNION ALL SELECT id, 'b', 1, 'chosen', NULL, NULL FROM s
        """,
    )
    with database.begin() as connection:
        assert stop_waiting(connection) == 0
    rows(database, "UPDATE candidate SET finished_at = now() - interval '11 seconds' WHERE model = 'a'")
    with database.begin() as connection:
        assert stop_waiting(connection) == 1
    (late,) = rows(database, "SELECT status, error FROM candidate WHERE model = 'b'")
    assert (late.status, late.error["code"]) == ("cancelled", "late")
