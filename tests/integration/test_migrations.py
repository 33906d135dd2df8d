"""The schema of `db/schema/` and the migrations are the same thing, and the database's own functions work."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from alembic import command
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from db import migrate
from db.flight import in_flight, look

pytestmark = pytest.mark.integration


def url_of(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


def test_the_migrations_make_the_schema_of_the_code(database: Engine) -> None:
    command.check(migrate.configuration(url_of(database)))


def test_down_and_up_again(database: Engine) -> None:
    command.downgrade(migrate.configuration(url_of(database)), "base")
    migrate.upgrade(url_of(database))

    assert migrate.current(url_of(database)) == migrate.head()


IN_FLIGHT = """
WITH m AS (
    INSERT INTO model (name, capability, backend, source, queue)
    SELECT 'm' || n, 'text-generation', 'scripted', 'none', 'model.m' || n FROM generate_series(1, 4) AS n
), t AS (
    INSERT INTO task (request, status) VALUES ('under way', 'running') RETURNING id
)
INSERT INTO subtask (task_id, position, name, capability, inputs, source, priority, candidates_wanted, judge, status)
SELECT id, 0, 'only', 'text-generation', '[]', 'sql', 0, 4, 'longest', 'running' FROM t RETURNING id
"""
CANDIDATES = """
INSERT INTO candidate (subtask_id, model, rank, status, message_id, sent_at, token, lease_until, output, finished_at)
SELECT :subtask, model, 0, status, CASE WHEN status <> 'chosen' THEN gen_random_uuid() END,
       CASE WHEN status <> 'chosen' THEN now() END, CASE WHEN status = 'running' THEN gen_random_uuid() END,
       CASE WHEN status = 'running' THEN now() END, CASE WHEN status = 'done' THEN 'said' END,
       CASE WHEN status = 'done' THEN now() END
FROM (VALUES ('m1', 'chosen'), ('m2', 'sent'), ('m3', 'running'), ('m4', 'done')) AS c (model, status)
"""


@pytest.mark.parametrize("before", ["0001", "0002", "0003", "0006"])
def test_an_upgrade_keeps_what_is_under_way(database: Engine, before: str) -> None:
    command.downgrade(migrate.configuration(url_of(database)), before)
    with database.begin() as connection:
        subtask = connection.execute(text(IN_FLIGHT)).scalar_one()
        connection.execute(text(CANDIDATES), {"subtask": subtask})

    migrate.upgrade(url_of(database))

    with database.begin() as connection:
        kept = connection.execute(text("SELECT model, status FROM candidate ORDER BY model")).all()
        assert [tuple(row) for row in kept] == [("m1", "chosen"), ("m2", "sent"), ("m3", "running"), ("m4", "done")]
        assert in_flight(connection) == {"m2": 1, "m3": 1}
        assert look(connection).waiting == ["m1"]


def test_two_upgrades_at_once_do_no_harm(database: Engine) -> None:
    command.downgrade(migrate.configuration(url_of(database)), "base")

    # Alembic's environment is global to a process, so each upgrade is a process.
    script = "import sys; from db.migrate import upgrade; upgrade(sys.argv[1])"
    with ThreadPoolExecutor(2) as pool:
        codes = list(pool.map(lambda _: subprocess.call([sys.executable, "-c", script, url_of(database)]), range(2)))

    assert codes == [0, 0]


def test_ids_are_version_7_and_sort_by_time(database: Engine) -> None:
    with database.begin() as connection:
        ids = list(connection.execute(text("SELECT bakeoff_uuid7() FROM generate_series(1, 2000)")).scalars())

    assert all(isinstance(one, UUID) and one.version == 7 for one in ids)
    assert len(set(ids)) == 2000
    times = [one.int >> 64 for one in ids]
    assert times == sorted(times)


@pytest.mark.parametrize(
    "row",
    [
        "INSERT INTO task (request) VALUES ('')",
        "INSERT INTO task (request, priority) VALUES ('x', 101)",
        "INSERT INTO task (request, options) VALUES ('x', '[]')",
        "INSERT INTO task (request, attachments) VALUES ('x', '{}')",
        "INSERT INTO task (request, source) VALUES ('x', '')",
        "INSERT INTO task (request, status) VALUES ('x', 'finished')",
        "INSERT INTO task (request, status) VALUES ('x', 'done')",
        "INSERT INTO task (request, run_at, deadline) VALUES ('x', now(), now() - interval '1 s')",
        "INSERT INTO task (request, token) VALUES ('x', gen_random_uuid())",
    ],
)
def test_a_wrong_task_cannot_be_stored(database: Engine, row: str) -> None:
    with pytest.raises(IntegrityError), database.begin() as connection:
        connection.execute(text(row))


def test_an_insert_notifies_with_a_constant(database: Engine) -> None:
    from db.engine import listen

    with listen(url_of(database)) as listening:
        with database.begin() as connection:
            connection.execute(text("INSERT INTO task (request) VALUES ('a'), ('b')"))
        notices = list(listening.notifies(timeout=2, stop_after=1))

    assert [(notice.channel, notice.payload) for notice in notices] == [("bakeoff", "task")]
