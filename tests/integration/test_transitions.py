"""The named transitions of `db/`, one database, no process: claims are exclusive, late writes change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from db import candidates as c
from db import flight, lease, tasks, verdicts
from db.registry import ModelEntry
from db.workers import sync_models

pytestmark = pytest.mark.integration

MODELS = ("alpha", "beta", "gamma")


def rows(database: Engine, statement: str, **values: Any) -> list[Any]:
    with database.begin() as connection:
        return list(connection.execute(text(statement), values))


def run(database: Engine, statement: str, **values: Any) -> None:
    with database.begin() as connection:
        connection.execute(text(statement), values)


@pytest.fixture
def sent(database: Engine) -> tuple[UUID, list[c.Message]]:
    """One running subtask whose three candidates are sent, a message each."""
    with database.begin() as connection:
        sync_models(
            connection,
            [ModelEntry(name=name, capability="text-generation", backend="scripted") for name in MODELS],
        )
        task_id, _ = tasks.insert_task(connection, tasks.TaskRow(request="hello", source="test"))
        (pending,) = tasks.read_pending(connection, tasks.lock_pending(connection, 10))
        tasks.start_tasks(connection, [subtask_of(pending)])
        subtask = connection.execute(text("SELECT id FROM subtask WHERE task_id = :t"), {"t": task_id}).scalar_one()
        sent = c.choose_and_send(
            connection,
            [
                c.Choice(subtask_id=subtask, model=name, rank=rank, proposed_by=[], max_attempts=2, message_id=uuid4())
                for rank, name in enumerate(MODELS)
            ],
        )
    return subtask, sorted(sent.messages, key=lambda message: message.model)


def subtask_of(pending: tasks.PendingTask) -> tasks.SubtaskRow:
    return tasks.SubtaskRow(
        task_id=pending.id,
        position=0,
        name="text-generation",
        capability="text-generation",
        inputs=[{"request": True}],
        options={},
        source=pending.source,
        priority=pending.priority,
        candidates_wanted=3,
        quorum=1,
        judge="longest",
        deadline=None,
    )


def claim(database: Engine, message: c.Message, seconds: float = 60) -> lease.Claim:
    with database.begin() as connection:
        return c.claim_message(connection, message.candidate_ids, message.id, seconds, charge=False)


def charge(database: Engine, got: lease.Claim) -> None:
    with database.begin() as connection:
        lease.charge(connection, lease.Leased.CANDIDATE, got.token, got.ids)


def store(database: Engine, got: lease.Claim, *, in_chord: bool = True, **result: Any) -> list[UUID]:
    with database.begin() as connection:
        return c.store(
            connection,
            got.token,
            [c.Result(id=got.ids[0], seconds=0.1, **result)],
            revision="",
            retry_delay=0.0,
            in_chord=in_chord,
        )


def finish_all(database: Engine, messages: Sequence[c.Message], output: str = "said") -> None:
    for message in messages:
        got = claim(database, message)
        charge(database, got)
        store(database, got, output=output)


def judge(database: Engine, subtask: UUID) -> lease.Claim:
    with database.begin() as connection:
        return verdicts.claim_judging(connection, [subtask], uuid4(), 60)


def decide(database: Engine, got: lease.Claim, winner: UUID) -> list[UUID]:
    row = verdicts.VerdictRow(
        subtask_id=got.ids[0], winner_id=winner, ranking=[winner], scores={winner: 1.0}, reason="because",
        method="scripted", judge="longest", seconds=0.0,
    )  # fmt: skip
    with database.begin() as connection:
        return verdicts.store_verdicts(connection, got.token, [row])


def states(database: Engine) -> dict[str, str]:
    return {row.model: row.status for row in rows(database, "SELECT model, status FROM candidate")}


def test_a_claim_is_exclusive_and_a_second_delivery_is_told_so(
    database: Engine, sent: tuple[UUID, list[c.Message]]
) -> None:
    first = claim(database, sent[1][0])
    second = claim(database, sent[1][0])

    assert len(first.ids) == 1
    assert (second.ids, second.held) == ([], 1)


def test_a_message_that_was_sent_again_claims_nothing_with_its_old_id(
    database: Engine, sent: tuple[UUID, list[c.Message]]
) -> None:
    message = sent[1][0]
    with database.begin() as connection:
        c.unsend(connection, [message.id])
        again = c.send_waiting(connection, message.model, 8)
    assert again is not None

    assert claim(database, message).ids == []
    assert claim(database, again).ids == message.candidate_ids


def test_an_output_is_stored_once_and_a_late_one_changes_nothing(
    database: Engine, sent: tuple[UUID, list[c.Message]]
) -> None:
    got = claim(database, sent[1][0])
    charge(database, got)

    assert store(database, got, output="first") == got.ids
    assert store(database, got, output="second") == []
    assert rows(database, "SELECT output FROM candidate WHERE status = 'done'")[0].output == "first"


def test_an_input_error_is_final_and_a_model_error_is_tried_again_until_the_attempts_are_used(
    database: Engine, sent: tuple[UUID, list[c.Message]]
) -> None:
    bad, flaky, _ = sent[1]
    got = claim(database, bad)
    charge(database, got)
    store(database, got, error={"kind": "input", "code": "bad_input", "message": "unreadable"})
    assert states(database)["alpha"] == "error"

    message: c.Message | None = flaky
    for expected in ("chosen", "error"):
        assert message is not None
        got = claim(database, message)
        charge(database, got)
        store(database, got, error={"kind": "model", "code": "X", "message": "no"})
        assert states(database)["beta"] == expected
        with database.begin() as connection:
            message = c.send_waiting(connection, "beta", 8)


def test_an_expired_lease_goes_back_uncharged_where_the_model_never_ran(
    database: Engine, sent: tuple[UUID, list[c.Message]]
) -> None:
    claim(database, sent[1][0], seconds=-1)
    with database.begin() as connection:
        c.expire_leases(connection)

    row = rows(database, "SELECT status, attempt, isolate FROM candidate WHERE model = 'alpha'")[0]
    assert (row.status, row.attempt, row.isolate) == ("chosen", 0, False)


def test_a_worker_lost_twice_makes_the_candidate_dead_with_the_reason(
    database: Engine, sent: tuple[UUID, list[c.Message]]
) -> None:
    message: c.Message | None = sent[1][0]
    for _ in range(2):
        assert message is not None
        charge(database, claim(database, message, seconds=-1))
        with database.begin() as connection:
            c.expire_leases(connection)
            message = c.send_waiting(connection, "alpha", 8)

    row = rows(database, "SELECT status, error FROM candidate WHERE model = 'alpha'")[0]
    assert row.status == "dead"
    assert "lost 2 times" in row.error["message"]


def test_a_stale_worker_whose_lease_expired_stores_nothing(
    database: Engine, sent: tuple[UUID, list[c.Message]]
) -> None:
    got = claim(database, sent[1][0], seconds=-1)
    charge(database, got)
    with database.begin() as connection:
        c.expire_leases(connection)

    assert store(database, got, output="too late") == []


def test_a_subtask_is_judged_when_all_its_candidates_are_terminal_and_not_before(
    database: Engine, sent: tuple[UUID, list[c.Message]]
) -> None:
    subtask, messages = sent
    finish_all(database, messages[:2])
    assert judge(database, subtask).ids == []

    finish_all(database, messages[2:])
    assert judge(database, subtask).ids == [subtask]


def test_two_judges_make_one_verdict_and_the_task_is_done_with_the_winner(
    database: Engine, sent: tuple[UUID, list[c.Message]]
) -> None:
    subtask, messages = sent
    finish_all(database, messages, output="the answer")
    first = judge(database, subtask)
    run(database, "UPDATE subtask SET lease_until = now() - interval '1 s'")
    with database.begin() as connection:
        verdicts.expire_judging(connection)
    second = judge(database, subtask)
    winner = messages[1].candidate_ids[0]

    assert decide(database, second, winner) == [subtask]
    assert decide(database, first, messages[0].candidate_ids[0]) == []
    (result,) = rows(database, "SELECT * FROM results")
    assert (result.status, result.answer) == ("done", "the answer")
    assert result.winners["text-generation"]["model"] == "beta"
    assert rows(database, "SELECT winner, scores FROM verdicts")[0].scores == {"beta": 1.0}


def test_a_winner_of_another_subtask_is_refused_by_the_database(
    database: Engine, sent: tuple[UUID, list[c.Message]]
) -> None:
    subtask, messages = sent
    finish_all(database, messages)
    got = judge(database, subtask)

    with pytest.raises(IntegrityError):
        decide(database, got, uuid4())


def test_when_all_candidates_failed_the_task_fails_with_every_reason(
    database: Engine, sent: tuple[UUID, list[c.Message]]
) -> None:
    subtask, messages = sent
    for message in messages:
        got = claim(database, message)
        charge(database, got)
        store(database, got, error={"kind": "input", "code": "bad_input", "message": f"{message.model} cannot"})
    with database.begin() as connection:
        assert verdicts.fail_exhausted(connection, [subtask]) == 1
        assert verdicts.fail_exhausted(connection, [subtask]) == 0

    (result,) = rows(database, "SELECT status, error FROM results")
    assert result.status == "failed"
    assert all(f"{name} cannot" in result.error["message"] for name in MODELS)


def test_the_same_idempotency_key_stores_one_task_and_another_body_is_a_conflict(database: Engine) -> None:
    row = tasks.TaskRow(request="a", source="s", idempotency_key="k")
    with database.begin() as connection:
        first, new = tasks.insert_task(connection, row)
        again, new_again = tasks.insert_task(connection, row)
        other, _ = tasks.insert_task(connection, tasks.TaskRow(request="a", source="other", idempotency_key="k"))

        with pytest.raises(tasks.IdempotencyConflict, match=str(first)):
            tasks.insert_task(connection, tasks.TaskRow(request="b", source="s", idempotency_key="k"))

    assert (first, new, new_again) == (again, True, False)
    assert other != first


def test_what_a_chord_left_unjudged_is_sent_after_the_grace_and_once(
    database: Engine, sent: tuple[UUID, list[c.Message]]
) -> None:
    subtask, messages = sent
    finish_all(database, messages)

    def due(grace: float, *, empty: bool = True) -> list[UUID]:
        with database.begin() as connection:
            sent = verdicts.send_judging(
                connection, verdicts.Patience(grace=grace, lost_after=60, queue_empty=empty), 8
            )
            return sent.subtask_ids if sent else []

    assert due(60) == []
    assert due(0, empty=False) == [subtask]
    assert due(0) == []


def test_what_completed_outside_of_a_chord_is_judged_at_once(
    database: Engine, sent: tuple[UUID, list[c.Message]]
) -> None:
    subtask, messages = sent
    finish_all(database, messages[:2])
    with database.begin() as connection:
        c.unsend(connection, [messages[2].id])
        again = c.send_waiting(connection, messages[2].model, 8)
    assert again is not None
    got = claim(database, again)
    charge(database, got)
    store(database, got, in_chord=False, output="last")

    with database.begin() as connection:
        sent_to_judge = verdicts.send_judging(connection, verdicts.Patience(grace=60, lost_after=60), 8)
    assert sent_to_judge is not None
    assert sent_to_judge.subtask_ids == [subtask]


def test_a_message_on_an_empty_idle_queue_is_lost_after_a_while(
    database: Engine, sent: tuple[UUID, list[c.Message]]
) -> None:
    run(database, "UPDATE candidate SET sent_at = now() - interval '10 s'")
    claim(database, sent[1][0])

    with database.begin() as connection:
        assert flight.lost_messages(connection, [], 5) == []
        assert set(flight.lost_messages(connection, MODELS, 5)) == {sent[1][1].id, sent[1][2].id}
        assert flight.lost_messages(connection, MODELS, 60) == []


def test_a_judge_that_died_on_a_subtask_is_charged_for_it_alone_and_meets_it_last(
    database: Engine, sent: tuple[UUID, list[c.Message]]
) -> None:
    subtask, messages = sent
    finish_all(database, messages)
    got = judge(database, subtask)
    with database.begin() as connection:
        assert verdicts.load_to_judge(connection, got)[0].attempt == 0
        lease.charge(connection, lease.Leased.SUBTASK, got.token, [subtask])
    run(database, "UPDATE subtask SET lease_until = now() - interval '1 s'")
    with database.begin() as connection:
        verdicts.expire_judging(connection)
    again = judge(database, subtask)

    with database.begin() as connection:
        assert verdicts.load_to_judge(connection, again)[0].attempt == 1


def test_given_back_work_costs_nothing_and_waits(database: Engine, sent: tuple[UUID, list[c.Message]]) -> None:
    got = claim(database, sent[1][0])
    with database.begin() as connection:
        assert lease.give_back(connection, lease.Leased.CANDIDATE, got.token, delay=60) == 1
        assert c.send_waiting(connection, "alpha", 8) is None

    row = rows(database, "SELECT status, attempt FROM candidate WHERE model = 'alpha'")[0]
    assert (row.status, row.attempt) == ("chosen", 0)


def test_a_candidate_that_travels_alone_takes_its_turn_among_others_that_keep_coming(
    database: Engine, sent: tuple[UUID, list[c.Message]]
) -> None:
    _, messages = sent
    run(database, "UPDATE candidate SET status = 'chosen', isolate = (model = 'alpha'), message_id = NULL, "
                  "not_before = now() - make_interval(secs => 9 - rank)")  # fmt: skip
    run(database, "ALTER TABLE candidate DROP CONSTRAINT uq_candidate_subtask_id_model")
    run(database, "UPDATE candidate SET model = 'alpha'")  # three of one model

    with database.begin() as connection:
        first = c.send_waiting(connection, "alpha", 8)
        second = c.send_waiting(connection, "alpha", 8)

    assert first is not None
    assert second is not None
    assert first.candidate_ids == messages[0].candidate_ids
    assert set(second.candidate_ids) == {messages[1].candidate_ids[0], messages[2].candidate_ids[0]}
