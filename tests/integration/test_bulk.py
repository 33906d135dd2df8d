"""Many tasks in one call: all or none, in order, each under the rules that hold for one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from db.engine import engine_of
from db.errors import BacklogFull, InvalidRequest
from db.settings import Settings
from db.tasks import IdempotencyConflict
from scheduler.submit import NewTask, Upload, submit_many
from tests.conftest import Installation

pytestmark = pytest.mark.integration


@pytest.fixture
def config(installation: Installation) -> Any:
    yield Settings(
        database_url=installation.database_url,
        models_file=installation.models_file,
        profile="demo",
        home=installation.folder / "home",
        max_backlog=50,
    )
    engine_of(installation.database_url, "submit").dispose()


def stored(installation: Installation) -> list[str]:
    return [row.request for row in installation.query("SELECT request FROM task ORDER BY request")]


def test_ids_come_in_the_order_of_the_tasks(config: Settings, installation: Installation) -> None:
    ids = submit_many(config, [NewTask(request=f"r{number:02}") for number in range(40)])

    found = {row.id: row.request for row in installation.query("SELECT id, request FROM task")}
    assert [found[task] for task in ids] == [f"r{number:02}" for number in range(40)]


def test_one_bad_task_is_named_and_nothing_is_stored(config: Settings, installation: Installation) -> None:
    tasks = [NewTask(request="good"), NewTask(request="worse", priority=1000)]

    with pytest.raises(InvalidRequest, match=r"Task 1 of 2 .*priority = 1000"):
        submit_many(config, tasks)

    assert stored(installation) == []


def test_a_key_that_is_known_or_comes_twice_is_stored_once(config: Settings, installation: Installation) -> None:
    (first,) = submit_many(config, [NewTask(request="a", idempotency_key="k")])

    ids = submit_many(
        config,
        [
            NewTask(request="a", idempotency_key="k"),
            NewTask(request="b", idempotency_key="l"),
            NewTask(request="b", idempotency_key="l"),
        ],
    )

    assert ids[0] == first
    assert ids[1] == ids[2]
    assert stored(installation) == ["a", "b"]


def test_a_key_with_another_body_refuses_all(config: Settings, installation: Installation) -> None:
    with pytest.raises(IdempotencyConflict, match="'k'"):
        submit_many(config, [NewTask(request="a", idempotency_key="k"), NewTask(request="b", idempotency_key="k")])

    assert stored(installation) == []


def test_a_source_beyond_its_backlog_is_refused_whole(config: Settings, installation: Installation) -> None:
    submit_many(config, [NewTask(request=f"{n}", source="flood") for n in range(49)])

    with pytest.raises(BacklogFull):
        submit_many(config, [NewTask(request="x", source="flood"), NewTask(request="y", source="flood")])
    submit_many(config, [NewTask(request="x", source="flood"), NewTask(request="y", source="other")])

    assert len(stored(installation)) == 51


def test_a_call_has_a_limit(config: Settings) -> None:
    small = config.model_copy(update={"max_bulk": 2})

    with pytest.raises(InvalidRequest, match="BAKEOFF_MAX_BULK allows 2"):
        submit_many(small, [NewTask(request="x")] * 3)


def test_a_file_that_many_tasks_bring_is_stored_once(config: Settings, installation: Installation) -> None:
    picture = b"\x89PNG\r\n\x1a\n" + b"\0" * 100
    upload = Upload(name="a.png", data=picture)

    submit_many(config, [NewTask(capability="image-to-text/ocr", attachments=[upload]) for _ in range(3)])

    (row,) = installation.query("SELECT count(*) AS n, min(size) AS size FROM artifact")
    assert (row.n, row.size) == (1, len(picture))


def test_the_command_reads_json_lines(installation: Installation, tmp_path: Path) -> None:
    file = tmp_path / "tasks.jsonl"
    lines = [{"request": "one", "priority": 5}, {"request": "two", "options": {"candidates": 1}}]
    file.write_text("\n\n".join(json.dumps(line) for line in lines))

    done = installation.run("submit", "--from", str(file), "--source", "etl", "--without-worker", "--json")

    assert (done.code, done.json["stored"]) == (0, 2)
    rows = installation.query("SELECT request, source, priority, options FROM task ORDER BY request")
    assert [tuple(row) for row in rows] == [("one", "etl", 5, {}), ("two", "etl", 0, {"candidates": 1})]


def test_a_shell_that_is_traced_is_the_caller(installation: Installation, tmp_path: Path) -> None:
    file = tmp_path / "tasks.jsonl"
    file.write_text('{"request": "by file"}')
    span = f"00-{'a' * 32}-{'b' * 16}-01"

    for words in (("alone",), ("--from", str(file))):
        assert installation.run("submit", *words, "--without-worker", env={"TRACEPARENT": span}).code == 0
    assert installation.run("submit", "untraced", "--without-worker", env={"TRACEPARENT": "nonsense"}).code == 0

    rows = installation.query("SELECT request, traceparent FROM task ORDER BY request")
    assert [tuple(row) for row in rows] == [("alone", span), ("by file", span), ("untraced", None)]


def test_a_bad_line_is_named_and_what_was_stored_before_is_printed(installation: Installation, tmp_path: Path) -> None:
    file = tmp_path / "tasks.jsonl"
    file.write_text('{"request": "fine"}\n' * 1000 + '{"request": "fine"}\n{"reqest": "a typo"}\n')

    done = installation.run("submit", "--from", str(file), "--without-worker")

    assert done.code == 2
    assert "Line 1002: 'reqest' is not a field of a task" in done.err
    assert "1000 tasks" in done.err
    assert len(done.out.split()) == len(stored(installation)) == 1000


def test_database_stores_thousands_in_one_statement(database: Engine) -> None:
    from db.tasks import TaskRow, insert_tasks

    with database.begin() as connection:
        ids = insert_tasks(connection, [TaskRow(request=f"{n}", source="many") for n in range(5000)], 5000)

    assert len({task for task, new in ids if new}) == 5000
