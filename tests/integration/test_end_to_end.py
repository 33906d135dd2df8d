"""The whole way through real processes: the command line, SQL and Celery in; the views and `--json` out."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
from celery import Celery
from PIL import Image
from sqlalchemy.engine import make_url

from tests.conftest import Installation, wait_until

pytestmark = pytest.mark.integration


def png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (20, 10), "white").save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a picture.png"
    path.write_bytes(png())
    return path


def result_of(running: Installation, task: Any, timeout: float = 30) -> Any:
    found: list[Any] = []

    def final() -> bool:
        found[:] = running.query("SELECT * FROM results WHERE task_id = :t AND finished_at IS NOT NULL", t=task)
        return bool(found)

    wait_until(final, timeout, running.logs)
    return found[0]


def test_a_request_is_answered_by_three_models_and_judged(running: Installation) -> None:
    done = running.run("submit", "hello", "--wait", "--json")

    story = done.json
    assert (done.code, story["status"], story["answer"]) == (0, "done", "beta says more: hello")
    (subtask,) = story["subtasks"]
    assert {c["model"]: (c["status"], c["output"]) for c in subtask["candidates"]} == {
        "alpha": ("done", "alpha: hello"),
        "beta": ("done", "beta says more: hello"),
        "gamma": ("done", "hello"),
    }
    assert subtask["verdict"]["winner"] == "beta"
    assert subtask["verdict"]["method"] == "scripted"
    assert set(subtask["verdict"]["scores"]) == {"alpha", "beta", "gamma"}
    assert all(c["seconds"] >= 0 for c in subtask["candidates"])


def test_a_file_travels_by_its_content(running: Installation, picture: Path) -> None:
    done = running.run("submit", "--capability", "image-to-text/ocr", "--attach", str(picture), "--wait", "--json")

    assert (done.code, done.json["answer"]) == (0, "read the picture a picture.png")
    (row,) = running.query("SELECT media_type, size FROM artifact")
    assert (row.media_type, row.size) == ("image/png", len(picture.read_bytes()))


def test_the_stored_result_is_read_with_sql(running: Installation) -> None:
    task = running.run("submit", "for sql", "--source", "etl", "--json").json["id"]
    result_of(running, task)

    done = running.run("sql", f"select source, status, answer, winners from results where task_id = '{task}'", "--json")

    (row,) = done.json
    assert (row["source"], row["status"], row["answer"]) == ("etl", "done", "beta says more: for sql")
    assert row["winners"]["text-generation"]["model"] == "beta"


def test_one_failing_model_does_not_sink_the_subtask(running: Installation) -> None:
    story = running.run("submit", "one fails", "--wait", "--json").json

    candidates = {c["model"]: c for c in story["subtasks"][0]["candidates"]}
    assert (story["status"], candidates["beta"]["status"]) == ("done", "error")
    assert candidates["beta"]["error"]["kind"] == "input"
    assert story["subtasks"][0]["verdict"]["winner"] == "alpha"


def test_a_single_survivor_wins_unjudged_and_the_verdict_says_so(running: Installation) -> None:
    story = running.run("submit", "two fail", "--wait", "--json").json

    verdict = story["subtasks"][0]["verdict"]
    assert (verdict["winner"], verdict["method"]) == ("gamma", "only_candidate")
    assert "unjudged" in verdict["reason"]


def test_a_model_that_fails_once_is_tried_again(running: Installation) -> None:
    story = running.run("submit", "once", "--wait", "--json").json

    candidates = {c["model"]: c for c in story["subtasks"][0]["candidates"]}
    assert (candidates["gamma"]["status"], candidates["gamma"]["attempt"]) == ("done", 2)
    assert story["subtasks"][0]["verdict"]["winner"] == "beta"


def test_when_all_models_fail_the_task_fails_with_every_reason(running: Installation) -> None:
    done = running.run("submit", "all fail", "--wait", "--json")

    assert (done.code, done.json["status"], done.json["answer"]) == (1, "failed", None)
    assert {c["status"] for c in done.json["subtasks"][0]["candidates"]} == {"error"}
    assert all(name in done.json["error"]["message"] for name in ("alpha", "beta", "gamma"))
    assert done.json["subtasks"][0]["verdict"] is None


def test_a_judge_that_fails_on_this_very_item_falls_back_to_the_first_choice(running: Installation) -> None:
    story = running.run("submit", "confuse the judge", "--wait", "--json").json

    verdict = story["subtasks"][0]["verdict"]
    assert (story["status"], verdict["winner"], verdict["fallback"]) == ("done", "alpha", True)
    assert "the judge failed 3 times" in verdict["reason"]


def test_the_caller_names_models_and_how_many(running: Installation) -> None:
    story = running.run("submit", "few", "--model", "gamma", "--model", "alpha", "--wait", "--json").json

    assert [c["model"] for c in story["subtasks"][0]["candidates"]] == ["alpha", "gamma"]


def test_the_same_idempotency_key_is_the_same_task(running: Installation) -> None:
    first, again, other = (
        running.run("submit", text, "--idempotency-key", "k1", "--json") for text in ("same", "same", "different")
    )

    assert first.json["id"] == again.json["id"]
    assert (other.code, "idempotency_key 'k1'" in other.err) == (2, True)


def test_show_and_results_print_for_people(running: Installation) -> None:
    task = running.run("submit", "for people", "--wait", "--json").json["id"]

    shown = running.run("show", task[:13])
    listed = running.run("results", "--limit", "5", env={"COLUMNS": "200"})

    assert "★" in shown.out
    assert "beta says more: for people" in shown.out
    assert task in listed.out


def test_status_and_models_say_who_is_ready(running: Installation) -> None:
    status = running.run("status", "--json").json
    models = {row["name"]: row for row in running.run("models", "--json").json}

    by_model = {row["model"]: row for row in status["models"]}
    assert by_model["alpha"]["ready"]
    assert not by_model["lonely"]["live"]
    assert models["alpha"]["live"]
    assert not models["lonely"]["live"]
    assert running.run("status").code == running.run("models").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["submit", "x", "--capability", "mind-reading"], 2, "No capability 'mind-reading'"),
        (["submit", "--capability", "image-to-text/ocr"], 2, "none is attached"),
        (["submit", "--capability", "image-to-text/ocr", "--attach", "/no/such/file.png"], 2, "Cannot read /no/such/file.png"),
        (["submit", "--capability", "image-to-text/ocr", "--attach", "/"], 2, "is a folder"),
        (["submit", "--capability", "image-to-text/ocr", "--attach", __file__], 2, "is text/plain"),
        (["submit", "--capability", "image-to-text/ocr", "--attach", "/dev/null"], 2, "is empty"),
        (["submit", ""], 2, "the request is empty"),
        (["submit", "x", "--priority", "101"], 2, "priority = 101"),
        (["submit", "x", "--param", "novalue"], 2, "is not NAME=VALUE"),
        (["submit", "x", "--model", "nobody"], 2, "use: alpha, beta, gamma"),
        (["submit", "x", "--no-such-option"], 2, "No such option"),
        (["show", "zzz"], 2, "is not a task id"),
        (["show", "00000000-0000-7000-8000-000000000000"], 2, "No task"),
        (["sql", "delete from task"], 1, "read-only transaction"),
        (["sql", "selec 1"], 1, "syntax error"),
        (["worker"], 2, "Say what the worker is for"),
        (["worker", "nobody"], 2, "No model 'nobody'"),
    ],
)  # fmt: skip
def test_bad_input_gets_one_sentence_and_an_exit_code(
    running: Installation, arguments: list[str], code: int, sentence: str
) -> None:
    before = running.query("SELECT count(*) AS n FROM task")[0].n

    done = running.run(*arguments)

    assert (done.code, sentence in " ".join(done.err.split())) == (code, True), done.err
    assert "Traceback" not in done.err
    assert running.query("SELECT count(*) AS n FROM task")[0].n == before


def test_a_capability_that_nobody_serves_now_is_refused_unless_the_caller_will_wait(
    running: Installation, picture: Path
) -> None:
    arguments = ["submit", "--capability", "image-to-text/caption", "--attach", str(picture)]

    refused = running.run(*arguments)
    stored = running.run(*arguments, "--without-worker", "--wait", "--timeout", "1")

    assert (refused.code, "bakeoff worker lonely" in refused.err) == (3, True)
    assert (stored.code, "The work goes on" in stored.err) == (4, True)


def test_a_server_that_is_away_is_one_sentence(running: Installation) -> None:
    done = running.run("submit", "x", env={"BAKEOFF_DATABASE_URL": "postgresql://u:secret@127.0.0.1:1/d"})

    assert (done.code, "does not answer" in done.err, "secret" in done.err) == (3, True, False)


def test_another_system_enqueues_with_a_plain_insert(running: Installation) -> None:
    (row,) = running.query("INSERT INTO task (request) VALUES ('from sql') RETURNING id")

    result = result_of(running, row.id)

    assert (result.status, result.source, result.answer) == ("done", "sql", "beta says more: from sql")


@pytest.mark.parametrize(
    ("columns", "values", "sentence"),
    [
        ("request, capability", "'x', 'mind-reading'", "No capability"),
        ("request, options", "'x', '{\"candidats\": 2}'", "options.candidats is not an option"),
        ("request, capability, attachments", "'x', 'image-to-text/ocr', '[{\"sha256\": \"" + "0" * 64 + "\"}]'", "upload it first"),
        ("request, attachments", "'x', '[3]'", "attachments: "),
    ],
)  # fmt: skip
def test_a_row_that_can_never_run_fails_at_pick_up_with_its_reason(
    running: Installation, columns: str, values: str, sentence: str
) -> None:
    escaped = values.replace(":", "\\:")
    (row,) = running.query(f"INSERT INTO task ({columns}) VALUES ({escaped}) RETURNING id")

    result = result_of(running, row.id)

    assert (result.status, result.error["code"]) == ("failed", "invalid_request")
    assert sentence in result.error["message"]


def test_the_enqueue_role_may_insert_and_nothing_else(running: Installation) -> None:
    roles = running.run("db", "roles", "--json").json
    running.query(f"DROP ROLE IF EXISTS app; CREATE ROLE app LOGIN PASSWORD 'app' IN ROLE {roles['enqueue']}")
    url = make_url(running.database_url).set(username="app", password="app", drivername="postgresql")  # noqa: S106
    try:
        with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as app:
            found = app.execute("INSERT INTO task (request, source) VALUES ('as app', 'app') RETURNING id").fetchone()
            assert found is not None
            for forbidden in (
                "INSERT INTO task (request, status) VALUES ('x', 'done')",
                "SELECT request FROM task",
                "UPDATE task SET request = 'y'",
                "SELECT * FROM results",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    app.execute(forbidden)
        assert result_of(running, found[0]).answer == "beta says more: as app"
    finally:
        running.query(
            f"DROP OWNED BY app; DROP ROLE app; DROP OWNED BY {roles['enqueue']}; DROP ROLE {roles['enqueue']}"
        )
        running.query(f"DROP OWNED BY {roles['read']}; DROP ROLE {roles['read']}")


@pytest.fixture
def other_app(running: Installation) -> Celery:
    """An application of somebody else's, which knows our Redis and a task's name and nothing more."""
    return Celery("somebody-else", broker=running.redis_url, backend=running.redis_url)


def test_another_celery_app_submits_by_name(running: Installation, other_app: Celery) -> None:
    sent = other_app.send_task("bakeoff.submit", kwargs={"request": "from celery", "source": "shop"})

    task = sent.get(timeout=20)["task_id"]

    result = result_of(running, task)
    assert (result.source, result.answer) == ("shop", "beta says more: from celery")


def test_a_file_comes_with_a_celery_message(running: Installation, other_app: Celery) -> None:
    file = {"name": "b.png", "data": base64.b64encode(png()).decode()}
    sent = other_app.send_task("bakeoff.submit", kwargs={"capability": "image-to-text/ocr", "attachments": [file]})

    assert result_of(running, sent.get(timeout=20)["task_id"]).answer == "read the picture b.png"


def test_a_message_delivered_twice_stores_one_task(running: Installation, other_app: Celery) -> None:
    kwargs = {"request": "twice"}
    first = other_app.send_task("bakeoff.submit", kwargs=kwargs, task_id="0b6ce7fc-0001-4000-8000-000000000001")
    task = first.get(timeout=20)["task_id"]
    other_app.send_task("bakeoff.submit", kwargs=kwargs, task_id="0b6ce7fc-0001-4000-8000-000000000001")
    last = other_app.send_task("bakeoff.submit", kwargs={"request": "afterwards"})
    last.get(timeout=20)

    assert [str(row.id) for row in running.query("SELECT id FROM task WHERE request = 'twice'")] == [task]


def test_a_bad_celery_request_fails_with_the_sentence(running: Installation, other_app: Celery) -> None:
    sent = other_app.send_task("bakeoff.submit", kwargs={"request": "x", "capability": "mind-reading"})

    with pytest.raises(Exception, match="No capability 'mind-reading'"):
        sent.get(timeout=20)


def test_many_tasks_leave_no_subscription_and_nothing_in_flight(running: Installation) -> None:
    running.query("INSERT INTO task (request) SELECT 'many ' || n FROM generate_series(1, 60) AS n")

    wait_until(
        lambda: (
            running.query("SELECT count(*) AS n FROM task WHERE request LIKE 'many %' AND status = 'done'")[0].n == 60
        ),
        60,
        running.logs,
    )

    import redis

    client = redis.Redis.from_url(running.redis_url)
    assert client.pubsub_channels("celery-task-meta-*") == []
    left = running.query("SELECT count(*) AS n FROM candidate WHERE finished_at IS NULL AND status <> 'chosen'")
    assert left[0].n == 0
    assert running.query("SELECT count(*) AS n FROM verdict GROUP BY subtask_id HAVING count(*) > 1") == []


def test_config_masks_secrets_and_prints_the_dsn_on_request(running: Installation) -> None:
    shown = running.run("config", "--json")
    password = make_url(running.database_url).password

    assert password not in shown.out
    assert running.run("config", "--dsn").out.strip() == running.database_url
    by_name = {row["variable"]: row["value"] for row in json.loads(shown.out)}
    assert by_name["BAKEOFF_RETRY_DELAY"] == "0.2"


def test_watch_follows_a_task_to_its_end(running: Installation) -> None:
    task = running.run("submit", "slow", "--json").json["id"]

    done = running.run("watch", task, "--timeout", "30", env={"COLUMNS": "200"})

    assert (done.code, "beta says more: slow" in done.out) == (0, True)


POISON = [
    ("request, deadline", "'poison', '8999-01-01'"),
    ("request, options", "'poison', ('{\"params\": {\"a\": 1' || repeat('0', 400) || '.5}}')::jsonb"),
    ("request, options", "'poison', ('{\"params\": {\"a\": ' || repeat('[', 300) || repeat(']', 300) || '}}')::jsonb"),
    ("request, options", "'poison', ('{\"params\": ' || repeat('[', 1500) || repeat(']', 1500) || '}')::jsonb"),
    ("request, options", "'poison', ('{\"params\": {\"a\": ' || repeat('9', 5000) || '}}')::jsonb"),
    ("request, attachments", "'poison', ('[' || repeat('9', 5000) || ']')::jsonb"),
]


@pytest.mark.parametrize(("columns", "values"), POISON)
def test_a_row_that_cannot_even_be_read_fails_alone(running: Installation, columns: str, values: str) -> None:
    escaped = values.replace(":", "\\:")
    (bad,) = running.query(f"INSERT INTO task ({columns}, priority) VALUES ({escaped}, 100) RETURNING id")
    (good,) = running.query("INSERT INTO task (request) VALUES ('beside the poison') RETURNING id")

    assert result_of(running, good.id).answer == "beta says more: beside the poison"
    assert result_of(running, bad.id).status in {"done", "failed"}


@pytest.mark.parametrize(
    "kwargs",
    [
        {"request": 123},
        {"request": "x", "source": 5},
        {"request": "x", "priority": "high"},
        {"request": "x", "priority": True},
        {"request": "x", "options": [1]},
        {"request": "x", "idempotency_key": "a\0"},
        {"request": "x", "attachments": "file"},
        {"request": "a\0b"},
        {"request": "x", "run_at": "tomorrow"},
    ],
)
def test_a_celery_message_with_wrong_types_fails_with_the_field_named(
    running: Installation, other_app: Celery, kwargs: dict[str, Any]
) -> None:
    sent = other_app.send_task("bakeoff.submit", kwargs=kwargs)

    with pytest.raises(Exception, match=next(name for name in reversed(kwargs))):
        sent.get(timeout=20)


def test_what_callers_write_cannot_break_the_terminal(running: Installation) -> None:
    task = running.run("submit", "explain [/b] and \x1b]0;owned\x07 [name]", "--wait", "--json").json["id"]

    for arguments in (["results", "--limit", "3"], ["show", task], ["sql", "select '[/x] 100 %' as a"]):
        done = running.run(*arguments, env={"COLUMNS": "300"})
        assert (done.code, "\x1b]0;" in done.out) == (0, False), done.err
    assert "[name]" in running.run("show", task).out


def test_sql_is_read_only_even_after_a_commit(running: Installation) -> None:
    done = running.run("sql", "commit; update task set priority = 7; select 1")

    assert (done.code, "read-only" in done.err) == (1, True)
