"""What is done to a curation job: hostile input, a lost lease, a changed file, a full backlog, pruned tasks, a pause."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine

from db.curation import LeaseLost, claim_job, hold, read_job, release_job
from db.engine import transaction
from db.errors import RefusedNow, UsageError
from db.settings import Settings
from scheduler.curation.export import export_job
from scheduler.curation.recipe import parse_recipe, read_recipe
from scheduler.curation.run import Run
from scheduler.curation.runner import extend_job, run_job, start_job
from scheduler.curation.stages import create_stage
from tests.conftest import Installation, make_installation, wait_until
from tests.integration.curation_parts import conversations, registry, write_array

pytestmark = pytest.mark.integration

ALONE = 'stages = ["validate", "exact", "near"]\n[input]\nfile = "records.jsonl"\n'


@pytest.fixture
def settings(database: Engine) -> Settings:
    return Settings(database_url=database.url.render_as_string(hide_password=False), lease_seconds=0.3)


def record(number: int, **more: Any) -> dict[str, Any]:
    asked = f"What is the matter with number {number}, in short?"
    return {"id": number, "instruction": asked, "output": f"It is {number * 7} of other things entirely.", **more}


def started(settings: Settings, folder: Path, *lines: bytes | dict[str, Any]) -> str:
    said = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    (folder / "records.jsonl").write_bytes(b"\n".join(said))
    (folder / "job.toml").write_text(ALONE)
    return start_job(settings, read_recipe(folder / "job.toml")).name


def test_no_record_stops_the_others(settings: Settings, tmp_path: Path) -> None:
    # given one sound record among those that somebody made up to do harm
    talk = [{"from": ["human"], "value": "What is it?"}, {"from": {}, "value": "It is so."}]
    job = started(
        settings,
        tmp_path,
        record(1),
        b'{"id": 2, "instruction": "What is \\ud800 it?", "output": "It is so."}',
        b'{"id": 3, "instruction": "What is \xff\xfe it?", "output": "It is so."}',
        b'{"id": 4, "instruction": "What is \\u0000 it?", "output": "It is so."}',
        {"id": 5, "conversations": talk},
        b'{"id": 6, "instruction": "What is it?", "output": "It is so.", "x": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"id": 7, "instruction": "What is it?", "output": "It is so.", "x": 1e999}',
    )

    # when
    run_job(settings, job)
    manifest = export_job(settings, job, tmp_path / "out")

    # then each of them left a reason, and everything is written
    assert manifest["stages"][0]["dropped"] == {"schema": 6}
    assert json.loads((tmp_path / "out" / "kept.jsonl").read_text()) == record(1)
    assert "is not valid Unicode" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_another_input_under_a_name_that_is_taken_is_refused(settings: Settings, tmp_path: Path) -> None:
    # given a job that is done
    run_job(settings, started(settings, tmp_path, record(1)))

    # when its file says something else, then
    with pytest.raises(UsageError, match="with another recipe or input"):
        started(settings, tmp_path, record(2))


def test_an_input_that_changed_while_a_job_was_stopped_is_refused(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a job that was stopped after its first record
    monkeypatch.setattr("scheduler.curation.loading.AT_ONCE", 1)
    job = started(settings, tmp_path, record(1), record(2))
    with pytest.raises(KeyboardInterrupt):
        run_job(settings, job, _interrupt)

    # when its file is another one, then
    write_array(tmp_path / "records.jsonl", [record(3), record(4)])
    with pytest.raises(UsageError, match="changed since its first records were read"):
        run_job(settings, job)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def test_who_lost_the_lease_changes_nothing(settings: Settings, database: Engine, tmp_path: Path) -> None:
    # given a job in the hands of a runner whose lease somebody else took
    name = started(settings, tmp_path, record(1), record(1))
    with pytest.raises(KeyboardInterrupt):
        run_job(settings, name, _interrupt)
    with transaction(database) as connection:
        job = read_job(connection, name)
        claim_job(connection, job.id, 60)
    recipe = parse_recipe(job.recipe)
    late = Run(settings=settings, engine=database, job=job, recipe=recipe, token=uuid4())
    more = tmp_path / "more.jsonl"
    more.write_text(json.dumps(record(2)))
    before = _everything(database)

    # when it goes on with any of the stages, or somebody gives it more
    for name in recipe.stages:
        with pytest.raises(LeaseLost):
            create_stage(name, 0, recipe.tables[name]).run(late)
    with pytest.raises(RefusedNow):
        extend_job(settings, job.name, more)

    # then
    assert _everything(database) == before


def _everything(database: Engine) -> list[Any]:
    with transaction(database) as connection:
        rows = connection.exec_driver_sql("SELECT r::text FROM curation_record AS r ORDER BY position").all()
        return [*rows, *connection.exec_driver_sql("SELECT j::text FROM curation_job AS j").all()]


def test_a_job_in_the_middle_of_a_long_statement_is_refused_and_not_waited_for(
    settings: Settings, database: Engine, tmp_path: Path
) -> None:
    # given a runner that is in a transaction longer than its lease
    name = started(settings, tmp_path, record(1))
    with transaction(database) as connection:
        job = read_job(connection, name)
        token = claim_job(connection, job.id, 0.1)
    assert token is not None
    with transaction(database) as connection:
        hold(connection, job.id, token, 0.1)

        # when, then
        with pytest.raises(RefusedNow, match="Another process runs the curation job"):
            run_job(settings, name)

    # and it is free when its runner is through
    with transaction(database) as connection:
        release_job(connection, job.id, token)
    assert run_job(settings, name).status == "done"


ASKING = """stages = ["validate", "answers"]
[input]
file = "records.json"
[answers]
models = ["alpha", "beta"]
keep = 1.0
"""


@pytest.fixture(scope="module")
def system(servers: tuple[str, str], template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("adversity")
    for made in make_installation(servers, folder, template, registry("alpha", "beta", "embedder")):
        made.settings |= {"BAKEOFF_MAX_BACKLOG": "8", "BAKEOFF_MAX_BULK": "3", "BAKEOFF_SETTLE_SECONDS": "0"}
        made.start("scheduler", "scheduler")
        made.start("worker", "worker", "alpha", "beta", "embedder", "--judge")
        made.wait_ready(2)
        yield made


def asking(folder: Path, name: str, text: str = ASKING) -> str:
    write_array(folder / "records.json", conversations(6))  # of 10 turns
    (folder / f"{name}.toml").write_text(text)
    return str(folder / f"{name}.toml")


def fates(system: Installation, name: str) -> list[tuple[Any, ...]]:
    rows = system.query(
        "SELECT r.fate, r.scores ? 'answers', count(*) FROM curation_record AS r JOIN curation_job AS j "
        "ON j.id = r.job_id WHERE j.name = :name GROUP BY 1, 2",
        name=name,
    )
    return [tuple(row) for row in rows]


def test_a_full_backlog_is_waited_for_and_vectors_that_were_pruned_are_made_anew(
    system: Installation, tmp_path: Path
) -> None:
    # given a job with more tasks than may be open at once
    text = ASKING.replace('"]\n[input]', '", "diversity"]\n[input]') + "[diversity]\nkeep = 1.0\n"
    done = system.run("curate", "run", asking(tmp_path, "full", text))
    assert done.code == 0, done.err + system.logs()
    assert fates(system, "full") == [("kept", True, 6)]

    # when all of them are pruned, and more input comes
    system.query("DELETE FROM task WHERE source = 'curation:full'")
    more = write_array(tmp_path / "more.json", conversations(2, seed=2))
    extend_job(Settings(database_url=system.database_url), "full", more)
    resumed = system.run("curate", "resume", "full")

    # then old records are compared with new ones
    assert resumed.code == 0, resumed.err + system.logs()
    assert fates(system, "full") == [("kept", True, 8)]


def test_a_paused_model_is_waited_for_and_what_is_pruned_meanwhile_asked_anew(
    system: Installation, tmp_path: Path
) -> None:
    # given a job of which one model is paused, so that every task was answered by the other one alone
    assert system.run("pause", "beta").code == 0
    ended = "SELECT count(*) FROM task WHERE source = 'curation:paused' AND finished_at IS NOT NULL"
    system.start("run", "curate", "run", asking(tmp_path, "paused"))
    wait_until(lambda: system.query(ended)[0][0] == 10, 60, system.logs)

    # when the tasks are pruned, asked anew, and the model is back
    system.query("DELETE FROM task WHERE source = 'curation:paused'")
    wait_until(lambda: system.query(ended)[0][0] == 10, 60, system.logs)
    assert system.run("resume", "beta").code == 0
    assert system.processes.pop("run").wait(60) == 0

    # then no record was settled by one answer, none was lost, and the manifest outlives the tasks
    assert fates(system, "paused") == [("kept", True, 6)]
    system.query("DELETE FROM task WHERE source = 'curation:paused'")
    manifest = export_job(Settings(database_url=system.database_url), "paused", tmp_path / "out")
    assert set(manifest["models"]) == {"alpha", "beta"}
    assert manifest["judges"]["number"]["method"] == "scripted"
