"""What an answer must hold, from the request to the verdict: checks come before the judge, and the verdict says so."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner

from db import candidates as c
from db.errors import InvalidRequest
from db.queries import task_situation, task_story
from db.settings import Settings
from db.tasks import lock_pending
from db.workers import sync_registry
from scheduler.cli import app
from scheduler.cli.output import console
from scheduler.cli.story import print_story
from scheduler.planning import plan_pending
from scheduler.submit import NewTask, submit
from tests.conftest import SCRIPTED
from tests.integration.test_rules import plan, send
from tests.integration.test_transitions import charge, claim, rows, run, store
from worker.judges import Decision, Question
from worker.judging import judge_wave
from worker.process import ModelProcess
from worker.role import WorkerRole

pytestmark = pytest.mark.integration

JSON_ONLY = {"checks": [{"check": "json"}]}
RUBRIC = """
[judges.marks]
method = "llm_rubric"
model = "alpha"

[judges.second]
method = "scripted"
"""


@pytest.fixture
def settings(tmp_path: Path, database: Engine) -> Settings:
    models_file = tmp_path / "models.toml"
    models_file.write_text(SCRIPTED + RUBRIC)
    url = database.url.render_as_string(hide_password=False)
    settings = Settings(models_file=models_file, profile="demo", database_url=url)
    with database.begin() as connection:
        sync_registry(connection, settings.registry)
    return settings


@pytest.fixture
def process(settings: Settings, database: Engine) -> ModelProcess:
    return ModelProcess(settings, WorkerRole(name="judge", judge=True), database)


def answered(database: Engine, answers: dict[str, str], **changes: Any) -> tuple[UUID, list[UUID]]:
    """A task whose only subtask waits for a judge, with these outputs by model."""
    task = plan(database, **changes)
    messages = send(database, task, *answers)
    for message in messages:
        finish(database, message, answers[message.model])
    return task, messages[0].subtask_ids


def finish(database: Engine, message: c.Message, output: str) -> None:
    got = claim(database, message)
    charge(database, got)
    store(database, got, output=output)


def judged(process: ModelProcess, database: Engine, answers: dict[str, str], **changes: Any) -> dict[str, Any]:
    """The subtask of a task's story, once it is judged."""
    task, subtasks = answered(database, answers, **changes)
    judge_wave(process, uuid4(), subtasks)
    with database.begin() as connection:
        (subtask,) = task_story(connection, task)["subtasks"]
    assert subtask["status"] == "done"
    told: dict[str, Any] = subtask
    return told


def watched(process: ModelProcess, judge: str = "longest") -> list[Question]:
    """What a judge is asked from now on."""
    asked: list[Question] = []
    one: Any = process.judge(judge)
    decide: Callable[[Question], Decision] = one.decide

    def noting(question: Question) -> Decision:
        asked.append(question)
        return decide(question)

    one.decide = noting
    return asked


# --- checks first


def test_what_fails_a_check_cannot_win_whatever_the_judge_likes(process: ModelProcess, database: Engine) -> None:
    # given a judge that likes what is long, and the longest answer is no JSON
    answers = {"alpha": "[1, 2]", "beta": "a long story about nothing", "gamma": "[1]"}
    asked = watched(process)
    subtask = judged(process, database, answers, expect=JSON_ONLY)
    # then it is asked about the others alone, and the verdict tells who failed and why
    verdict = subtask["verdict"]
    assert [[one.model for one in question.answers] for question in asked] == [["alpha", "gamma"]]
    assert verdict["ranking"] == ["alpha", "gamma", "beta"]
    assert set(verdict["scores"]) == {"alpha", "gamma"}
    by_model = {one["model"]: one for one in verdict["checks"]}
    assert (by_model["alpha"]["failed"], by_model["beta"]["failed"]) == ([], ["json"])
    assert by_model["beta"]["why"][0].startswith("it is no JSON: ")
    assert "Out by the checks: beta: json" in verdict["reason"]
    assert not subtask["needs_review"]


def test_where_one_alone_passes_nobody_is_asked(process: ModelProcess, database: Engine) -> None:
    asked = watched(process)
    subtask = judged(process, database, {"alpha": "no", "beta": "nor this", "gamma": "{}"}, expect=JSON_ONLY)
    assert asked == []
    assert (subtask["verdict"]["winner"], subtask["verdict"]["method"]) == ("gamma", "only_passing")
    (judge,) = rows(database, "SELECT consecutive_failures FROM judge WHERE name = 'longest'")
    assert judge.consecutive_failures == 0


def test_where_all_fail_the_judge_ranks_them_all_and_a_person_is_asked_for(
    process: ModelProcess, database: Engine
) -> None:
    subtask = judged(process, database, {"alpha": "no", "beta": "neither is this"}, expect=JSON_ONLY)
    assert subtask["verdict"]["ranking"] == ["beta", "alpha"]
    assert "No answer holds what was asked: alpha: json" in subtask["verdict"]["reason"]
    assert subtask["needs_review"]
    assert rows(database, "SELECT needs_review FROM results")[0].needs_review


def test_a_single_answer_that_fails_wins_and_the_verdict_says_what_it_lacks(
    process: ModelProcess, database: Engine
) -> None:
    subtask = judged(process, database, {"alpha": "no"}, expect=JSON_ONLY)
    assert subtask["verdict"]["method"] == "only_candidate"
    assert "No answer holds what was asked: alpha: json" in subtask["verdict"]["reason"]
    assert subtask["verdict"]["checks"][0]["failed"] == ["json"]
    assert subtask["needs_review"]


def test_a_fallback_goes_by_the_checks_as_well(process: ModelProcess, database: Engine) -> None:
    answers = {"alpha": "confuse the judge", "beta": '"confuse the judge"', "gamma": "[1]"}
    task, subtasks = answered(database, answers, expect=JSON_ONLY)
    for _ in range(3):
        run(database, "UPDATE subtask SET not_before = now()")
        judge_wave(process, uuid4(), subtasks)
    with database.begin() as connection:
        verdict = task_story(connection, task)["subtasks"][0]["verdict"]
    assert (verdict["winner"], verdict["fallback"]) == ("beta", True)


def test_what_is_expected_by_another_version_is_not_checked_and_harms_nobody(
    process: ModelProcess, database: Engine
) -> None:
    subtask = judged(process, database, {"alpha": "a", "beta": "bb"}, expect={"checks": [{"check": "of tomorrow"}]})
    assert (subtask["verdict"]["winner"], subtask["verdict"]["checks"]) == ("beta", None)


def test_a_person_sees_what_was_expected_and_who_failed(process: ModelProcess, database: Engine) -> None:
    expect = {**JSON_ONLY, "components": [{"description": "names the river", "weight": 2}]}
    task, subtasks = answered(database, {"alpha": "no", "beta": "[]", "gamma": "[1]"}, expect=expect)
    judge_wave(process, uuid4(), subtasks)
    with database.begin() as connection, console.capture() as captured:
        print_story(task_story(connection, task))
    printed = captured.get()
    assert "expects json; names the river (2)" in printed
    assert "fails json" in printed


# --- from the request


def stored(settings: Settings, database: Engine, **task: Any) -> Sequence[Any]:
    submit(settings, NewTask(**task), needs_worker=False)
    with database.begin() as connection:
        plan_pending(connection, settings, 10)
    return rows(database, "SELECT name, expect, judge, next_judges FROM subtask ORDER BY position")


def test_a_task_says_what_it_expects_and_who_judges_in_a_row(settings: Settings, database: Engine) -> None:
    expect = {"checks": [{"check": "json", "schema": {"type": "object"}}, {"check": "length", "most": 9}]}
    (subtask,) = stored(
        settings, database, request="x", capability="text-generation",
        options={"expect": expect, "judge": ["second", "longest"]},
    )  # fmt: skip
    assert subtask.expect == expect
    assert (subtask.judge, subtask.next_judges) == ("second", ["longest"])


def test_what_a_task_expects_is_asked_of_the_steps_that_nobody_reads(settings: Settings, database: Engine) -> None:
    # given a plan of two steps, the first of which the second reads, and a third with its own expectation
    steps = [
        {"id": "draft", "capability": "text-generation", "inputs": [{"request": True}]},
        {"id": "final", "capability": "text-generation", "inputs": [{"output": "draft"}]},
        {"id": "own", "capability": "text-generation", "inputs": [{"request": True}],
         "options": {"expect": {"checks": [{"check": "number"}]}}},
    ]  # fmt: skip
    found = stored(settings, database, request="x", options={"expect": JSON_ONLY, "subtasks": steps})
    assert {row.name: row.expect for row in found} == {
        "draft": None, "final": JSON_ONLY, "own": {"checks": [{"check": "number"}]},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"expect": {"cheks": []}}, "options.expect.cheks is unknown; there are: checks, components."),
        ({"judge": ["longest", "longest"]}, "names 'longest' twice"),
        ({"judge": ["longest", "nobody"]}, "options.judge = 'nobody' is unknown; there are: "),
        ({"judge": []}, "names nobody"),
        ({"judge": {"first": "longest"}}, "is neither the name of a judge nor a list of names"),
        ({"judge": "marks"}, "options.expect.components"),
        ({"judge": "marks", "expect": JSON_ONLY}, "options.expect.components"),
    ],
)
def test_what_cannot_be_is_refused_at_the_door(settings: Settings, options: dict[str, Any], words: str) -> None:
    task = NewTask(request="x", capability="text-generation", options=options)
    with pytest.raises(InvalidRequest, match=words.replace("(", r"\(")):
        submit(settings, task, needs_worker=False)


def test_a_rubric_takes_the_components_of_its_task(settings: Settings, database: Engine) -> None:
    expect = {"components": [{"description": "be short"}]}
    (subtask,) = stored(
        settings, database, request="x", capability="text-generation", options={"judge": "marks", "expect": expect}
    )
    assert (subtask.judge, subtask.expect) == ("marks", expect)


def test_a_rubric_of_the_task_marks_its_answer_and_others_judge_what_leads_there(
    settings: Settings, database: Engine
) -> None:
    # given a plan of two steps, and a judge that marks what the task expects of its answer
    expect = {"components": [{"description": "be short"}]}
    steps = [
        {"id": "draft", "capability": "text-generation", "inputs": [{"request": True}]},
        {"id": "final", "capability": "text-generation", "inputs": [{"output": "draft"}]},
    ]
    found = stored(settings, database, request="x", options={"expect": expect, "judge": "marks", "subtasks": steps})
    assert {row.name: (row.judge, row.expect) for row in found} == {
        "draft": ("longest", None), "final": ("marks", expect),
    }  # fmt: skip


def test_a_row_with_an_expectation_that_is_none_fails_with_the_reason(settings: Settings, database: Engine) -> None:
    options = json.dumps({"expect": {"checks": [{"check": "smell"}]}})
    run(database, "INSERT INTO task (request, capability, options) VALUES ('x', 'text-generation', CAST(:o AS jsonb))",
        o=options)  # fmt: skip
    with database.begin() as connection:
        assert lock_pending(connection, 1)
        plan_pending(connection, settings, 10)
    (task,) = rows(database, "SELECT status, error FROM task")
    assert (task.status, task.error["code"]) == ("failed", "invalid_request")
    assert "'smell'" in task.error["message"]


def test_the_situation_names_who_is_asked_next(database: Engine, settings: Settings) -> None:
    task, _ = answered(database, {"alpha": "a", "beta": "b"}, judge="second", next_judges=("longest",))
    with database.begin() as connection:
        (subtask,) = task_situation(connection, task)["subtasks"]
    assert (subtask["judge"], subtask["next_judges"], subtask["failed_judges"]) == ("second", ["longest"], [])


def test_the_command_line_says_both(
    settings: Settings, database: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.cli.tasks.load_settings", lambda: settings)
    file = tmp_path / "expect.json"
    file.write_text(json.dumps(JSON_ONLY))
    shared = ["submit", "x", "-c", "text-generation", "--without-worker"]
    runner = CliRunner()
    for more in (["--expect", str(file), "--judge", "second", "--judge", "longest"],
                 ["--expect", json.dumps(JSON_ONLY), "--judge", "second"]):  # fmt: skip
        runner.invoke(app, [*shared, *more], catch_exceptions=False)
    wrong = runner.invoke(app, [*shared, "--expect", "nowhere.json"])

    options = [row.options for row in rows(database, "SELECT options FROM task ORDER BY id")]
    assert options == [
        {"expect": JSON_ONLY, "judge": ["second", "longest"]},
        {"expect": JSON_ONLY, "judge": "second"},
    ]
    assert str(wrong.exception).startswith("--expect: cannot read nowhere.json")
