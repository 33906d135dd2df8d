"""Callbacks: none is lost, whoever is killed, and no queue or outage holds up the others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
import redis
from celery import Celery
from pydantic import SecretStr
from sqlalchemy import Engine, event

from db.callbacks import Callback, claim_callbacks, release_callbacks, settle_callback, store_callback
from db.engine import transaction
from db.errors import Unreachable
from db.settings import Settings
from db.tasks import TaskRow, insert_tasks
from scheduler import callbacks
from scheduler.callbacks import Callbacks
from scheduler.loop import Scheduler
from scheduler.publishing import Publisher
from tests.conftest import wait_until

pytestmark = pytest.mark.integration

FINISHED = Callback(name="crm.closed", queue="crm", kwargs={"order": 1})  # a queue that no worker here reads


def add(database: Engine, source: str = "shop", callback: Callback | None = FINISHED) -> UUID:
    with transaction(database) as connection:
        ((task, _),) = insert_tasks(connection, [TaskRow(request="x", source=source)])
        if callback is not None:
            store_callback(connection, task, callback)
    return task


def end(connection: Any, task: UUID) -> None:
    connection.exec_driver_sql(
        "UPDATE task SET status = 'done', answer = 'y', finished_at = now(), finished_xid = pg_current_xact_id() "
        f"WHERE id = '{task}'"
    )


def due(database: Engine, lease: float = 60) -> list[UUID]:
    """Callbacks that are claimed now."""
    with transaction(database) as connection:
        release_callbacks(connection)
        return [one.task_id for one in claim_callbacks(connection, 100, lease)]


def add_ended(database: Engine, callback: Callback) -> UUID:
    """Its callback is due at once, behind those that were added before."""
    task = add(database, callback=None)
    with transaction(database) as connection:
        end(connection, task)
        store_callback(connection, task, callback)
    return task


def status(database: Engine, task: UUID) -> tuple[str, str | None]:
    with transaction(database) as connection:
        row = connection.exec_driver_sql(f"SELECT status, error FROM callback WHERE task_id = '{task}'").one()
        return row.status, row.error


def wait_due(database: Engine, wanted: list[UUID]) -> None:
    """A neighbour's open transaction on the same server may hold the place back; it never loses an end."""
    found: list[UUID] = []

    def all_due() -> bool:
        found.extend(due(database))
        return sorted(found) == sorted(wanted)

    wait_until(all_due)


def test_an_end_that_commits_late_is_passed_by_nobody(database: Engine) -> None:
    early, late = add(database), add(database)

    with database.connect() as slow:
        end(slow, early)
        with transaction(database) as connection:
            end(connection, late)
        assert due(database) == []
        slow.commit()

    wait_due(database, [early, late])


def test_a_callback_of_a_task_that_has_ended_already_is_due_at_once(database: Engine) -> None:
    task = add(database, callback=None)
    with transaction(database) as connection:
        end(connection, task)
    other = add(database)
    with transaction(database) as connection:
        end(connection, other)
    wait_due(database, [other])  # the place has passed the first one

    with transaction(database) as connection:
        store_callback(connection, task, FINISHED)
        store_callback(connection, task, Callback(name="second", queue="crm"))  # a redelivery: the first one stays

    assert due(database) == [task]


def test_a_place_that_nobody_needed_is_moved_on_and_loses_nothing(
    database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.callbacks.FAR_BEHIND", 0)
    for _ in range(3):
        task = add(database, callback=None)
        with transaction(database) as connection:
            end(connection, task)
    assert due(database) == []

    with database.connect() as storing:
        ((task, _),) = insert_tasks(storing, [TaskRow(request="x", source="shop")])
        store_callback(storing, task, FINISHED)
        assert due(database) == []  # moves on while it is being stored
        storing.commit()
    with transaction(database) as connection:
        end(connection, task)

    wait_due(database, [task])


def test_a_task_that_comes_and_ends_while_the_place_is_moved_on_is_not_passed_by(
    database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.callbacks.FAR_BEHIND", 0)
    quick: list[UUID] = []

    def between(*_: Any) -> None:
        quick.append(add(database))
        with transaction(database) as other:
            end(other, quick[-1])

    with transaction(database) as connection:
        event.listen(connection, "after_cursor_execute", between)
        release_callbacks(connection)

    wait_due(database, quick)


def test_whose_sender_was_killed_is_sent_again_and_a_late_word_of_it_changes_nothing(database: Engine) -> None:
    task = add(database)
    with transaction(database) as connection:
        end(connection, task)
    claimed: list[Any] = []

    def claim() -> bool:
        with transaction(database) as connection:
            release_callbacks(connection)
            claimed.extend(claim_callbacks(connection, 10, 0.01))
        return len(claimed) >= 2

    wait_until(claim)
    first, second = claimed[:2]
    with transaction(database) as connection:
        settle_callback(connection, first, error="too late", again_in=None)
    assert (first.attempt, second.attempt, status(database, task)) == (1, 2, ("due", None))
    with transaction(database) as connection:
        settle_callback(connection, claimed[-1], error=None, again_in=None)
    assert status(database, task) == ("sent", None)


@pytest.fixture
def broker(servers: tuple[str, str]) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(servers[1])
    client.delete("crm")
    yield client
    client.delete("crm")


def sender(database: Engine, url: str, **settings: Any) -> Callbacks:
    made = Settings(redis_url=url, callbacks=settings.pop("callbacks", (FINISHED.address,)), **settings)
    return Callbacks(made, database, Publisher(made, Celery(broker=url, set_as_current=False)))


def test_a_full_queue_is_left_alone_until_there_is_room(
    database: Engine, servers: tuple[str, str], broker: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks, "LONGEST_QUEUE", 1)
    monkeypatch.setattr(callbacks, "PAUSE", 0.1)
    tasks = [add(database), add(database)]
    with transaction(database) as connection:
        for task in tasks:
            end(connection, task)
    sending = sender(database, servers[1])

    def one_waits() -> bool:
        sending.send()
        return sorted(status(database, task)[0] for task in tasks) == ["due", "sent"]

    wait_until(one_waits)
    assert broker.llen("crm") == 1
    (held,) = [task for task in tasks if status(database, task)[0] == "due"]
    wait_until(lambda: "messages wait on crm already" in str(sending.send() or status(database, held)[1]))

    broker.delete("crm")
    wait_until(lambda: sending.send() or status(database, held)[0] == "sent")
    assert broker.llen("crm") == 1


def test_a_full_queue_holds_up_no_other(
    database: Engine, servers: tuple[str, str], broker: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks, "LONGEST_QUEUE", 1)
    monkeypatch.setattr(callbacks, "AT_ONCE", 1)
    broker.rpush("crm", "x")
    room = Callback(name="crm.opened", queue="crm-with-room")
    first, second, other = [add_ended(database, callback) for callback in (FINISHED, FINISHED, room)]
    sending = sender(database, servers[1], callbacks=(FINISHED.address, room.address))

    sending.send()
    sending.send()

    broker.delete(room.queue)
    assert "messages wait on crm" in str(status(database, first)[1])
    assert (status(database, second), status(database, other)[0]) == (("due", None), "sent")


def test_a_scheduler_that_has_more_to_call_waits_for_no_second(
    database: Engine, servers: tuple[str, str], broker: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks, "AT_ONCE", 1)
    for _ in range(3):
        add_ended(database, FINISHED)
    url = SecretStr(database.url.render_as_string(hide_password=False))
    scheduler = Scheduler(Settings(database_url=url, redis_url=servers[1], poll_seconds=3600))
    scheduler._callbacks = sender(database, servers[1])

    looks = [scheduler.tick() for _ in range(4)]

    scheduler._engine.dispose()
    assert broker.llen("crm") == 3
    assert looks[-1] is False


class Leaving(Publisher):
    """Redis goes away between the question how long its queues are and the first message."""

    calls = 0

    def send_callback(self, *_: Any) -> None:
        self.calls += 1
        raise Unreachable("Redis does not take messages.")


def test_where_redis_goes_away_one_message_waits_for_it_and_not_each(
    database: Engine, servers: tuple[str, str], broker: redis.Redis
) -> None:
    tasks = [add_ended(database, FINISHED) for _ in range(3)]
    settings = Settings(redis_url=servers[1], callbacks=(FINISHED.address,))
    publisher = Leaving(settings, Celery(broker=servers[1], set_as_current=False))

    with pytest.raises(Unreachable):
        Callbacks(settings, database, publisher).send()

    assert publisher.calls == 1
    assert {status(database, task) for task in tasks} == {("due", "Redis does not take messages.")}
    assert broker.llen("crm") == 0


def test_without_redis_it_waits_and_what_is_allowed_no_more_fails(
    database: Engine, servers: tuple[str, str], broker: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks, "PAUSE", 0.1)
    task = add(database)
    with transaction(database) as connection:
        end(connection, task)

    away = sender(database, "redis://127.0.0.1:9/0")

    def tried() -> bool:
        with contextlib.suppress(Unreachable):
            away.send()
        return status(database, task)[1] is not None

    wait_until(tried)
    assert status(database, task)[0] == "due"
    closed = sender(database, servers[1], callbacks=())
    wait_until(lambda: closed.send() or status(database, task)[0] == "failed")
    assert "not among BAKEOFF_CALLBACKS any more" in str(status(database, task)[1])
    assert broker.llen("crm") == 0
