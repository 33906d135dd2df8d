"""What other systems rely on in the database is what docs/sql.md says: columns, types, roles, reading everything once.

A change that breaks this test is a change of the contract: say it in the changelog, and in the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import ProgrammingError

from db.engine import transaction
from db.roles import ENQUEUE_COLUMNS, VIEWS, create_roles
from db.tasks import TaskRow, insert_tasks
from tests.conftest import wait_until

pytestmark = pytest.mark.integration

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "sql.md").read_text()


def section(heading: str) -> str:
    """A section of the page, by the beginning of its heading."""
    (found,) = re.findall(rf"^## {re.escape(heading)}[^\n]*\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def columns_of_the_page(heading: str) -> list[tuple[str, str]]:
    return re.findall(r"^\| `(\w+)` \| ([a-z0-9 ]+) \|", section(heading), re.MULTILINE)


def statements(heading: str) -> list[str]:
    return re.findall(r"^```sql\n(.*?)^```", section(heading), re.MULTILINE | re.DOTALL)


# --- the views


def columns_there(connection: Connection, relation: str) -> list[tuple[str, str]]:
    rows = connection.execute(
        text(
            """
            SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
            WHERE attrelid = CAST(:relation AS regclass) AND attnum > 0 AND NOT attisdropped ORDER BY attnum
            """
        ),
        {"relation": relation},
    )
    return [(name, kind.replace("timestamp with time zone", "timestamptz")) for name, kind in rows]


def test_each_view_has_the_columns_of_the_page_in_their_order(database: Engine) -> None:
    with transaction(database) as connection:
        there = {view: columns_there(connection, view) for view in VIEWS}

    assert there == {view: columns_of_the_page(f"`{view}`") for view in VIEWS}


def test_what_may_be_inserted_is_what_the_page_says(database: Engine) -> None:
    named = dict(columns_of_the_page("Insert into `task`"))
    with transaction(database) as connection:
        kinds = dict(columns_there(connection, "task"))

    assert tuple(named) == ENQUEUE_COLUMNS
    assert named == {name: kinds[name] for name in named}


def test_what_is_left_out_gets_what_the_page_says(database: Engine) -> None:
    said = dict(re.findall(r"^\| `(\w+)` \| [a-z]+ \| ([^|]+) \|", section("Insert into `task`"), re.MULTILINE))
    with transaction(database) as connection:
        stored = connection.execute(text("INSERT INTO task (request) VALUES ('x') RETURNING *")).one()

    written = {"`''`": "x", "`'sql'`": "sql", "`'{}'`": {}, "`'[]'`": [], "0": 0, "null": None}
    assert {name: getattr(stored, name) for name in said} == {name: written[word] for name, word in said.items()}


# --- the roles


@pytest.fixture
def roles(database: Engine) -> Iterator[dict[str, str]]:
    with transaction(database) as connection:
        enqueue, read = create_roles(connection)
    yield {"enqueue": enqueue, "read": read}
    with transaction(database) as connection:
        for role in (enqueue, read):
            connection.execute(text(f'DROP OWNED BY "{role}"; DROP ROLE "{role}"'))


def powers(connection: Connection, role: str) -> set[tuple[str, str, str]]:
    """Everything that a role may do with any column of any table or view of ours, and with the schema."""
    rows = connection.execute(
        text(
            """
            SELECT c.relname, a.attname, p.privilege
            FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
            CROSS JOIN (VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('REFERENCES')) AS p (privilege)
            WHERE c.relnamespace = CAST(current_schema() AS regnamespace) AND c.relkind IN ('r', 'v', 'm', 'p', 'f')
              AND has_column_privilege(CAST(:role AS text), c.oid, a.attnum, p.privilege)
            UNION ALL
            SELECT c.relname, '', p.privilege
            FROM pg_class AS c CROSS JOIN (VALUES ('DELETE'), ('TRUNCATE'), ('TRIGGER')) AS p (privilege)
            WHERE c.relnamespace = CAST(current_schema() AS regnamespace) AND c.relkind IN ('r', 'v', 'm', 'p', 'f')
              AND has_table_privilege(CAST(:role AS text), c.oid, p.privilege)
            UNION ALL
            SELECT 'schema', '', 'CREATE'
            WHERE has_schema_privilege(CAST(:role AS text), CAST(current_schema() AS text), 'CREATE')
            """
        ),
        {"role": role},
    )
    return {(row[0], row[1], row[2]) for row in rows}


def test_the_enqueue_role_may_insert_the_listed_columns_and_read_back_the_id(
    database: Engine, roles: dict[str, str]
) -> None:
    with transaction(database) as connection:
        may = powers(connection, roles["enqueue"])

    assert may == {("task", column, "INSERT") for column in ENQUEUE_COLUMNS} | {("task", "id", "SELECT")}


def test_the_read_role_may_read_the_views_and_nothing_else(database: Engine, roles: dict[str, str]) -> None:
    with transaction(database) as connection:
        may = powers(connection, roles["read"])

    views = {(view, column, "SELECT") for view in VIEWS for column, _ in columns_of_the_page(f"`{view}`")}
    assert may == views


@pytest.mark.parametrize(
    ("role", "allowed", "refused"),
    [
        (
            "read",
            "SELECT * FROM results, candidates, verdicts, backlog",
            [
                "INSERT INTO task (request) VALUES ('x')",
                "UPDATE results SET answer = 'mine'",
                "DELETE FROM results",
                "SELECT digest FROM api_key",
            ],
        ),
        (
            "enqueue",
            "INSERT INTO task (request, source, priority, options) VALUES ('x', 'crm', 1, '{}') RETURNING id",
            [
                "INSERT INTO results (request) VALUES ('x')",
                "INSERT INTO task (id, request) VALUES (bakeoff_uuid7(), 'x')",
                "INSERT INTO task (request) VALUES ('x') RETURNING status",
                "SELECT secret FROM webhook",
            ],
        ),
    ],
)
def test_what_a_role_may_do_is_so_in_deed(
    database: Engine, roles: dict[str, str], role: str, allowed: str, refused: list[str]
) -> None:
    with database.connect() as connection:
        connection.execute(text(f'SET ROLE "{roles[role]}"'))
        connection.execute(text(allowed))
    for statement in refused:
        with database.connect() as connection:
            connection.execute(text(f'SET ROLE "{roles[role]}"'))
            with pytest.raises(ProgrammingError, match="permission denied"):
                connection.execute(text(statement))


def test_making_the_roles_again_takes_back_what_somebody_granted_on_task(
    database: Engine, roles: dict[str, str]
) -> None:
    with transaction(database) as connection:
        connection.execute(text(f'GRANT SELECT, UPDATE ON task TO "{roles["enqueue"]}"'))
        create_roles(connection)
        may = powers(connection, roles["enqueue"])

    assert {column for _, column, privilege in may if privilege == "SELECT"} == {"id"}
    assert not {column for _, column, privilege in may if privilege == "UPDATE"}


# --- every result once


def add(database: Engine) -> UUID:
    with transaction(database) as connection:
        ((task, _),) = insert_tasks(connection, [TaskRow(request="x", source="test")])
    return task


def end(connection: Connection, task: UUID) -> None:
    connection.execute(
        text(
            "UPDATE task SET status = 'done', answer = 'y', finished_at = now(), finished_xid = pg_current_xact_id() "
            "WHERE id = :task"
        ),
        {"task": task},
    )


def test_the_statement_by_transaction_gives_each_result_once_whoever_commits_late(database: Engine) -> None:
    statement, _ = statements("Read every result once")
    place = ("0", "00000000-0000-0000-0000-000000000000")
    seen: list[UUID] = []
    tasks = [add(database) for _ in range(4)]

    def read() -> int:
        nonlocal place
        with transaction(database) as connection:
            asked = statement.replace("'0'::xid8", f"'{place[0]}'::xid8").replace(
                "'00000000-0000-0000-0000-000000000000'", f"'{place[1]}'"
            )
            rows = connection.exec_driver_sql(asked).all()
        seen.extend(row.task_id for row in rows)
        place = (str(rows[-1].finished_xid), str(rows[-1].task_id)) if rows else place
        return len(seen)

    with database.connect() as slow:
        end(slow, tasks[0])
        for task in tasks[1:3]:
            with transaction(database) as connection:
                end(connection, task)
        assert read() == 0  # held back: the slow one comes before them
        slow.commit()
    wait_until(lambda: read() == 3)
    with transaction(database) as connection:
        end(connection, tasks[3])
    wait_until(lambda: read() == 4)

    assert seen == tasks


def test_the_statement_by_time_finds_what_committed_after_the_reader_had_passed(database: Engine) -> None:
    _, statement = statements("Read every result once")
    early, late = add(database), add(database)

    with database.connect() as slow:
        end(slow, early)
        with transaction(database) as connection:
            end(connection, late)
        with transaction(database) as connection:
            ((task, _, _, latest),) = connection.exec_driver_sql(statement).all()
        assert task == late
        slow.commit()

    assert "now() - interval '5 minutes'" in statement
    with transaction(database) as connection:
        again = connection.exec_driver_sql(statement.replace("now() -", f"'{latest.isoformat()}'::timestamptz -")).all()
        without = connection.exec_driver_sql(
            statement.replace("now() - interval '5 minutes'", f"'{latest.isoformat()}'::timestamptz")
        ).all()

    assert [row.task_id for row in again] == [early, late]
    assert early not in {row.task_id for row in without}  # why the overlap is needed
