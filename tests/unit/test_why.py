"""`bakeoff why` says in one sentence what a task waits for."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from db.registry import Registry, parse_registry
from scheduler.why import Surroundings, why
from tests.conftest import SCRIPTED


@pytest.fixture(scope="module")
def registry() -> Registry:
    return parse_registry(tomllib.loads(SCRIPTED)).restricted_to("demo")


def around(registry: Registry, **changes: Any) -> Surroundings:
    live = frozenset({"model.alpha", "model.beta", "model.gamma", "judge"})
    return Surroundings(**{"registry": registry, "scheduler": True, "live": live, **changes})


def task(status: str = "running", **changes: Any) -> dict[str, Any]:
    return {
        "status": status,
        "error": None,
        "winners": None,
        "starts_in": None,
        "deadline_in": None,
        "subtasks": [],
        **changes,
    }


def subtask(status: str, *candidates: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "name": "text-generation", "capability": "text-generation", "status": status, "judge": "longest", "options": {},
        "next_judges": [], "failed_judges": [],
        "error": None, "due_in": None, "sent": None, "needs": None, "candidates": list(candidates), **changes,
    }  # fmt: skip


def candidate(model: str, status: str, **changes: Any) -> dict[str, Any]:
    return {"model": model, "status": status, "error": None, "attempt": 0, "due_in": None, "sent": None, **changes}


SUSPENDED = {"status": "suspended", "reason": "5 calls failed in a row; the last: no GPU", "probe_in": 42.0}


@pytest.mark.parametrize(
    ("situation", "expected"),
    [
        (task("pending"), "waits for a scheduler"),
        (task("pending", starts_in=3600.0), "run_at, in 60 min"),
        (task("done", winners={"a": {"model": "beta"}}), "done, answered by beta"),
        (task("failed", error={"message": "All failed."}), "is failed. All failed."),
        (task(subtasks=[subtask("ready")]), "waits for its turn"),
        (task(subtasks=[subtask("blocked", needs=["transcribe"])]), "waits for the result of transcribe"),
        (task(subtasks=[subtask("judging")]), "is being judged by longest"),
        (task(subtasks=[subtask("running", candidate("alpha", "running"))]), "alpha, which is at work on it"),
        (task(subtasks=[subtask("running", candidate("alpha", "sent", sent=7.2))]), "alpha, sent 7 s ago"),
        (
            task(subtasks=[subtask("running", candidate("beta", "chosen", due_in=4.0, error={"message": "no"}))]),
            "beta, tried again in 4 s (no)",
        ),
        (task(subtasks=[subtask("running", candidate("alpha", "done"))]), "judge longest, on whose queue it is"),
        (task(subtasks=[subtask("ready")], deadline_in=90.0), "Its deadline is in 90 s."),
        (task(), "put its answer together"),
    ],
)
def test_the_sentence_says_what_it_waits_for(registry: Registry, situation: dict[str, Any], expected: str) -> None:
    assert expected in why(situation, around(registry))


def test_models_that_cannot_be_had_are_named_with_the_reason(registry: Registry) -> None:
    models = {"alpha": {"status": "paused", "reason": "upgrade"}, "beta": SUSPENDED}
    said = why(task(subtasks=[subtask("ready")]), around(registry, live=frozenset({"model.beta"}), models=models))

    assert "alpha is paused (upgrade)" in said
    assert "beta is suspended (5 calls failed in a row; the last: no GPU) and probed in 42 s" in said
    assert "gamma has no live worker (start `bakeoff worker gamma`)" in said


def test_a_candidate_of_a_suspended_model_tells_what_happens_next(registry: Registry) -> None:
    situation = task(subtasks=[subtask("running", candidate("alpha", "done"), candidate("beta", "chosen"))])

    assert "after 2 min another model is asked" in why(situation, around(registry, models={"beta": SUSPENDED}))


def test_a_suspended_judge_and_a_missing_one_are_told_apart(registry: Registry) -> None:
    situation = task(subtasks=[subtask("running", candidate("alpha", "done"))])

    assert "which is suspended (5 calls" in why(situation, around(registry, judges={"longest": SUSPENDED}))
    assert "no worker judges" in why(situation, around(registry, live=frozenset({"model.alpha"})))


def test_without_a_scheduler_nothing_moves_and_it_says_so(registry: Registry) -> None:
    assert why(task("pending"), around(registry, scheduler=False)).startswith("No scheduler works")
