"""Those who wait are told everything once: also what commits late, also where they are slow."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, text

from db.engine import transaction
from db.watching import BEGINNING, end_of_row, ended_after, progress_of, source_of
from scheduler.api import hub as hub_module
from scheduler.api.hub import Hub
from tests.conftest import wait_until

pytestmark = pytest.mark.integration


def add_task(connection: Connection, source: str = "s") -> UUID:
    return connection.execute(
        text("INSERT INTO task (request, source) VALUES ('x', :source) RETURNING id"), {"source": source}
    ).scalar_one()


def end(connection: Connection, task: UUID) -> None:
    connection.execute(
        text(
            "UPDATE task SET status = 'done', answer = 'y', finished_at = now(), finished_xid = pg_current_xact_id() "
            "WHERE id = :id"
        ),
        {"id": task},
    )


def ended_ids(engine: Engine, source: str | None = None) -> list[UUID]:
    with transaction(engine) as connection:
        return [one.place.task for one in ended_after(connection, BEGINNING, 100, source)]


def test_what_commits_late_is_passed_by_nobody(database: Engine) -> None:
    with transaction(database) as connection:
        early, late = add_task(connection), add_task(connection, "other")

    with database.connect() as slow:
        end(slow, early)  # first, and not committed yet
        with transaction(database) as connection:
            end(connection, late)
        assert ended_ids(database) == []
        slow.commit()

    wait_until(lambda: ended_ids(database) == [early, late])
    assert ended_ids(database, "other") == [late]


def test_from_now_on_is_after_everything_before(database: Engine) -> None:
    with transaction(database) as connection:
        before, after = add_task(connection), add_task(connection)
        end(connection, before)
    with transaction(database) as connection:
        place = end_of_row(connection)
    with transaction(database) as connection:
        end(connection, after)

    def seen() -> list[UUID]:
        with transaction(database) as connection:
            return [one.place.task for one in ended_after(connection, place, 100)]

    wait_until(lambda: after in seen())
    assert set(seen()) <= {before, after}  # a neighbour's open transaction may hold the place back, never forward


def test_progress_is_of_tasks_that_exist(database: Engine) -> None:
    with transaction(database) as connection:
        task = add_task(connection, "mine")
        unknown = UUID(int=1)

        assert progress_of(connection, [task, unknown]) == {
            task: {"id": str(task), "status": "pending", "subtasks": []}
        }
        assert (source_of(connection, task), source_of(connection, unknown)) == ("mine", None)


@pytest.fixture
def hub(database: Engine) -> Iterator[Hub]:
    made = Hub(database.url.render_as_string(hide_password=False), database)
    made.start()
    yield made
    made.close()


def test_a_slow_reader_misses_nothing(database: Engine, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "MOST_KEPT", 2)
    monkeypatch.setattr(hub_module, "PAGE", 3)
    wanted: list[UUID] = []

    async def read() -> list[UUID]:
        seen: list[UUID] = []
        async for one in hub.ended(BEGINNING, None, 0.1):
            if one is None and not wanted:
                for _ in range(12):  # while nobody reads
                    with transaction(database) as connection:
                        wanted.append(add_task(connection))
                        end(connection, wanted[-1])
                    await asyncio.sleep(0.1)
            elif one is not None:
                seen.append(one.place.task)
                if len(seen) == 12:
                    break
        return seen

    assert asyncio.run(asyncio.wait_for(read(), 60)) == wanted


def test_two_who_watch_a_task_both_see_it_end(database: Engine, hub: Hub) -> None:
    with transaction(database) as connection:
        task = add_task(connection)

    async def watch(begun: asyncio.Event) -> list[str]:
        seen = []
        async for progress in hub.progress(task, 0.1):
            begun.set()
            if progress is not None:
                seen.append(progress["status"])
        return seen

    async def both() -> list[list[str]]:
        begun = [asyncio.Event(), asyncio.Event()]
        watching = [asyncio.create_task(watch(one)) for one in begun]
        for one in begun:
            await one.wait()
        with transaction(database) as connection:
            end(connection, task)
        return await asyncio.wait_for(asyncio.gather(*watching), 60)

    assert asyncio.run(both()) == [["pending", "done"]] * 2


def test_the_patient_hear_the_end_while_the_process_stops(database: Engine, hub: Hub) -> None:
    with transaction(database) as connection:
        task = add_task(connection)

    async def watch() -> list[str]:
        seen = []
        async for progress in hub.progress(task, 0.1, patient=True):
            if progress is not None:
                seen.append(progress["status"])
            elif hub.stopping_at is None:
                hub.close_streams()
                with transaction(database) as connection:
                    end(connection, task)
        return seen

    assert asyncio.run(asyncio.wait_for(watch(), 60)) == ["pending", "done"]


def test_when_the_process_stops_every_stream_ends(database: Engine, hub: Hub) -> None:
    with transaction(database) as connection:
        task = add_task(connection)

    async def watch() -> int:
        count = 0
        async for _ in hub.progress(task, 60):
            count += 1
            hub.close()
        return count

    assert asyncio.run(asyncio.wait_for(watch(), 30)) == 1
