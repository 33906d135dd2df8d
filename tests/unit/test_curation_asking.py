"""Which tasks of a curation job are asked again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from db.curation_records import Record
from db.curation_tasks import Outcome, merged
from scheduler.curation.recipe import Input
from scheduler.curation.stages.answers import Answers, AnswersOptions
from scheduler.curation.stages.asking import Ask


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, 1),
        ({"models": ["alpha", "beta"]}, 2),
        ({"models": ["alpha", "alpha", "beta"]}, 2),
        ({"models": ["alpha", "beta", "gamma"], "candidates": 2}, 2),
        ({"candidates": 3}, 1),
    ],
)
def test_a_task_wants_the_models_that_it_can_have(options: dict[str, Any], wanted: int) -> None:
    assert Ask(turn=0, request="What?", capability="text-generation", options=options).wants == wanted


@pytest.mark.parametrize(("status", "again"), [("failed", []), ("done", []), ("cancelled", None)])
def test_what_somebody_cancelled_is_not_asked_again(status: str, again: list[Any] | None) -> None:
    # given a task that nobody was asked, while nobody is there to be asked
    stage = Answers("answers", 1, AnswersOptions(models=("alpha", "beta")))
    stage.names = Input(file=Path("x"))
    record = Record(position=0, key="", type="", data={"instruction": "What is it?", "output": "It is so."})
    outcome = Outcome(status=status, error=None, asked=0, said=[])

    # when
    found = stage._again(None, record, [("answers/0/0", outcome)], frozenset())  # type: ignore[arg-type] # nobody: no run

    # then it waits for somebody, or is settled as it is
    assert found == again


def test_who_was_asked_is_known_after_the_tasks_are_pruned() -> None:
    before = {"models": {"alpha": "r1"}, "judges": {"number": {"method": "scripted", "model": None, "prompt": "p-1"}}}
    after = {
        "models": {"alpha": "r2", "beta": ""},
        "judges": {"number": {"method": "scripted", "model": None, "prompt": "p-1"}},
    }

    assert merged(before, {"models": {}, "judges": {}}) == before
    assert merged(before, after) == {**before, "models": {"alpha": "r1 r2", "beta": ""}}
