"""`bakeoff judge fit`: preferences in a real database become an artifact that a jury decides by."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from db.engine import transaction
from db.prefer import NewPreference, Side, store_preferences
from db.preferences import capabilities_with_preferences, preferred_texts
from db.registry import JudgeEntry
from db.settings import load_settings
from scheduler.cli.judge import register
from scheduler.evaluation.judges.teaching import lessons_of_preferences
from worker.judges import Answer, Question, create_judge

pytestmark = pytest.mark.integration


@pytest.fixture
def stored(database: Engine) -> Engine:
    """Sixty requests whose polite answer was preferred to the curt one, and two about a capability of little use."""
    preferences = [
        NewPreference(
            capability="text-generation",
            text=f"Request {number}",
            better=Side(text=f"With pleasure: here is all about {number}.", model="polite"),
            worse=Side(text="no", model="curt" if number % 2 else None),
        )
        for number in range(60)
    ]
    few = [
        NewPreference(capability="translation", text=f"{n}", better=Side(text="a"), worse=Side(text="b")) for n in "xy"
    ]
    judged = NewPreference(
        capability="text-generation", text="By a judge", better=Side(text="x"), worse=Side(text="y"), origin="judge"
    )
    with transaction(database) as connection:
        connection.execute(text("DELETE FROM preference"))
        store_preferences(connection, [*preferences, *few, judged])
    return database


def test_texts_are_read_with_their_groups_and_without_what_judges_prefer(stored: Engine) -> None:
    with transaction(stored) as connection:
        found = preferred_texts(connection, "text-generation", 100)
        assert capabilities_with_preferences(connection) == {"text-generation": 61, "translation": 2}
        assert len(preferred_texts(connection, "text-generation", 7)) == 7
    assert len(found) == 60
    assert len({one.group for one in found}) == 60
    assert {(one.better_model, one.worse_model) for one in found} == {("polite", "curt"), ("polite", None)}
    # and preferences about one request are one question
    twice = lessons_of_preferences([*found, *found], "text-generation", "Answer.")
    assert len(twice) == 60
    assert all(sorted(lesson.scores) == [-2.0, 2.0] for lesson in twice)


def test_a_jury_decides_by_what_people_preferred(
    stored: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import typer

    monkeypatch.setenv("BAKEOFF_DATABASE_URL", stored.url.render_as_string(hide_password=False))
    load_settings.cache_clear()
    app = typer.Typer()
    register(app)
    try:
        done = CliRunner().invoke(app, ["judge", "fit", str(tmp_path), "--judge-model", "none", "--json"])
    finally:
        load_settings.cache_clear()
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    # given what was fitted, with its card, and what was too little
    (card,) = said["capabilities"]
    assert (card["capability"], card["groups"]) == ("text-generation", 60)
    assert card["accuracy"] > 0.95
    assert "too few" in said["left_out"]["translation"]
    # then a jury prefers the polite answer, whatever its rank
    judge = create_judge(JudgeEntry(name="j", method="jury", params={"artifact": str(tmp_path)}), None)
    answers = tuple(
        Answer(id=UUID(int=rank), model=model, text=words, rank=rank)
        for rank, (model, words) in enumerate([("curt", "no"), ("new", "With pleasure: it is a colour.")])
    )
    asked = Question(
        id=UUID(int=9), capability="text-generation", instruction="Answer.", request="What is it?", answers=answers
    )
    decision = judge.decide(asked)
    assert decision.ranking[0] == UUID(int=1)
    assert (decision.confidence or 0) > 0.6
