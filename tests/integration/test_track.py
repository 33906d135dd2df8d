"""What verdicts and preferences say about models, read from a real database."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, text

from db.registry import ModelEntry
from db.track import Judged, Preferred, judged_subtasks, preferences_between_models
from db.workers import sync_models
from scheduler.selectors import SELECTORS, Histories, Situation

pytestmark = pytest.mark.integration

MODELS = [
    ModelEntry(name=name, capability="text-generation", backend="scripted") for name in ("alpha", "beta", "gamma")
]
ERROR = json.dumps({"kind": "model", "code": "x", "message": "It failed."})


@pytest.fixture
def connection(database: Engine) -> Any:
    with database.begin() as connection:
        sync_models(connection, MODELS)
    with database.connect() as connection:
        yield connection
        connection.rollback()


def judge(
    connection: Connection,
    request: str,
    outputs: dict[str, str | None],
    ranking: Sequence[str] = (),
    *,
    capability: str = "text-generation",
    fallback: bool = False,
    age: float = 0.0,
    ended: str = "error",
) -> UUID:
    """A task that was judged `age` seconds ago: outputs by model (None: it ended otherwise), its ranking by model."""
    values = {"request": request, "capability": capability, "age": age}
    task = connection.execute(
        text("INSERT INTO task (request, capability) VALUES (:request, :capability) RETURNING id"), values
    ).scalar_one()
    subtask: UUID = connection.execute(
        text(
            "INSERT INTO subtask (task_id, position, name, capability, inputs, source, priority, candidates_wanted, "
            "judge, status, finished_at) VALUES (:task, 0, 'it', :capability, '[]', 'test', 0, 3, 'j', 'done', "
            "now() - make_interval(secs => :age)) RETURNING id"
        ),
        {**values, "task": task},
    ).scalar_one()
    ids = {}
    for rank, (model, output) in enumerate(outputs.items()):
        ids[model] = connection.execute(
            text(
                "INSERT INTO candidate (subtask_id, model, rank, status, output, error, finished_at) VALUES (:subtask, "
                ":model, :rank, :status, :output, CAST(:error AS jsonb), now()) RETURNING id"
            ),
            {"subtask": subtask, "model": model, "rank": rank, "output": output,
             "status": ended if output is None else "done", "error": ERROR if output is None else None},
        ).scalar_one()  # fmt: skip
    order = [str(ids[model]) for model in ranking]
    connection.execute(
        text(
            "INSERT INTO verdict (subtask_id, winner_id, ranking, scores, reason, method, judge, fallback, seconds) "
            "VALUES (:subtask, :winner, CAST(:ranking AS jsonb), '{}', 'so', 'scripted', 'j', :fallback, 0)"
        ),
        {"subtask": subtask, "winner": order[0], "ranking": json.dumps(order), "fallback": fallback},
    )
    return subtask


def prefer(connection: Connection, better: str | None, worse: str | None, origin: str, **more: Any) -> None:
    values = {"capability": "text-generation", "subtask": None, "age": 0.0, **more}
    connection.execute(
        text(
            "INSERT INTO preference (capability, origin, subtask_id, group_key, input, better, worse, created_at) "
            "VALUES (:capability, :origin, :subtask, 'g', '{}', CAST(:better AS jsonb), CAST(:worse AS jsonb), "
            "now() - make_interval(secs => :age))"
        ),
        {**values, "origin": origin, "better": json.dumps({"text": "b", "model": better}),
         "worse": json.dumps({"text": "w", "model": worse})},
    )  # fmt: skip


def test_a_verdict_is_read_as_a_ranking_of_models(connection: Connection) -> None:
    judge(connection, "hello", {"alpha": "a", "beta": "b", "gamma": "c"}, ("beta", "gamma", "alpha"))

    assert judged_subtasks(connection, "text-generation", 10) == [
        Judged(request="hello", ranking=(("beta",), ("gamma",), ("alpha",)))
    ]


def test_who_said_what_the_winner_said_stands_beside_it(connection: Connection) -> None:
    judge(connection, "hello", {"alpha": "same", "beta": "same", "gamma": "c"}, ("beta", "gamma", "alpha"))

    (judged,) = judged_subtasks(connection, "text-generation", 10)

    assert judged.ranking == (("alpha", "beta"), ("gamma",))


def test_failures_count_and_what_was_cancelled_does_not(connection: Connection) -> None:
    judge(connection, "one failed", {"alpha": "a", "beta": None}, ("alpha",), age=1)
    judge(connection, "one was late", {"alpha": "a", "beta": None}, ("alpha",), ended="cancelled")

    late, failed = judged_subtasks(connection, "text-generation", 10)

    assert (failed.ranking, failed.failed) == ((("alpha",),), ("beta",))
    assert (late.ranking, late.failed) == ((("alpha",),), ())


def test_a_fallback_says_nothing_about_the_models(connection: Connection) -> None:
    judge(connection, "x", {"alpha": "a", "beta": "b"}, ("alpha", "beta"), fallback=True)

    assert judged_subtasks(connection, "text-generation", 10) == []


def test_the_latest_of_one_capability_are_read_the_latest_first(connection: Connection) -> None:
    for age in (30, 10, 20):
        judge(connection, f"{age} ago", {"alpha": "a", "beta": "b"}, ("alpha", "beta"), age=age)
    judge(connection, "elsewhere", {"alpha": "a", "beta": "b"}, ("alpha", "beta"), capability="image-to-text/ocr")

    assert [one.request for one in judged_subtasks(connection, "text-generation", 2)] == ["10 ago", "20 ago"]


def test_a_long_request_is_read_from_its_beginning(connection: Connection) -> None:
    judge(connection, "word " * 5000, {"alpha": "a", "beta": "b"}, ("alpha", "beta"))

    assert len(judged_subtasks(connection, "text-generation", 2)[0].request) == 4000


def test_preferences_name_two_models_and_repeat_no_verdict(connection: Connection) -> None:
    subtask = judge(connection, "x", {"alpha": "a", "beta": "b"}, ("alpha", "beta"))
    prefer(connection, "alpha", "beta", "human", age=3)
    prefer(connection, "beta", "gamma", "import", age=2)
    prefer(connection, "alpha", "beta", "judge", subtask=subtask)  # its verdict says it
    prefer(connection, None, "beta", "human")
    prefer(connection, "alpha", "alpha", "human")
    prefer(connection, "alpha", "beta", "human", capability="image-to-text/ocr")

    assert preferences_between_models(connection, "text-generation", 10) == [
        Preferred(better="beta", worse="gamma", origin="import"),
        Preferred(better="alpha", worse="beta", origin="human"),
    ]
    assert len(preferences_between_models(connection, "text-generation", 1)) <= 1


def test_histories_are_read_when_they_are_due_and_not_before(database: Engine, connection: Connection) -> None:
    now = [0.0]
    histories = Histories(database, seconds=60, clock=lambda: now[0])
    judge(connection, "sort a list", {"alpha": "a", "beta": "b"}, ("beta", "alpha"))
    connection.commit()
    here = "text-generation"

    # when: before the first look
    assert histories.of(here).log.entries == ()

    assert histories.refresh([here, "image-to-text/ocr"]) == 2
    assert ranked("track_record", histories) == ["beta", "alpha"]
    assert ranked("nearest", histories) == ["beta", "alpha"]

    # when others are judged, a minute later
    for _ in range(3):
        judge(connection, "sort a list", {"alpha": "a", "gamma": "c"}, ("gamma", "alpha"))
    connection.commit()
    now[0] = 59.0
    assert histories.refresh([here]) == 0
    assert ranked("track_record", histories) == ["beta", "alpha"]
    now[0] = 60.0
    assert histories.refresh([here]) == 1
    assert ranked("track_record", histories)[0] == "gamma"


def ranked(selector: str, histories: Histories) -> list[str]:
    here = Situation(capability="text-generation", text="sort this list", history=histories.of("text-generation"))
    return [model.name for model in SELECTORS[selector](MODELS, here)]
