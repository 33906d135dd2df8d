"""Annotation in a real database: who gets which group, what is shown, what comes back, and through the commands."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, text
from typer.testing import CliRunner

from db.annotations import NewGroup, SetOfGroups, add_groups, annotated, contests_done, find_set, shares
from db.engine import make_engine
from db.errors import InvalidRequest, NotFound
from db.registry import ModelEntry
from db.settings import load_settings
from db.workers import sync_models
from scheduler.annotating.blind import LAPSE_SECONDS, Shown, next_group, skip_group, store_scores, undo
from scheduler.annotating.criteria import read_criteria
from scheduler.annotating.exporting import exported
from scheduler.annotating.groups import groups_of
from scheduler.annotating.standing import standing
from scheduler.cli import app
from scheduler.rewarding.reading import read_source
from tests.conftest import Installation

pytestmark = pytest.mark.integration

CRITERIA = read_criteria()
ITEMS = ["<image>\nWhy so?", "What is it?", "Where is it?", "Who is it?", "When was it?"]


def group(key: str, items: list[str] = ITEMS, wanted: int = 1) -> NewGroup:
    return NewGroup(
        key=key, field="questions", input={"image": f"{key}.jpg"}, wanted=wanted,
        items=[{"said": said, "models": []} for said in items],
    )  # fmt: skip


def made(connection: Connection, *groups: NewGroup, name: str = "s") -> SetOfGroups:
    add_groups(connection, name, CRITERIA.model_dump(mode="json"), groups)
    return find_set(connection, name)


def all_at(value: float) -> dict[str, float]:
    return dict.fromkeys(CRITERIA.names, value)


def by_length(shown: Shown) -> list[dict[str, float]]:
    """Scores that say which item they are of, whatever the order shown."""
    return [all_at(len(texts[0]) / 100) for texts in shown.items]


def given(connection: Connection, to_score: SetOfGroups, annotator: str) -> Shown:
    shown = next_group(connection, to_score, annotator)
    assert shown is not None
    return shown


@pytest.fixture
def connection(database: Engine) -> Iterator[Connection]:
    with database.connect() as connection:
        yield connection
        connection.rollback()


def test_a_group_is_shown_without_models_marks_or_scores(connection: Connection) -> None:
    items = [{"said": "<image>\nfirst", "models": ["alpha"]}, {"said": "second", "models": ["beta"]}]
    to_score = made(connection, NewGroup(key="g", field="answers", input={"text": "Say it."}, items=items))

    shown = given(connection, to_score, "ann")

    assert sorted(shown.items) == [["first"], ["second"]]
    assert shown.scores == [None, None]
    assert "alpha" not in repr(shown)


def test_two_annotators_see_their_own_order_and_each_sees_it_again(connection: Connection) -> None:
    to_score = made(connection, *(group(f"g{n}", wanted=2) for n in range(12)))
    orders = []
    for _ in range(12):
        pair = []
        for name in ("ann", "bob"):
            shown = given(connection, to_score, name)
            assert given(connection, to_score, name) == shown
            store_scores(connection, to_score, name, shown.group, by_length(shown))
            pair.append(shown.items)
        orders.append(pair)

    assert any(ann != bob for ann, bob in orders)
    assert len({str(items) for pair in orders for items in pair}) > 12  # of 24; chance alone repeats some


def test_scores_are_stored_in_the_order_of_the_file_whatever_was_shown(connection: Connection) -> None:
    to_score = made(connection, group("g", wanted=2))
    for name in ("ann", "bob"):
        shown = given(connection, to_score, name)
        assert store_scores(connection, to_score, name, shown.group, by_length(shown)) is True

    (row,) = exported(annotated(connection, to_score.id), "criteria-1")

    assert row["questions"] == ITEMS
    assert row["score"] == [len(said.removeprefix("<image>\n")) / 100 for said in ITEMS]
    assert row["annotation"]["annotators"] == ["ann", "bob"]


def test_a_break_in_the_middle_loses_nothing(connection: Connection) -> None:
    to_score = made(connection, group("g"), group("h"))
    shown = given(connection, to_score, "ann")
    half = [all_at(0.5), None, None, None, all_at(0.25)]

    assert store_scores(connection, to_score, "ann", shown.group, half) is False
    again = given(connection, to_score, "ann")

    assert (again.group, again.items, again.scores) == (shown.group, shown.items, half)
    assert list(exported(annotated(connection, to_score.id), "criteria-1")) == []


def test_undo_opens_the_last_group_with_its_scores(connection: Connection) -> None:
    to_score = made(connection, group("g"), group("h"))
    with pytest.raises(NotFound, match="nothing to undo"):
        undo(connection, to_score, "ann")
    first = given(connection, to_score, "ann")
    store_scores(connection, to_score, "ann", first.group, by_length(first))
    second = given(connection, to_score, "ann")

    opened = undo(connection, to_score, "ann")

    assert (opened.group, opened.scores) == (first.group, by_length(first))
    assert annotated(connection, to_score.id)[0].annotations == []
    store_scores(connection, to_score, "ann", opened.group, [all_at(1.0)] * len(ITEMS))
    (share,) = shares(connection, to_score.id)
    assert (share.done, share.open) == (1, 1)
    assert second.group == given(connection, to_score, "ann").group


def test_a_group_goes_to_as_many_people_as_it_wants_and_never_twice_to_one(connection: Connection) -> None:
    to_score = made(connection, group("once"), group("twice", wanted=2))
    for name, groups in (("ann", 2), ("bob", 1), ("eve", 0)):
        for _ in range(groups):
            shown = given(connection, to_score, name)
            store_scores(connection, to_score, name, shown.group, by_length(shown))
        assert next_group(connection, to_score, name) is None

    assert [len(one.annotations) for one in annotated(connection, to_score.id)] == [1, 2]


def test_what_one_skips_another_gets(connection: Connection) -> None:
    to_score = made(connection, group("g"))
    shown = given(connection, to_score, "ann")
    assert next_group(connection, to_score, "bob") is None

    skip_group(connection, to_score, "ann", shown.group)

    assert next_group(connection, to_score, "ann") is None
    assert given(connection, to_score, "bob").group == shown.group


def test_what_is_left_open_for_a_day_is_offered_to_others_and_still_taken_from_its_annotator(
    connection: Connection,
) -> None:
    to_score = made(connection, group("g"))
    shown = given(connection, to_score, "ann")
    connection.execute(
        text("UPDATE annotation SET assigned_at = now() - make_interval(secs => :age)"), {"age": LAPSE_SECONDS + 1}
    )

    taken = given(connection, to_score, "bob")

    assert taken.group == shown.group
    assert next_group(connection, to_score, "ann") is None
    assert store_scores(connection, to_score, "ann", shown.group, by_length(shown)) is True
    skip_group(connection, to_score, "bob", taken.group)
    assert next_group(connection, to_score, "eve") is None  # one is enough, and it is there


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([all_at(0.5)], "1 scores for 5 items"),
        ([all_at(0.5)] * 4 + [{**all_at(0.5), "clear": 1.2}], "Item 5: clear = 1.2 is not a number from 0 to 1"),
        ([all_at(0.5)] * 4 + [{**all_at(0.5), "clear": True}], "clear = True"),
        ([all_at(0.5)] * 4 + [{**all_at(0.5), "clear": float("nan")}], "clear = nan"),
        ([all_at(0.5)] * 4 + [{"clear": 1.0}], "Item 5: 'answerable' has no score"),
        ([all_at(0.5)] * 4 + [{**all_at(0.5), "funny": 1}], "Item 5: 'funny' is no criterion"),
        ([all_at(0.5)] * 4 + [0.5], "Item 5: 0.5 is not an object"),
    ],
)
def test_wrong_scores_are_refused_with_the_item_and_the_value(
    connection: Connection, scores: list[Any], said: str
) -> None:
    to_score = made(connection, group("g"))
    shown = given(connection, to_score, "ann")

    with pytest.raises(InvalidRequest, match=said):
        store_scores(connection, to_score, "ann", shown.group, scores)


def test_nobody_scores_what_they_were_never_given(connection: Connection) -> None:
    to_score, other = made(connection, group("g")), made(connection, group("g"), name="other")
    shown = given(connection, to_score, "ann")

    for place, name in ((to_score, "bob"), (other, "ann")):
        with pytest.raises(NotFound, match="never given"):
            store_scores(connection, place, name, shown.group, by_length(shown))


def test_a_set_takes_more_groups_and_keeps_its_criteria(connection: Connection) -> None:
    assert add_groups(connection, "s", CRITERIA.model_dump(mode="json"), [group("a"), group("b")]) == 2
    assert add_groups(connection, "s", CRITERIA.model_dump(mode="json"), [group("b"), group("c")]) == 1
    assert [one.key for one in annotated(connection, find_set(connection, "s").id)] == ["a", "b", "c"]

    with pytest.raises(InvalidRequest, match="scored by criteria-1, not by these other"):
        add_groups(connection, "s", {**CRITERIA.model_dump(mode="json"), "version": "other"}, [group("d")])
    with pytest.raises(NotFound, match="No set 't' to annotate; there are: s"):
        find_set(connection, "t")


def test_many_annotators_at_once_never_get_more_of_a_group_than_it_wants(database: Engine) -> None:
    groups = [group(f"g{n}", ["a", "b"], wanted=1 + n % 2) for n in range(40)]
    with database.begin() as connection:
        to_score = made(connection, *groups)
    url = database.url.render_as_string(hide_password=False)

    def annotate(name: str) -> int:
        engine = make_engine(url, application=name, pool_size=1)
        done = 0
        while True:
            with engine.begin() as connection:
                shown = next_group(connection, to_score, name)
                if shown is None:
                    break
            with engine.begin() as connection:
                store_scores(connection, to_score, name, shown.group, [all_at(0.5)] * 2)
            done += 1
        engine.dispose()
        return done

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(annotate, [f"annotator {n}" for n in range(8)]))

    with database.begin() as connection:
        found = annotated(connection, to_score.id)
    assert [len(one.annotations) for one in found] == [one.wanted for one in groups]
    assert sum(done) == sum(one.wanted for one in groups)


def test_a_group_taken_by_others_at_this_moment_is_waited_for_not_missed(database: Engine) -> None:
    with database.begin() as connection:
        to_score = made(connection, group("g", wanted=2))
    with ThreadPoolExecutor(1) as pool, database.connect() as ann:
        taken = next_group(ann, to_score, "ann")  # not committed: the row is locked

        def second() -> Shown | None:
            with database.begin() as connection:
                return next_group(connection, to_score, "bob")

        waiting = pool.submit(second)
        ann.commit()
        found = waiting.result(30)

    assert taken is not None
    assert found is not None
    assert found.group == taken.group


def test_one_annotator_in_two_windows_sees_one_group(database: Engine) -> None:
    with database.begin() as connection:
        to_score = made(connection, *(group(f"g{n}") for n in range(3)))

    def window(_: int) -> UUID:
        with database.begin() as connection:
            return given(connection, to_score, "ann").group

    with ThreadPoolExecutor(2) as pool:
        seen = Counter(pool.map(window, range(8)))

    assert set(seen) <= {one[0] for one in _open_groups(database)}
    assert len(seen) <= 2  # at the very first moment two may be given; after it, what is open comes first


def _open_groups(database: Engine) -> list[Any]:
    with database.begin() as connection:
        return list(connection.execute(text("SELECT group_id FROM annotation WHERE status = 'open'")))


def test_agreement_is_reported_per_criterion_and_overall(connection: Connection) -> None:
    to_score = made(connection, *(group(f"g{n}", wanted=2) for n in range(8)))
    for name, shift in (("ann", 0.0), ("bob", 0.5)):
        for _ in range(8):
            shown = given(connection, to_score, name)
            scores = [{**one, "clear": shift} for one in by_length(shown)]
            store_scores(connection, to_score, name, shown.group, scores)

    found = standing(connection, to_score)

    assert (found["groups_scored_twice"], found["finished_groups"], found["annotations_done"]) == (8, 8, 16)
    assert found["alpha"]["relevant"]["alpha"] == pytest.approx(1)
    assert found["alpha"]["clear"]["alpha"] < 0  # they differ by system
    assert found["alpha_overall"]["units"] == 8 * len(ITEMS)
    low, high = found["alpha"]["relevant"]["interval"]
    assert low == high == pytest.approx(1)


def test_candidates_of_done_subtasks_become_groups(connection: Connection) -> None:
    sync_models(
        connection, [ModelEntry(name=name, capability="text-generation", backend="scripted") for name in ("alpha", "beta", "gamma")]
    )  # fmt: skip
    subtasks = [
        add_done_subtask(connection, outputs)
        for outputs in ({"alpha": "one", "beta": "two", "gamma": "two"}, {"alpha": "same", "beta": "same"}, {"alpha": "x"})
    ]  # fmt: skip

    groups = groups_of(contests_done(connection, "text-generation", 10))

    (found,) = groups
    assert (found.key, found.field, found.input) == (
        str(subtasks[0]),
        "answers",
        {"text": "Say it.", "attachments": []},
    )
    assert found.items == [{"said": "one", "models": ["alpha"]}, {"said": "two", "models": ["beta", "gamma"]}]
    assert contests_done(connection, "image-to-text", 10) == []


def add_done_subtask(connection: Connection, outputs: dict[str, str]) -> UUID:
    task = connection.execute(text("INSERT INTO task (request) VALUES ('Say it.') RETURNING id")).scalar_one()
    subtask = connection.execute(
        text(
            "INSERT INTO subtask (task_id, position, name, capability, inputs, source, priority, candidates_wanted, judge, "
            "status, finished_at) VALUES (:task, 0, 'only', 'text-generation', '[{\"request\": true}]', 's', 0, 3, 'j', "
            "'done', now()) RETURNING id"
        ),
        {"task": task},
    ).scalar_one()
    for rank, (model, output) in enumerate(outputs.items()):
        connection.execute(
            text(
                "INSERT INTO candidate (subtask_id, model, rank, status, output, message_id, finished_at) "
                "VALUES (:subtask, :model, :rank, 'done', :output, gen_random_uuid(), now())"
            ),
            {"subtask": subtask, "model": model, "rank": rank, "output": output},
        )
    return UUID(str(subtask))


@pytest.fixture
def annotate(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """`bakeoff annotate` in this process; returns what it prints."""
    for name, value in installation.environment.items():
        monkeypatch.setenv(name, value)
    load_settings.cache_clear()

    def run(*arguments: str) -> str:
        return CliRunner().invoke(app, ["annotate", *arguments], catch_exceptions=False).stdout

    yield run
    load_settings.cache_clear()


def test_the_commands_load_score_report_and_export(annotate: Callable[..., str], tmp_path: Path) -> None:
    file, out = tmp_path / "groups.jsonl", tmp_path / "scored.jsonl"
    file.write_text(json.dumps({"id": "000000000001", "image": "1.jpg", "questions": ITEMS, "score": [0.5] * 5}) + "\n")

    loaded = json.loads(annotate("load", str(file), "--name", "mine", "--twice", "1", "--json"))
    shown = json.loads(annotate("next", "mine", "--annotator", "ann", "--json"))
    scores = json.dumps([all_at(len(texts[0]) / 100) for texts in shown["items"]])
    scored = annotate("score", "mine", "--annotator", "ann", "--group", shown["group"], "--scores", scores, "--json")
    written = annotate("export", "mine", "--out", str(out), "--json")

    assert loaded == {"set": "mine", "criteria": "criteria-1", "new": 1, "known": 0}
    assert json.loads(scored)["finished"] is True
    assert json.loads(written) == {"groups": 1, "items": 5}
    (row,) = map(json.loads, out.read_text().splitlines())
    assert (row["id"], row["image"], row["questions"]) == ("000000000001", "1.jpg", ITEMS)
    assert row["score"] == [0.07, 0.11, 0.12, 0.1, 0.12]
    (trained_on,) = read_source(out).groups  # what `bakeoff reward train` makes of it
    assert (trained_on.scores, len(trained_on.pairs)) == (tuple(row["score"]), 9)  # of ten pairs, one ties
    assert json.loads(annotate("next", "mine", "--annotator", "ann", "--json")) == {"group": None}
    assert "0 of 1 groups finished, 1 of 2 annotations" in annotate("status", "mine")
    assert annotate("status") == "mine\n"


def test_a_session_in_the_terminal_is_left_resumed_undone_and_finished(installation: Installation) -> None:
    engine = installation.engine()
    with engine.begin() as connection:
        made(connection, group("g", ["one thing?", "another?"]), group("h", ["a third?", "a fourth?"]), name="mine")
    engine.dispose()

    left = _session(installation, "what?", ".1 .2 .3 .4 .5", "q")
    assert "5 numbers from 0 to 1" in left
    assert "goes on where you were" in left
    back_in_the_group, second_item = ["u", ""], "1 1 1 1 1"
    undone = ["u", "0 0 0 0 0", ""]  # the first item of the group before gets other scores, the second keeps its own
    resumed = _session(installation, *back_in_the_group, second_item, *undone, "s")
    assert "[0.1 0.2 0.3 0.4 0.5]" in resumed
    assert "Nothing in mine waits for ann" in resumed

    (row,) = installation.query("SELECT scores FROM annotation WHERE status = 'done'")
    assert sorted(one["clear"] for one in row[0]) == [0, 1]
    assert installation.query("SELECT status FROM annotation WHERE status <> 'done'") == [("skipped",)]


def _session(installation: Installation, *lines: str) -> str:
    done = subprocess.run(
        installation.command("annotate", "mine", "--annotator", "ann"), env=installation.environment,
        input="\n".join(lines) + "\n", capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout
