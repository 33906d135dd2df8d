"""A list of judges, through the real transitions: retried, then the next is asked, at last the selectors' first stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, text

from db.breaker import Guarded, due_probes, note_success
from db.judges import ask_next_judge
from db.lease import Leased, charge
from db.queries import task_situation, task_story
from db.registry import read_registry
from db.settings import Settings
from db.verdicts import Patience, claim_judging, expire_judging, load_to_judge, send_judge_probe, send_judging
from db.workers import sync_registry
from scheduler.why import Surroundings, why
from tests.conftest import SCRIPTED
from tests.integration.test_rules import plan, send
from tests.integration.test_transitions import finish_all, rows, run
from worker.deciding import fallback
from worker.judging import judge_wave, store_decided
from worker.process import ModelProcess
from worker.role import WorkerRole

pytestmark = pytest.mark.integration

ROW = """
[judges.broken]
method = "scripted"
params = { fail_on = "." }

[judges.garbled]
method = "scripted"
params = { fail_on = ".", fail = "garbage" }

[judges.away]
method = "scripted"
params = { fail_on = ".", fail = "unreachable" }
"""
#: A judge whose model is behind a server that nobody runs.
FAR = """
[judges.far]
method = "choice"
model = "far"

[models.far]
capability = "text-generation"
backend = "openai"
source = { server = "http://127.0.0.1:9/v1", model = "m" }
"""
#: What is complete is due at once.
PATIENCE = Patience(grace=0.0, lost_after=60.0)


def judging(folder: Path, database: Engine, registry: str, **changes: Any) -> ModelProcess:
    """A judges' process with this registry."""
    models_file = folder / "models.toml"
    models_file.write_text(registry)
    settings = Settings(models_file=models_file, profile="demo", **{"breaker_failures": 100, **changes})
    with database.begin() as connection:
        sync_registry(connection, settings.registry)
    return ModelProcess(settings, WorkerRole(name="judge", judge=True), database)


@pytest.fixture
def process(tmp_path: Path, database: Engine) -> ModelProcess:
    return judging(tmp_path, database, SCRIPTED + ROW)


def waiting(database: Engine, *judges: str, **changes: Any) -> UUID:
    """A task whose only subtask has its candidates, and waits for these judges."""
    task = plan(database, judge=judges[0], next_judges=judges[1:], **changes)
    finish_all(database, send(database, task, "alpha", "beta"))
    return task


def deliver(process: ModelProcess, database: Engine) -> int:
    """Send what waits to the judges, as if its delay were over, and let them work. Returns how many subtasks it was."""
    run(database, "UPDATE subtask SET not_before = now() WHERE not_before > now()")
    with database.begin() as connection:
        message = send_judging(connection, PATIENCE, 10)
    if message is None:
        return 0
    judge_wave(process, message.id, message.subtask_ids)
    return len(message.subtask_ids)


def subtask_of(database: Engine, task: UUID) -> dict[str, Any]:
    with database.begin() as connection:
        (subtask,) = task_story(connection, task)["subtasks"]
    told: dict[str, Any] = subtask
    return told


def suspend(database: Engine, judge: str) -> None:
    run(database, "UPDATE judge SET status = 'suspended', reason = '5 calls failed', suspended_at = now(), "
        "probe_after = now() + interval '1 hour' WHERE name = :judge", judge=judge)  # fmt: skip


def test_a_judge_is_tried_again_then_the_next_is_asked_and_the_verdict_tells_both(
    process: ModelProcess, database: Engine
) -> None:
    task = waiting(database, "broken", "longest")
    # when it has failed as often as a subtask may be tried
    for _ in range(3):
        assert subtask_of(database, task)["judges"]["asked"] == "broken"
        assert deliver(process, database) == 1
    assert subtask_of(database, task)["judges"]["failed"][0]["judge"] == "broken"
    # then the next decides, with attempts of its own
    deliver(process, database)
    verdict = subtask_of(database, task)["verdict"]
    assert (verdict["judge"], verdict["fallback"]) == ("longest", False)
    assert verdict["failed_judges"] == [{"judge": "broken", "error": "broken: the script says that the judge fails"}]
    assert "Asked before, without a verdict: broken (" in verdict["reason"]
    assert [row.attempt for row in rows(database, "SELECT attempt FROM subtask")] == [1]


def test_garbage_is_a_failure_like_any_other(process: ModelProcess, database: Engine) -> None:
    task = waiting(database, "garbled", "longest")
    while deliver(process, database):
        pass
    verdict = subtask_of(database, task)["verdict"]
    assert verdict["judge"] == "longest"
    assert "not one of the candidates" in verdict["failed_judges"][0]["error"]


def test_where_all_fail_the_selectors_first_stands_and_everybody_is_named(
    process: ModelProcess, database: Engine
) -> None:
    task = waiting(database, "broken", "garbled")
    asked = 0
    while deliver(process, database):
        asked += 1
    subtask = subtask_of(database, task)
    assert asked == 6
    assert (subtask["verdict"]["winner"], subtask["verdict"]["method"]) == ("alpha", "fallback")
    assert [one["judge"] for one in subtask["verdict"]["failed_judges"]] == ["broken", "garbled"]
    assert rows(database, "SELECT fallback FROM results")[0].fallback


def test_a_lost_process_leads_to_the_next_judge_too(process: ModelProcess, database: Engine) -> None:
    task = waiting(database, "broken", "longest")
    run(database, "UPDATE subtask SET attempt = max_attempts")  # entered, and never left
    deliver(process, database)
    deliver(process, database)
    verdict = subtask_of(database, task)["verdict"]
    assert verdict["judge"] == "longest"
    assert verdict["failed_judges"] == [{"judge": "broken", "error": "its process was lost each time"}]


def test_a_suspended_judge_is_passed_over_and_so_is_the_next_where_it_is_too(
    process: ModelProcess, database: Engine
) -> None:
    for judge in ("broken", "garbled"):
        suspend(database, judge)
    task = waiting(database, "broken", "garbled", "longest", "away")
    assert deliver(process, database) == 1
    verdict = subtask_of(database, task)["verdict"]
    assert verdict["judge"] == "longest"
    assert verdict["failed_judges"] == [
        {"judge": "broken", "error": "suspended: 5 calls failed"},
        {"judge": "garbled", "error": "suspended: 5 calls failed"},
    ]
    assert rows(database, "SELECT next_judges FROM subtask")[0].next_judges == ["away"]


def test_where_every_judge_of_the_list_is_suspended_the_subtask_waits(process: ModelProcess, database: Engine) -> None:
    for judge in ("broken", "longest"):
        suspend(database, judge)
    waiting(database, "broken", "longest")
    assert deliver(process, database) == 0
    with database.begin() as connection:
        note_success(connection, Guarded.JUDGE, "longest")
    assert deliver(process, database) == 1
    assert rows(database, "SELECT judge FROM verdict")[0].judge == "longest"


def test_a_suspended_judge_is_still_probed_and_what_probed_it_goes_on(process: ModelProcess, database: Engine) -> None:
    suspend(database, "broken")
    run(database, "UPDATE judge SET probe_after = now() WHERE name = 'broken'")
    task = waiting(database, "broken", "longest")
    # when the probe takes the subtask to the suspended judge, and that fails again
    with database.begin() as connection:
        assert due_probes(connection, Guarded.JUDGE) == ["broken"]
        probe = send_judge_probe(connection, PATIENCE, "broken")
    assert probe is not None
    process.settings = process.settings.model_copy(update={"breaker_failures": 1})
    judge_wave(process, probe.id, probe.subtask_ids)
    assert subtask_of(database, task)["verdict"] is None
    # then the subtask goes on to the next, uncharged
    deliver(process, database)
    assert subtask_of(database, task)["verdict"]["judge"] == "longest"


def test_the_process_of_the_second_judge_is_lost_and_its_late_verdict_changes_nothing(
    process: ModelProcess, database: Engine
) -> None:
    # given a subtask whose second judge is being asked when its process is lost
    task = waiting(database, "broken", "longest", "away")
    for _ in range(3):
        deliver(process, database)
    (subtask,) = rows(database, "SELECT id FROM subtask")
    with database.begin() as connection:
        claimed = claim_judging(connection, [subtask.id], uuid4(), 60)
        (lost,) = load_to_judge(connection, claimed)
        charge(connection, Leased.SUBTASK, claimed.token, claimed.ids)
    run(database, "UPDATE subtask SET lease_until = now() - interval '1 s'")
    with database.begin() as connection:
        assert expire_judging(connection) == {"longest": 1}
    # when it is lost as often as a subtask may be tried, the third is asked
    run(database, "UPDATE subtask SET attempt = max_attempts")
    deliver(process, database)
    assert subtask_of(database, task)["judges"]["asked"] == "away"
    # then what the lost process says after all is too late
    with database.begin() as connection:
        assert store_decided(connection, claimed.token, [(lost, fallback(lost, 3, "late", 0.0))]) == []
        assert not ask_next_judge(connection, claimed.token, subtask.id, "late")
    assert subtask_of(database, task)["verdict"] is None
    assert [one["judge"] for one in subtask_of(database, task)["judges"]["failed"]] == ["broken", "longest"]


def test_a_chords_callback_leaves_one_to_be_the_probe_where_that_is_due(
    process: ModelProcess, database: Engine
) -> None:
    # given a suspended judge that is due for a probe, and a wave that a chord's callback would judge at once
    suspend(database, "broken")
    run(database, "UPDATE judge SET probe_after = now() WHERE name = 'broken'")
    for _ in range(3):
        waiting(database, "broken", "longest")
    wave = [row.id for row in rows(database, "SELECT id FROM subtask ORDER BY id")]
    judge_wave(process, uuid4(), wave)
    # then all but one go on, and that one is the probe, although the callback's grace is not over
    assert [row.subtask_id for row in rows(database, "SELECT subtask_id FROM verdict ORDER BY subtask_id")] == wave[1:]
    with database.begin() as connection:
        probe = send_judge_probe(connection, Patience(grace=60.0, lost_after=60.0), "broken")
    assert probe is not None
    assert probe.subtask_ids == wave[:1]


def test_where_all_are_suspended_each_is_probed_and_who_is_back_first_decides(
    process: ModelProcess, database: Engine
) -> None:
    # given a list of which every judge is suspended, and a subtask that waits for its first
    for judge in ("broken", "longest"):
        suspend(database, judge)
    task = waiting(database, "broken", "longest")
    # when the second is probed with it, and fails
    with database.begin() as connection:
        probe = send_judge_probe(connection, PATIENCE, "longest")
        assert probe is not None
        connection.execute(text("UPDATE subtask SET sent_at = NULL, message_id = NULL, not_before = now()"))
    assert subtask_of(database, task)["judges"] == {
        "asked": "longest", "next": [], "failed": [{"judge": "broken", "error": "suspended: 5 calls failed"}],
    }  # fmt: skip
    assert deliver(process, database) == 0
    # then it goes back to the first where that is resumed, which was never asked about it
    with database.begin() as connection:
        note_success(connection, Guarded.JUDGE, "broken")
    assert deliver(process, database) == 1
    assert subtask_of(database, task)["judges"] == {
        "asked": "broken", "next": [], "failed": [{"judge": "longest", "error": "suspended: 5 calls failed"}],
    }  # fmt: skip


def test_who_failed_on_a_subtask_is_not_gone_back_to(process: ModelProcess, database: Engine) -> None:
    task = waiting(database, "broken", "longest")
    for _ in range(3):
        deliver(process, database)
    suspend(database, "longest")
    assert deliver(process, database) == 0
    assert subtask_of(database, task)["judges"]["asked"] == "longest"


def test_a_chords_callback_passes_over_as_well(process: ModelProcess, database: Engine) -> None:
    suspend(database, "broken")
    task = waiting(database, "broken", "longest")
    (subtask,) = rows(database, "SELECT id FROM subtask")
    judge_wave(process, uuid4(), [subtask.id])
    assert subtask_of(database, task)["verdict"]["judge"] == "longest"


def test_a_single_answer_needs_no_judge_and_passes_over_none(process: ModelProcess, database: Engine) -> None:
    suspend(database, "broken")
    task = plan(database, judge="broken", next_judges=("longest",))
    finish_all(database, send(database, task, "alpha"))
    deliver(process, database)
    verdict = subtask_of(database, task)["verdict"]
    assert (verdict["method"], verdict["judge"], verdict["failed_judges"]) == ("only_candidate", "broken", None)


def test_why_says_who_failed_and_who_is_asked(process: ModelProcess, database: Engine) -> None:
    task = waiting(database, "broken", "longest")
    for _ in range(3):
        deliver(process, database)
    around = Surroundings(registry=process.registry, scheduler=True, live=frozenset({"judge"}))
    with database.begin() as connection:
        said = why(task_situation(connection, task), around)
    assert "waits for judge longest" in said
    assert "before it, broken gave no verdict (broken: the script says that the judge fails)" in said


def test_why_says_that_a_suspended_judge_is_passed_over(process: ModelProcess, database: Engine) -> None:
    task = waiting(database, "broken", "longest")
    row = {"status": "suspended", "reason": "no GPU", "probe_in": 42.0}
    around = Surroundings(registry=process.registry, scheduler=True, live=frozenset({"judge"}), judges={"broken": row})
    with database.begin() as connection:
        assert "which is suspended (no GPU); longest is asked instead" in why(task_situation(connection, task), around)


def test_a_judge_that_cannot_be_loaded_keeps_nobody_from_asking_the_next(tmp_path: Path, database: Engine) -> None:
    # given a worker that starts while the server of the first judge's model is away
    registry = SCRIPTED.replace('judge = "longest"', 'judge = ["far", "longest"]', 1) + FAR
    process = judging(tmp_path, database, registry, breaker_failures=2)
    process.warm_up()
    # when a subtask comes for it
    task = waiting(database, "far", "longest")
    while deliver(process, database):
        pass
    # then it is asked until the breaker has had enough, and the next decides
    verdict = subtask_of(database, task)["verdict"]
    assert verdict["judge"] == "longest"
    assert verdict["failed_judges"][0]["error"].startswith("suspended: 2 calls failed in a row; the last: far: ")


def test_a_worker_without_any_judge_for_a_capability_is_not_ready(tmp_path: Path, database: Engine) -> None:
    process = judging(tmp_path, database, SCRIPTED.replace('judge = "longest"', 'judge = "far"', 1) + FAR)
    assert not process._loaded_everything()


def test_a_capability_and_a_profile_may_have_a_list(tmp_path: Path) -> None:
    models_file = tmp_path / "models.toml"
    text = SCRIPTED.replace('judge = "longest"', 'judge = ["broken", "longest"]', 1)
    models_file.write_text(text.replace("[profiles.demo]", '[profiles.demo]\njudge = ["away", "garbled"]') + ROW)
    whole = read_registry(models_file)
    assert whole.capabilities["text-generation"].judges == ("broken", "longest")
    demo = whole.restricted_to("demo")
    assert demo.capabilities["text-generation"].judges == ("away", "garbled")
    assert demo.judges_in_use() == {"away", "garbled"}
