"""From a request to an answer through real processes: planned, run as a DAG, judged, integrated; and what goes wrong."""

from __future__ import annotations

import io
import json
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.conftest import SCRIPTED, Installation, make_installation, wait_until

pytestmark = pytest.mark.integration

PLANS = {
    "read and tell": [
        {"id": "read", "capability": "image-to-text/ocr", "inputs": [{"attachment": 0}]},
        {"id": "tell", "capability": "text-generation", "inputs": [{"text": "Tell:"}, {"output": "read"}]},
    ],
    "no such tool": [{"id": "a", "capability": "mind-reading", "inputs": [{"request": True}]}],
    "just talk": [],
    "half of it fails": [
        {"id": "good", "capability": "text-generation", "inputs": [{"text": "fine"}]},
        {"id": "bad", "capability": "text-generation", "inputs": [{"text": "all fail"}]},
        {"id": "after", "capability": "text-generation", "inputs": [{"output": "bad"}]},
    ],
}


def rule(match: str, plan: Any) -> str:
    return f"{{ match = '''{match}''', answer = '''{json.dumps({'steps': plan})}''' }}"


#: A request stands in <request> tags at the end of the prompt; finished steps of a stepwise plan after it.
RULES = ",\n  ".join(
    [
        rule(r"work through(?s:.)*Finished steps:\s*- s1(?s:.)*- s2", []),
        rule(
            r"work through(?s:.)*Finished steps:\s*- s1",
            [{"id": "x", "capability": "text-generation", "inputs": [{"text": "Tell:"}, {"output": "s1"}]}],
        ),
        rule(
            r"work through(?s:.)*Finished steps:\s*none",
            [{"id": "x", "capability": "image-to-text/ocr", "inputs": [{"attachment": 0}]}],
        ),
        '{ match = "kills? the planner", fail = "kill" }',
        *(rule(f"<request>{name}</request>", plan) for name, plan in PLANS.items()),
        """{ match = "Which of them suit", answer = '["beta", "gamma"]' }""",
        '{ match = "nobody can answer", fail = "model" }',
        '{ match = "These are the results", answer = "Here it is [read]." }',
    ]
)

PLANNED = f"""
{SCRIPTED.replace('"lonely"]', '"lonely"]' + chr(10) + 'planner = "writes"' + chr(10) + 'integrator = "tells"')}

[capabilities.question-answering]
input = "text"
instruction = "Think."
judge = "longest"

[models.thinker]
capability = "question-answering"
backend = "scripted"

[models.thinker.params]
answer = "I do not know."
rules = [
  {RULES}
]

[planners.writes]
method = "llm"
model = "thinker"

[planners.steps]
method = "stepwise"
model = "thinker"

[integrators.tells]
method = "llm"
model = "thinker"

[integrators.lists]
method = "report"
"""


@pytest.fixture(scope="module")
def planning(
    servers: tuple[str, str], template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """An installation with a planner and an integrator, which share one process."""
    for made in make_installation(servers, tmp_path_factory.mktemp("planning"), template, PLANNED):
        made.start("thinker", "worker", "--planner", "--integrator")
        made.start_all()
        made.wait_ready(8)
        yield made


@pytest.fixture
def picture(tmp_path: Path) -> str:
    out = io.BytesIO()
    Image.new("RGB", (20, 10), "white").save(out, "PNG")
    (tmp_path / "sign.png").write_bytes(out.getvalue())
    return str(tmp_path / "sign.png")


def ask(planning: Installation, *arguments: str, code: int = 0) -> Any:
    done = planning.run("submit", *arguments, "--wait", "--timeout", "40", "--json")
    assert done.code == code, done.err + planning.logs()
    return done.json


def plan_file(tmp_path: Path, subtasks: Any) -> str:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(subtasks))
    return str(path)


def by_name(story: Mapping[str, Any]) -> dict[str, Any]:
    return {subtask["name"]: subtask for subtask in story["subtasks"]}


# --- planned ------------------------------------------------------------------------------------------------------


def test_a_request_becomes_a_dag_whose_winners_feed_what_waits_for_them(planning: Installation, picture: str) -> None:
    # when a request is planned: read a picture, then tell about what it says
    story = ask(planning, "read and tell", "--attach", picture)

    # then the second step read what the first one's winner said, and the judge was shown it, too
    steps = by_name(story)
    assert story["status"] == "done"
    assert steps["read"]["verdict"]["winner"] == "reader-b"
    assert {c["model"]: c["output"] for c in steps["tell"]["candidates"]} == {
        "alpha": "alpha: Tell:\n\nread the picture sign.png",
        "beta": "beta says more: Tell:\n\nread the picture sign.png",
        "gamma": "Tell:\n\nread the picture sign.png",
    }
    assert (steps["read"]["needs"], steps["tell"]["needs"]) == ([], ["read"])
    # and the integrator wrote the answer, with its sources
    assert story["answer"] == "Here it is [read].\n\nSources: [read] reader-b; [tell] beta"
    assert story["integration"] | {"seconds": 0} == {
        "integrator": "tells",
        "method": "llm",
        "model": "thinker",
        "prompt_version": "integrate-1",
        "usage": story["integration"]["usage"],
        "seconds": 0,
    }
    # and the plan keeps who made it, and what the model wrote
    assert (story["plan"]["planner"], story["plan"]["method"], story["plan"]["model"]) == ("writes", "llm", "thinker")
    assert json.loads(story["plan"]["written"][0])["steps"] == PLANS["read and tell"]


def test_show_tells_the_whole_story(planning: Installation, picture: str) -> None:
    story = ask(planning, "read and tell", "--attach", picture)

    shown = planning.run("show", story["id"]).out
    drawn = planning.run("show", story["id"], "--mermaid").out

    for part in ("writes, llm, thinker", "tell ← read", "proposed by", "priority 1", "verdict", "model call(s)"):
        assert part in shown
    assert drawn.splitlines()[0] == "flowchart TD"
    assert '["read: image-to-text/ocr (reader-b)"]' in drawn
    assert "s0 --> s1" in drawn


def test_a_request_without_a_step_is_answered_in_words(planning: Installation) -> None:
    story = ask(planning, "just talk")

    (only,) = story["subtasks"]
    assert (only["capability"], story["answer"]) == ("text-generation", "beta says more: just talk")
    assert story["integration"] is None


def test_a_plan_that_cannot_run_is_asked_for_again_then_refused_with_what_was_written(planning: Installation) -> None:
    story = ask(planning, "no such tool", code=1)

    assert (story["status"], story["error"]["code"]) == ("failed", "invalid_plan")
    assert "mind-reading" in story["error"]["message"]
    assert len(story["plan"]["written"]) == 2
    assert story["subtasks"] == []


def test_a_failed_step_fails_only_what_needs_it_and_the_integrator_is_told(planning: Installation) -> None:
    story = ask(planning, "half of it fails")

    assert {name: step["status"] for name, step in by_name(story).items()} == {
        "good": "done",
        "bad": "failed",
        "after": "skipped",
    }
    assert story["status"] == "done"
    assert "Sources: [good] beta\nNot available: [bad] no candidate succeeded" in story["answer"]
    assert story["error"]["code"] == "subtasks_failed"


def test_a_task_is_planned_step_by_step_from_what_came_back(planning: Installation, picture: str) -> None:
    story = ask(planning, "work through it", "--attach", picture, "--planner", "steps", "--max-calls", "9")

    steps = by_name(story)
    assert list(steps) == ["s1", "s2"]
    assert steps["s2"]["candidates"][0]["output"].endswith("Tell:\n\nread the picture sign.png")
    assert (story["plan"]["more"], len(story["plan"]["written"])) == (False, 3)
    assert "Sources: [s1] reader-b; [s2] beta" in story["answer"]


def test_a_plan_that_cost_its_planner_the_process_fails_its_task_alone(planning: Installation) -> None:
    # given a request that kills whoever plans it, and one behind it
    killer = planning.run("submit", "it kills the planner", "--json").json["id"]
    other = ask(planning, "just talk")

    # then the other one is answered, and the first is given up after its attempts
    assert other["status"] == "done"
    rows = []

    def over() -> bool:
        rows[:] = planning.query("SELECT status, error, attempt FROM task WHERE id = :id", id=killer)
        return rows[0].status == "failed"

    wait_until(over, 90, planning.logs)
    assert (rows[0].error["code"], rows[0].attempt) == ("planner_failed", 3)


# --- given by the caller ------------------------------------------------------------------------------------------


def test_a_callers_plan_runs_without_a_planner(planning: Installation, picture: str, tmp_path: Path) -> None:
    plan = plan_file(tmp_path, PLANS["read and tell"])

    story = ask(planning, "mine", "--attach", picture, "--plan", plan, "--integrate", "lists")

    assert story["plan"]["method"] == "explicit"
    assert story["answer"].startswith("read (reader-b):\nread the picture sign.png\n\ntell (beta):\nbeta says more")
    assert story["integration"]["method"] == "report"


@pytest.mark.parametrize(
    ("subtasks", "sentence"),
    [
        ([{"id": "a", "capability": "text-generation", "inputs": [{"output": "b"}]}], "'b'"),
        ([{"id": "a", "capability": "automatic-speech-recognition", "inputs": [{"attachment": 0}]}], "audio"),
        (
            [
                {"id": "a", "capability": "text-generation", "inputs": [{"output": "b"}]},
                {"id": "b", "capability": "text-generation", "inputs": [{"output": "a"}]},
            ],
            "in a circle: a → b → a",
        ),
        (
            [{"id": "a", "capability": "text-generation", "inputs": [{"request": True}], "options": {"max_calls": 3}}],
            "options.max_calls is not an option of a step",
        ),
        ([{"id": "a", "capability": "text-generation", "inputs": [{"request": True}], "extra": 1}], "extra"),
        ([], "holds no subtasks"),
        ({"steps": PLANS["read and tell"]}, "holds no subtasks"),
    ],
)
def test_a_callers_plan_that_cannot_run_is_refused_at_the_door(
    planning: Installation, picture: str, tmp_path: Path, subtasks: Any, sentence: str
) -> None:
    refused = planning.run("submit", "x", "--attach", picture, "--plan", plan_file(tmp_path, subtasks))

    assert refused.code == 2
    assert sentence in refused.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("",), "The request is empty and nothing is attached"),
        (("x", "--model", "nonesuch"), "options.models names 'nonesuch'"),
        (("x", "--judge", "nobody"), "options.judge = 'nobody' is unknown"),
        (("x", "--planner", "nobody"), "options.planner = 'nobody' is unknown; there are: writes, steps, none"),
    ],
)
def test_what_no_planner_could_make_right_is_refused_at_the_door(
    planning: Installation, arguments: tuple[str, ...], sentence: str
) -> None:
    refused = planning.run("submit", *arguments)

    assert refused.code == 2
    assert sentence in refused.err


def test_plans_come_in_with_sql_too(planning: Installation) -> None:
    options = {"subtasks": PLANS["half of it fails"][:1], "integrate": "none"}
    (row,) = planning.query(
        "INSERT INTO task (request, options) VALUES ('by sql', CAST(:o AS jsonb)) RETURNING id", o=json.dumps(options)
    )

    wait_until(
        lambda: planning.query("SELECT FROM results WHERE task_id = :t AND status = 'done'", t=row.id),
        30,
        planning.logs,
    )
    (result,) = planning.query("SELECT answer, needs_review FROM results WHERE task_id = :t", t=row.id)
    assert (result.answer, result.needs_review) == ("beta says more: fine", False)


# --- bounds -------------------------------------------------------------------------------------------------------


def test_max_calls_cuts_k_and_says_so(planning: Installation, tmp_path: Path) -> None:
    steps = [{"id": name, "capability": "text-generation", "inputs": [{"request": True}]} for name in "ab"]

    story = ask(planning, "cheap", "--plan", plan_file(tmp_path, steps), "--max-calls", "3")

    a, b = story["subtasks"]
    assert (len(a["candidates"]), len(b["candidates"])) == (2, 1)
    assert b["note"] == "1 of 3 candidates: max_calls = 3"
    refused = planning.run("submit", "cheap", "--plan", plan_file(tmp_path, steps), "--max-calls", "1")
    assert (refused.code, "below one call for each of the 2 subtasks" in refused.err) == (2, True)


def test_what_is_late_after_the_quorum_is_cancelled(planning: Installation) -> None:
    # given a model that sleeps, a quorum of two, and next to no patience
    story = ask(planning, "slow", "-c", "text-generation", "--quorum", "2", "--grace", "0", "--param", "n=1")

    statuses = {c["model"]: c["status"] for c in story["subtasks"][0]["candidates"]}
    assert statuses["beta"] == statuses["gamma"] == "done"
    if statuses["alpha"] == "cancelled":  # a busy machine may be slower than the sleeper
        (alpha,) = (c for c in story["subtasks"][0]["candidates"] if c["model"] == "alpha")
        assert alpha["error"]["code"] in {"late", "decided"}


def test_a_verdict_that_is_not_sure_enough_is_flagged(planning: Installation) -> None:
    story = ask(planning, "unsure", "-c", "text-generation", "--min-confidence", "1")

    assert (story["status"], story["needs_review"], story["subtasks"][0]["needs_review"]) == ("done", True, True)


def test_a_language_model_ranks_models_where_a_task_asks_for_it(planning: Installation) -> None:
    story = ask(planning, "rank", "-c", "text-generation", "--selector", "llm", "--candidates", "2")

    candidates = story["subtasks"][0]["candidates"]
    assert [(c["model"], c["proposed_by"]) for c in candidates] == [
        ("beta", [{"selector": "llm", "rank": 0}]),
        ("gamma", [{"selector": "llm", "rank": 1}]),
    ]


def test_an_answer_that_nobody_can_write_is_the_results_as_they_are(planning: Installation, tmp_path: Path) -> None:
    steps = [{"id": name, "capability": "text-generation", "inputs": [{"request": True}]} for name in "ab"]

    story = ask(planning, "nobody can answer", "--plan", plan_file(tmp_path, steps), "--integrate", "tells")

    assert story["status"] == "done"
    assert story["answer"] == "beta says more: nobody can answer\n\nbeta says more: nobody can answer"
    assert (story["integration"]["method"], story["integration"]["fallback"]) == ("none", True)


def test_tasks_wait_for_a_planner_and_why_says_so(planning: Installation) -> None:
    # given no planner
    planning.stop("thinker", signal.SIGTERM)
    wait_until(lambda: not planning.query("SELECT FROM worker WHERE 'planner' = ANY(queues)"), 20, planning.logs)
    refused = planning.run("submit", "just talk")
    task = planning.run("submit", "just talk", "--without-worker", "--json").json["id"]
    wait_until(
        lambda: planning.query("SELECT FROM task WHERE id = :t AND status = 'planning'", t=task), 20, planning.logs
    )

    # then a new request is refused, one that is stored waits, and says for whom
    assert (refused.code, "No live worker plans" in refused.err) == (3, True)
    assert "start `bakeoff worker --planner`" in planning.run("why", task).out
    # and is planned when one comes
    planning.start("thinker", "worker", "--planner", "--integrator")
    wait_until(lambda: planning.query("SELECT FROM task WHERE id = :t AND status = 'done'", t=task), 40, planning.logs)
