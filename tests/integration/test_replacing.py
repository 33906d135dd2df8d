"""Models that cannot be had: who takes over, and how a suspended one is tried again, by the real scheduler's parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from db import breaker
from db.candidates import Message
from db.registry import ModelEntry
from db.settings import Settings
from db.states import WorkerState
from db.workers import beat, set_worker_state, sync_models, sync_registry
from scheduler.dispatch import Dispatcher
from scheduler.replacing import availability, back_fill, rebind
from tests.conftest import SCRIPTED
from tests.integration.test_rules import RULES, fail, plan, send
from tests.integration.test_transitions import finish_all, rows, run

pytestmark = pytest.mark.integration


class Nowhere:
    """A publisher that keeps what it is given."""

    def __init__(self) -> None:
        self.waves: list[list[str]] = []

    def queue_lengths(self, queues: Sequence[str]) -> dict[str, int]:
        return dict.fromkeys(queues, 0)

    def send_wave(self, messages: Sequence[Message], *_: object) -> None:
        self.waves.append([message.model for message in messages])


@pytest.fixture
def config(tmp_path: Path, database: Engine) -> Settings:
    """The scripted registry, and a ready worker for beta only."""
    models_file = tmp_path / "models.toml"
    models_file.write_text(SCRIPTED)
    made = Settings(models_file=models_file, profile="demo", bind_wait=5, settle_seconds=0, worker_timeout=600)
    with database.begin() as connection:
        sync_registry(connection, made.registry)
    serve(database, "beta")
    return made


def serve(database: Engine, *models: str) -> None:
    with database.begin() as connection:
        for model in models:
            beat(connection, name=model, host="here", pid=1, queues=[f"model.{model}"])
            set_worker_state(connection, model, WorkerState.READY)


def do(database: Engine, rule: Any, *arguments: Any) -> Any:
    with database.begin() as connection:
        return rule(connection, *arguments)


def models_of(database: Engine) -> dict[str, str]:
    return {row.model: row.status for row in rows(database, "SELECT model, status FROM candidate")}


def test_a_candidate_of_a_model_that_left_the_registry_goes_to_another(database: Engine, config: Settings) -> None:
    ghost = ModelEntry(name="ghost", capability="text-generation", backend="scripted")
    do(database, sync_models, [ghost])
    send(database, plan(database), "ghost")
    assert "ghost" in do(database, availability, config).unserved
    run(database, "UPDATE candidate SET sent_at = now() - interval '10 s'")

    do(database, rebind, config)

    assert models_of(database) == {"ghost": "cancelled", "beta": "chosen"}


def test_a_model_that_another_registry_serves_is_left_alone(database: Engine, config: Settings) -> None:
    do(database, sync_models, [ModelEntry(name="ghost", capability="text-generation", backend="scripted")])
    serve(database, "ghost")
    send(database, plan(database), "ghost")

    assert "ghost" not in do(database, availability, config).away


def test_a_worker_that_is_called_broken_serves_nobody(database: Engine, config: Settings) -> None:
    with database.begin() as connection:
        set_worker_state(connection, "beta", WorkerState.BROKEN, "its process ended")

    assert "beta" in do(database, availability, config).unserved


def suspend(database: Engine, model: str) -> None:
    do(database, breaker.note_failure, breaker.Guarded.MODEL, model, "no", RULES)
    run(database, f"UPDATE model SET status = 'suspended', reason = 'no', suspended_at = now() - interval '1 h', "
                  f"probe_after = now() WHERE name = '{model}'")  # fmt: skip


def test_a_probe_keeps_nobody_from_a_healthy_model(database: Engine, config: Settings) -> None:
    serve(database, "alpha")
    suspend(database, "alpha")
    plan(database, candidates_wanted=1)
    nowhere: Any = Nowhere()

    dispatcher = Dispatcher(config, database, nowhere)
    dispatcher.dispatch(dispatcher.look())

    assert sorted(nowhere.waves[0]) == ["alpha", "beta"]
    tries = {row.model: row.max_attempts for row in rows(database, "SELECT model, max_attempts FROM candidate")}
    assert tries == {"alpha": 1, "beta": 3}


def test_a_candidate_of_a_suspended_model_is_bound_anew_however_often_it_is_probed(
    database: Engine, config: Settings
) -> None:
    serve(database, "alpha")
    send(database, plan(database), "alpha")
    suspend(database, "alpha")
    run(database, "UPDATE candidate SET status = 'chosen', message_id = NULL, sent_at = NULL, not_before = now(), "
                  "created_at = now() - interval '1 min'")  # fmt: skip

    do(database, rebind, config)

    assert models_of(database)["beta"] == "chosen"


def test_what_waits_for_an_absent_model_does_not_hide_what_can_fail_now(
    database: Engine, config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.replacing.LOOK", 2)
    from scheduler.replacing import Place

    for _ in range(2):  # they wait for gamma, which nobody serves
        for message in send(database, plan(database), "alpha", "beta"):
            fail(database, message)
    last = plan(database)
    for message in send(database, last, "alpha", "beta", "gamma"):
        fail(database, message)
    place = Place()

    failed = [do(database, back_fill, config, place)[1] for _ in range(2)]

    assert failed == [0, 1]
    with database.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM task WHERE status = 'failed'")).scalar_one() == 1


def test_finished_work_of_a_stranger_is_no_work(database: Engine, config: Settings) -> None:
    do(database, sync_models, [ModelEntry(name="ghost", capability="text-generation", backend="scripted")])
    finish_all(database, send(database, plan(database), "ghost"))

    assert "ghost" not in do(database, availability, config).away


def test_each_worker_of_a_queue_has_a_window_of_its_own(database: Engine, config: Settings) -> None:
    with database.begin() as connection:
        for name in ("beta-2", "beta-3"):
            beat(connection, name=name, host="here", pid=2, queues=["model.beta"])
            set_worker_state(connection, name, WorkerState.READY)
    for _ in range(80):
        plan(database, candidates_wanted=1)
    nowhere: Any = Nowhere()
    dispatcher = Dispatcher(config, database, nowhere)

    dispatcher.dispatch(dispatcher.look())

    assert nowhere.waves == [["beta"]] * 6  # three workers, two messages of eight each
