"""`bakeoff reward train`, `eval` and `card`, on preferences from a real database and from a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from sqlalchemy import Engine, text
from typer.testing import CliRunner, Result

from db.engine import transaction
from db.errors import UsageError
from db.prefer import NewPreference, Side, store_preferences
from db.settings import load_settings
from scheduler.cli.reward import register
from tests.unit.tiny_models import bert

pytestmark = pytest.mark.integration

REGISTRY = """
[models.tiny]
capability = "feature-extraction"
backend = "transformers"
source = {{ folder = "{folder}" }}

[capabilities.feature-extraction]
input = "text"
output = "vector"
instruction = "Embed the text."
judge = "j"

[judges.j]
method = "scripted"

[profiles.demo]
models = ["tiny"]
"""


@pytest.fixture
def place(database: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A registry with a tiny encoder, and forty requests of which the shouted answer was preferred."""
    models_file = tmp_path / "models.toml"
    models_file.write_text(REGISTRY.format(folder=bert(tmp_path / "bert")))
    preferences = [
        NewPreference(
            capability="text-generation",
            text=f"Request {number}",
            better=Side(text=f"YES {number} IT IS"),
            worse=Side(text=f"no {number} it is not"),
        )
        for number in range(40)
    ]
    with transaction(database) as connection:
        connection.execute(text("DELETE FROM preference"))
        store_preferences(connection, preferences)
    monkeypatch.setenv("BAKEOFF_DATABASE_URL", database.url.render_as_string(hide_password=False))
    monkeypatch.setenv("BAKEOFF_MODELS_FILE", str(models_file))
    monkeypatch.setenv("BAKEOFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BAKEOFF_THREADS", "1")
    load_settings.cache_clear()
    yield tmp_path
    load_settings.cache_clear()


def invoke(*arguments: str) -> Result:
    app = typer.Typer()
    register(app)
    return CliRunner().invoke(app, ["reward", *arguments])


def test_stored_preferences_make_a_model_that_a_file_measures(place: Path) -> None:
    # given a model of this system's own preferences
    out = place / "mine"
    done = invoke(
        *("train", "--stored", "text-generation", "--out", str(out), "--base", "tiny", "--rate", "0.003"),
        *("--members", "1", "--folds", "2", "--json"),
    )
    assert done.exit_code == 0, done.output
    card = json.loads(done.stdout)["card"]
    assert card["for"] == "answers"
    assert card["data"][0]["file"] == "stored preferences, text-generation"

    # when it is measured on a file
    file = place / "pairs.jsonl"
    rows = [
        {"instruction": f"Ask {n}", "output_1": f"no {n}", "output_2": f"YES {n}", "label": 2 if n else 0}
        for n in range(9)
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    found = json.loads(invoke("eval", str(out), str(file), "--json").stdout)

    # then pairs and keys are as promised, and the card is there for people and programs
    keys = [
        "pairwise_accuracy",
        "interval",
        "pairs",
        "longest",
        "random",
        "spearman_between_images",
        "kept_human_score",
    ]
    assert set(keys) <= set(found)
    assert found["pairs"] == 8
    assert found["kept_human_score"] is None
    assert "never saw an image" in invoke("card", str(out)).stdout
    assert json.loads(invoke("card", str(out), "--json").stdout) == card
    assert "Pairwise accuracy" in invoke("eval", str(out), str(file)).stdout


def test_what_cannot_be_trained_is_said_in_a_sentence(place: Path) -> None:
    nothing = invoke("train", "--out", str(place / "x"))
    unknown = invoke("train", "--stored", "translation", "--out", str(place / "x"))

    assert isinstance(nothing.exception, UsageError)
    assert "name a file" in str(nothing.exception)
    assert "bakeoff prefer" in str(unknown.exception)
    untuned = invoke(
        "train", "--stored", "text-generation", "--mode", "head", "--epochs", "3", "--out", str(place / "x")
    )
    assert "--mode head tunes no network" in str(untuned.exception)
