"""What the results page reads: searches that end, pages that miss nothing, what is left to judge."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, Engine, text

from db import browsing
from db.browsing import next_to_judge, prompts_of, readings_of, said_of, search_tasks

pytestmark = pytest.mark.integration


def task(connection: Connection, request: str, source: str = "api", **more: Any) -> UUID:
    columns = {"request": request, "source": source, **more}
    names = ", ".join(columns)
    values = ", ".join(f":{name}" for name in columns)
    return connection.execute(text(f"INSERT INTO task ({names}) VALUES ({values}) RETURNING id"), columns).scalar_one()


def found(connection: Connection, **narrowed: Any) -> list[str]:
    return [one.request for one in search_tasks(connection, **{"limit": 50, **narrowed}).tasks]


def test_a_search_finds_words_sources_and_ids_and_nothing_else(database: Engine) -> None:
    with database.begin() as connection:
        first = task(connection, "Which River?", "shop")
        task(connection, "100% of a_b", "riverside")
        task(connection, "another", status="cancelled", finished_at="now()", finished_xid="1")

        assert found(connection) == ["another", "100% of a_b", "Which River?"]
        assert found(connection, words="river") == ["100% of a_b", "Which River?"]
        assert found(connection, words="0% of a_") == ["100% of a_b"]
        assert found(connection, words="a%b") == found(connection, words="\\") == []
        assert found(connection, source="shop") == ["Which River?"]
        assert found(connection, status="cancelled") == ["another"]
        assert found(connection, ids=(first, first)) == ["Which River?"]
        assert found(connection, ids=(first, first), source="riverside") == []


def test_pages_of_a_search_hold_every_task_once(database: Engine) -> None:
    with database.begin() as connection:
        for number in range(7):
            task(connection, f"task {number}")
        pages, before = [], None
        while True:
            page = search_tasks(connection, limit=3, words="task", before=before)
            pages.append([one.request for one in page.tasks])
            before = page.older
            if before is None:
                break

    assert pages == [["task 6", "task 5", "task 4"], ["task 3", "task 2", "task 1"], ["task 0"]]


def test_a_search_for_what_is_rare_ends_and_says_where_to_go_on(
    database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browsing, "MOST_SEARCHED", 4)
    with database.begin() as connection:
        task(connection, "rare")
        for number in range(5):
            task(connection, f"task {number}")

        nothing = search_tasks(connection, limit=3, words="rare")
        assert nothing.tasks == []
        assert nothing.older is not None
        last = search_tasks(connection, limit=3, words="rare", before=nothing.older)
        assert [one.request for one in last.tasks] == ["rare"]
        assert last.older is None


@pytest.fixture
def judged(database: Engine) -> tuple[UUID, list[UUID]]:
    """A task with two finished steps; the candidates of the first differ, those of the second say the same."""
    with database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO model (name, capability, backend, source, queue)"
                " SELECT n, 'text-generation', 'scripted', '', n FROM unnest(ARRAY['a', 'b']) AS n"
            )
        )
        id_ = task(connection, "Which?", "shop")
        steps = [_step(connection, id_, place, outputs) for place, outputs in enumerate((("x", "y"), ("x", "x")))]
    return id_, steps


def _step(connection: Connection, id_: UUID, place: int, outputs: tuple[str, str]) -> UUID:
    step = connection.execute(
        text(
            "INSERT INTO subtask (task_id, position, name, capability, inputs, source, priority, candidates_wanted, judge,"
            " status, finished_at) VALUES (:task, :place, :name, 'text-generation', '[]', 'shop', 0, 2, 'j', 'done', now())"
            " RETURNING id"
        ),
        {"task": id_, "place": place, "name": f"s{place}"},
    ).scalar_one()
    for model, output in zip("ab", outputs, strict=True):
        connection.execute(
            text(
                "INSERT INTO candidate (subtask_id, model, rank, status, output, seconds, finished_at)"
                " VALUES (:step, :model, :rank, 'done', :output, 0.1, now())"
            ),
            {"step": step, "model": model, "rank": "ab".index(model), "output": output},
        )
    return UUID(str(step))


def test_what_is_left_to_judge_differs_is_not_said_yet_and_is_theirs(
    database: Engine, judged: tuple[UUID, list[UUID]]
) -> None:
    id_, (differs, _) = judged
    with database.begin() as connection:
        for source in (None, "shop"):
            left = next_to_judge(connection, "ann", source=source)
            assert left is not None
            assert (left.id, left.task_id) == (differs, id_)
        assert next_to_judge(connection, "ann", source="other") is None
        assert next_to_judge(connection, "ann", before=differs) is None

        connection.execute(
            text(
                "INSERT INTO preference (capability, origin, annotator, subtask_id, group_key, input, better, worse) VALUES"
                " ('text-generation', 'human', 'ann', :step, 'g', '{}', '{\"text\": \"x\", \"model\": \"a\"}',"
                '  \'{"text": "y", "model": "b"}\')'
            ),
            {"step": differs},
        )

        assert next_to_judge(connection, "ann") is None
        assert next_to_judge(connection, "bob") is not None
        assert [(one.annotator, one.better, one.worse) for one in said_of(connection, [differs, uuid4()])] == [
            ("ann", "a", "b")
        ]


def test_a_verdict_gives_its_figures_and_its_prompts_apart(database: Engine, judged: tuple[UUID, list[UUID]]) -> None:
    id_, (step, _) = judged
    with database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO verdict (subtask_id, winner_id, ranking, scores, reason, method, judge, seconds, orders)"
                " SELECT :step, min(id::text)::uuid, '[]', '{}', 'r', 'choice', 'j', 0,"
                ' \'[{"prompt": "p1", "swapped": "p2", "read": [{"models": ["a"]}]}, "odd", {"cut": 1}]\''
                " FROM candidate WHERE subtask_id = :step"
            ),
            {"step": step},
        )

        assert readings_of(connection, id_) == {step: [{"read": [{"models": ["a"]}]}, "odd", {"cut": 1}]}
        assert prompts_of(connection, step) == ["p1", "p2"]
        assert prompts_of(connection, uuid4()) == []
