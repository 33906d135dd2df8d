"""What people prefer, stored in a real database: by `bakeoff prefer`, from files, and read by those who learn."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, Engine, text

from db.engine import make_engine, transaction
from db.errors import InvalidRequest, NotFound
from db.prefer import NewPreference, Side, Stored, store_preferences
from db.registry import ModelEntry
from db.track import Preferred, preferences_between_models
from db.workers import sync_models
from scheduler.preferring import prefer

pytestmark = pytest.mark.integration

MODELS = [
    ModelEntry(name=name, capability="text-generation", backend="scripted")
    for name in ("alpha", "beta", "gamma", "delta")
]
OUTPUTS = {"alpha": "short", "beta": "longer", "gamma": "longer", "delta": None}
FILE = {"sha256": "ab" * 32, "name": "x.png"}


@pytest.fixture
def connection(database: Engine) -> Iterator[Connection]:
    with database.begin() as connection:
        sync_models(connection, MODELS)
    with database.connect() as connection:
        yield connection
        connection.rollback()


def add_task(connection: Connection, request: str = "Say hello.") -> UUID:
    return connection.execute(
        text("INSERT INTO task (request, attachments) VALUES (:request, CAST(:files AS jsonb)) RETURNING id"),
        {"request": request, "files": json.dumps([FILE])},
    ).scalar_one()


def add_subtask(
    connection: Connection, task: UUID, outputs: dict[str, str | None], *, position: int = 0, inputs: Any = ()
) -> UUID:
    """A subtask before its verdict: outputs by model, None for an error."""
    subtask = connection.execute(
        text(
            "INSERT INTO subtask (task_id, position, name, capability, inputs, source, priority, candidates_wanted, judge, "
            "status) VALUES (:task, :position, :name, 'text-generation', CAST(:inputs AS jsonb), 's', 0, 3, 'j', 'running') "
            "RETURNING id"
        ),
        {"task": task, "position": position, "name": f"step-{position}",
         "inputs": json.dumps(list(inputs) or [{"request": True}])},
    ).scalar_one()  # fmt: skip
    for rank, (model, output) in enumerate(outputs.items()):
        connection.execute(
            text(
                "INSERT INTO candidate (subtask_id, model, rank, status, output, error, finished_at) VALUES (:subtask, "
                ":model, :rank, :status, :output, CAST(:error AS jsonb), now())"
            ),
            {"subtask": subtask, "model": model, "rank": rank, "output": output, "status": "error" if output is None else "done",
             "error": '{"kind": "model", "code": "x", "message": "y"}' if output is None else None},
        )  # fmt: skip
    return subtask


def add_verdict(connection: Connection, subtask: UUID, winner: str) -> None:
    connection.execute(
        text(
            "INSERT INTO verdict (subtask_id, winner_id, ranking, scores, reason, method, judge, seconds) SELECT :subtask, id, "
            "jsonb_build_array(id), '{}', 'so', 'scripted', 'j', 0 FROM candidate WHERE subtask_id = :subtask AND model = :winner"
        ),
        {"subtask": subtask, "winner": winner},
    )
    connection.execute(
        text("UPDATE subtask SET status = 'done', finished_at = now() WHERE id = :subtask"), {"subtask": subtask}
    )


@pytest.fixture
def subtask(connection: Connection) -> UUID:
    return add_subtask(connection, add_task(connection), OUTPUTS)


def stored(connection: Connection) -> list[Any]:
    return list(connection.execute(text("SELECT * FROM preference ORDER BY worse ->> 'model'")))


def pairs(connection: Connection) -> list[tuple[str, str]]:
    return [(row.better["model"], row.worse["model"]) for row in stored(connection)]


def test_a_preference_holds_what_was_asked_and_what_both_said(connection: Connection, subtask: UUID) -> None:
    said = prefer(connection, str(subtask), "alpha", ["beta"], annotator="ann")

    assert (said.better, said.over, said.capability, said.stored) == (
        "alpha",
        ("beta",),
        "text-generation",
        Stored(new=1),
    )
    (row,) = stored(connection)
    assert (row.capability, row.origin, row.annotator, row.subtask_id) == ("text-generation", "human", "ann", subtask)
    assert row.input == {"text": "Say hello.", "attachments": []}
    assert (row.better, row.worse) == ({"text": "short", "model": "alpha"}, {"text": "longer", "model": "beta"})


def test_by_default_it_is_better_than_all_others_that_said_something_else(
    connection: Connection, subtask: UUID
) -> None:
    assert prefer(connection, str(subtask), "alpha").over == ("beta", "gamma")
    assert prefer(connection, str(subtask), "beta").over == ("alpha",)


def test_the_input_is_what_the_models_read(connection: Connection) -> None:
    # given a step that reads a file, words of its plan, and what an earlier step's winner said
    task = add_task(connection)
    earlier = add_subtask(connection, task, {"alpha": "heard this", "beta": "heard that"})
    add_verdict(connection, earlier, "beta")
    later = add_subtask(
        connection, task, OUTPUTS, position=1, inputs=[{"text": "Sum up:"}, {"output": "step-0"}, {"attachment": 0}]
    )
    connection.execute(text("INSERT INTO subtask_need VALUES (:later, :earlier)"), {"later": later, "earlier": earlier})

    prefer(connection, str(later), "alpha", ["beta"])

    (row,) = stored(connection)
    assert row.input == {"text": "Sum up:\n\nheard that", "attachments": [FILE]}
    assert row.group_key == f"file:{FILE['sha256']}"


def test_saying_it_again_changes_nothing_and_the_opposite_replaces_it(connection: Connection, subtask: UUID) -> None:
    prefer(connection, str(subtask), "alpha", ["beta"], annotator="ann")

    assert prefer(connection, str(subtask), "alpha", ["beta"], annotator="ann").stored == Stored(known=1)
    assert prefer(connection, str(subtask), "beta", ["alpha"], annotator="bob").stored == Stored(new=1)
    assert prefer(connection, str(subtask), "beta", ["alpha"], annotator="ann").stored == Stored(changed=1)
    assert pairs(connection) == [("beta", "alpha"), ("beta", "alpha")]


def test_whoever_says_it_at_the_same_time_stores_it_once(database: Engine, connection: Connection) -> None:
    subtask = add_subtask(connection, add_task(connection), OUTPUTS)
    connection.commit()

    def say(_: int) -> Stored:
        with transaction(database) as own:
            return prefer(own, str(subtask), "alpha", annotator="ann").stored

    with ThreadPoolExecutor(4) as people:
        said = list(people.map(say, range(12)))

    assert sum(one.new for one in said) == 2
    assert pairs(connection) == [("alpha", "beta"), ("alpha", "gamma")]


def test_the_verdict_stays_what_it_is(connection: Connection, subtask: UUID) -> None:
    add_verdict(connection, subtask, "beta")
    before = connection.execute(text("SELECT v, s FROM verdict AS v, subtask AS s")).one()

    prefer(connection, str(subtask), "alpha")

    assert connection.execute(text("SELECT v, s FROM verdict AS v, subtask AS s")).one() == before


def test_a_task_stands_for_its_only_subtask_with_something_to_compare(connection: Connection) -> None:
    task = add_task(connection)
    add_subtask(connection, task, {"alpha": "alone"})
    subtask = add_subtask(connection, task, OUTPUTS, position=1)

    assert prefer(connection, str(task), "alpha").subtask_id == subtask
    assert prefer(connection, str(subtask).replace("-", "")[:31], "alpha").subtask_id == subtask


def test_a_candidate_may_be_named_by_its_id(connection: Connection, subtask: UUID) -> None:
    ids = {row.model: str(row.id) for row in connection.execute(text("SELECT id, model FROM candidate"))}

    assert prefer(connection, str(subtask), ids["beta"].upper(), [ids["alpha"], "alpha"]).over == ("alpha",)


@pytest.mark.parametrize(
    ("better", "over", "sentence"),
    [
        ("beta", ["gamma"], "beta and gamma said the same, word for word: neither is better"),
        ("alpha", ["alpha"], "alpha cannot be better than itself"),
        ("alpha", ["delta"], r"delta has no output in this subtask \(error\)"),
        ("omega", [], "'omega' is no candidate of this subtask; there are: alpha, beta, gamma, delta"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    connection: Connection, subtask: UUID, better: str, over: list[str], sentence: str
) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        prefer(connection, str(subtask), better, over)
    assert stored(connection) == []


@pytest.mark.parametrize(
    ("outputs", "why"),
    [({"alpha": "x", "beta": "x"}, "the others said the same"), ({"alpha": "x", "beta": None}, "no other candidate")],
)
def test_where_nothing_is_worse_it_is_said(connection: Connection, outputs: dict[str, str | None], why: str) -> None:
    subtask = add_subtask(connection, add_task(connection), outputs)

    with pytest.raises(InvalidRequest, match=why):
        prefer(connection, str(subtask), "alpha")


def test_which_subtask_is_meant_must_be_clear(connection: Connection) -> None:
    task = add_task(connection)
    with pytest.raises(NotFound, match="No subtask or task"):
        prefer(connection, str(uuid4()), "alpha")
    with pytest.raises(InvalidRequest, match="is no id of a subtask or task"):
        prefer(connection, "not an id", "alpha")

    for position in range(2):
        add_subtask(connection, task, OUTPUTS, position=position)
    with pytest.raises(InvalidRequest, match=r"several subtasks to compare; say which: .* \(step-0\); .* \(step-1\)"):
        prefer(connection, str(task), "alpha")

    add_subtask(connection, add_task(connection), OUTPUTS)
    with pytest.raises(InvalidRequest, match="the beginning of several ids"):
        prefer(connection, str(task)[:8], "alpha")


def test_selectors_read_what_is_written(connection: Connection, subtask: UUID) -> None:
    prefer(connection, str(subtask), "alpha", ["beta"])
    labelled = NewPreference(
        capability="text-generation", text="x", better=Side(text="b", model="beta"), worse=Side(text="g", model="gamma")
    )
    nameless = NewPreference(capability="text-generation", text="x", better=Side(text="b"), worse=Side(text="g"))
    store_preferences(connection, [labelled, nameless])

    read = preferences_between_models(connection, "text-generation", 10)

    assert sorted(read, key=str) == [
        Preferred(better="alpha", worse="beta", origin="human"),
        Preferred(better="beta", worse="gamma", origin="import"),
    ]


def test_a_preference_outlives_its_task(connection: Connection, subtask: UUID) -> None:
    prefer(connection, str(subtask), "alpha", ["beta"])

    connection.execute(text("DELETE FROM task"))

    assert [(row.subtask_id, row.better["text"]) for row in stored(connection)] == [(None, "short")]


def test_thousands_are_stored_in_a_second_and_once(connection: Connection) -> None:
    many = [
        NewPreference(
            capability="text-generation", text=f"{number} " + "word " * 100, better=Side(text="good " * 100, model="a"),
            worse=Side(text="bad " * 100, model="b"),
        )
        for number in range(5000)
    ]  # fmt: skip

    started = time.monotonic()
    assert store_preferences(connection, [*many, many[0]]) == Stored(new=5000, known=1)
    assert time.monotonic() - started < 10  # seconds; 1 on an idle machine
    assert store_preferences(connection, many) == Stored(known=5000)


def test_the_commands_prefer_import_and_show_the_leaderboard(installation: Any, tmp_path: Any) -> None:
    # given a subtask of the installation's own models
    engine = make_engine(installation.database_url)
    with engine.begin() as connection:
        sync_models(connection, MODELS)
        subtask = add_subtask(connection, add_task(connection), OUTPUTS)
    engine.dispose()

    # when a person prefers one, twice
    first = installation.run("prefer", str(subtask), "alpha", "--annotator", "ann", "--json")
    assert first.json["stored"] == {"new": 2, "changed": 0, "known": 0}
    again = installation.run("prefer", str(subtask), "alpha", "--annotator", "ann")
    assert (again.code, again.out) == (0, "alpha is better than beta, gamma (text-generation): 2 known.\n")
    refused = installation.run("prefer", str(subtask), "beta", "--over", "gamma")
    assert (refused.code, "word for word" in refused.err) == (2, True)

    # and a file is imported: all or nothing
    file = tmp_path / "labels.jsonl"
    good = {"instruction": "x", "output_1": "a", "output_2": "b", "label": 2, "model_1": "alpha", "model_2": "beta"}
    file.write_text("\n".join(map(json.dumps, [good, {**good, "label": 7}])))
    assert installation.run("preferences", "import", str(file), "-c", "text-generation").code == 2
    assert installation.query("SELECT count(*) FROM preference")[0].count == 2
    file.write_text("\n".join(map(json.dumps, [good, {**good, "label": 0}])))
    imported = installation.run("preferences", "import", str(file), "-c", "text-generation", "--json")
    assert imported.json == {
        "new": 1, "changed": 0, "known": 0, "ties": 1, "capabilities": {"text-generation": 1},
    }  # fmt: skip

    # then the leaderboard knows
    (board,) = installation.run("leaderboard", "--json").json
    counted = {one["model"]: (one["preferred"], one["compared"]) for one in board["standings"]}
    assert counted == {"alpha": (2, 3), "beta": (1, 2), "gamma": (0, 1)}
    assert board["standings"][0]["model"] == "alpha"
    shown = installation.run("leaderboard", "-c", "text-generation", "--since", "1h")
    assert ("2 of 3" in shown.out, "tokens" in shown.out) == (True, False)
    assert "Nothing is known yet" in installation.run("leaderboard", "-c", "no-such").out
