"""Rows of strangers that are too much for Postgres, or for the time of a transaction, hold nobody else up."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from db.settings import Settings
from scheduler.planning import plan_pending
from tests.conftest import SCRIPTED

pytestmark = pytest.mark.integration

STEPS = [f"s{number}" for number in range(32)]


@pytest.fixture
def config(tmp_path: Path) -> Settings:
    models_file = tmp_path / "models.toml"
    models_file.write_text(SCRIPTED)
    return Settings(models_file=models_file, profile="demo")


def store(database: Engine, count: int, request: str, options: dict[str, Any]) -> None:
    with database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO task (request, source, options) SELECT :request, 'stranger', CAST(:options AS jsonb) "
                "FROM generate_series(1, :count)"
            ),
            {"request": request, "options": json.dumps(options), "count": count},
        )


def states(database: Engine) -> dict[str, int]:
    with database.begin() as connection:
        rows = connection.execute(text("SELECT source, status, count(*) AS n FROM task GROUP BY source, status"))
        return {f"{row.source} {row.status}": row.n for row in rows}


def honest(database: Engine) -> None:
    with database.begin() as connection:
        connection.execute(text("INSERT INTO task (request, source) VALUES ('hello', 'honest')"))


def plan(database: Engine, config: Settings) -> float:
    """Plan what is pending in one look; returns the seconds that the transaction took."""
    started = time.monotonic()
    with database.begin() as connection:
        plan_pending(connection, config, 256)
    return time.monotonic() - started


def test_plans_that_read_a_long_request_a_thousand_times_are_not_read_to_be_planned(
    database: Engine, config: Settings
) -> None:
    steps = [{"id": name, "capability": "text-generation", "inputs": [{"request": True}] * 30} for name in STEPS]
    store(database, 5, "x" * 99_000, {"subtasks": steps})
    honest(database)

    plan(database, config)

    assert states(database) == {"stranger running": 5, "honest running": 1}
    with database.begin() as connection:  # nothing that long is kept for the same input again
        keys = connection.execute(text("SELECT count(input_key) FROM subtask WHERE source = 'stranger'")).scalar_one()
    assert keys == 0


def test_a_look_ends_in_time_and_the_next_goes_on(
    database: Engine, config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.planning.LOOK_SECONDS", -1.0)
    for _ in range(3):
        honest(database)

    plan(database, config)
    assert states(database) == {"honest running": 1, "honest pending": 2}
    plan(database, config)
    plan(database, config)

    assert states(database) == {"honest running": 3}


def test_plans_whose_steps_copy_long_params_are_refused(database: Engine, config: Settings) -> None:
    steps = [{"id": name, "capability": "text-generation", "inputs": [{"request": True}]} for name in STEPS]
    store(database, 100, "x", {"subtasks": steps, "params": {"x": [1] * 5500}})
    honest(database)

    while any("pending" in state for state in states(database)):
        plan(database, config)

    assert states(database) == {"stranger failed": 100, "honest running": 1}
    with database.begin() as connection:
        reason = connection.execute(text("SELECT min(error ->> 'message') FROM task WHERE status = 'failed'"))
        assert reason.scalar_one().startswith("The params of the plan's 32 subtasks have")
