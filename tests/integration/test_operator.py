"""What an operator does to a running installation: cancel, retry, pause, drain, resume, prune; and what it does itself."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from db.blobs import blob_store
from tests.conftest import SCRIPTED, Installation, make_installation, wait_until

pytestmark = pytest.mark.integration

#: alpha takes its time where the request says so.
PATIENT = SCRIPTED.replace(
    '{ match = "slow", sleep = 0.4 }',
    '{ match = "dawdle", sleep = 15 }, { match = "crawl", sleep = 6 }, { match = "slow", sleep = 0.4 }',
).replace(
    'params = { answer = "{text}", rules = [',
    'params = { answer = "{text}", rules = [{ match = "crawl|late", sleep = 2 }, ',
)


@pytest.fixture(scope="module")
def running(
    servers: tuple[str, str], template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """Three text models, a judge and a scheduler, with a short patience."""
    for made in make_installation(servers, tmp_path_factory.mktemp("operator"), template):
        made.models_file.write_text(PATIENT)
        made.settings |= {
            "BAKEOFF_BIND_WAIT": "2",
            "BAKEOFF_PROBE_SECONDS": "2",
            "BAKEOFF_SETTLE_SECONDS": "0",
            "BAKEOFF_DEADLINE_GRACE": "5",
            "BAKEOFF_MAX_BACKLOG": "3",
        }
        made.start_all(("alpha", "beta", "gamma"))
        yield made


def submit(running: Installation, *arguments: str) -> str:
    done = running.run("submit", *arguments, "--json", "--without-worker")
    assert done.code == 0, done.err
    return str(done.json["id"])


def wait_for(running: Installation, task: str, status: str, timeout: float = 30) -> None:
    wait_until(
        lambda: running.query("SELECT status FROM task WHERE id = :t", t=task)[0].status == status,
        timeout,
        lambda: running.run("show", task).out + running.logs(),
    )


def candidates(running: Installation, task: str) -> dict[str, str]:
    rows = running.query("SELECT model, status FROM candidates WHERE task_id = :t", t=task)
    return {row.model: row.status for row in rows}


def test_a_cancelled_task_ends_at_once_and_late_output_is_discarded(running: Installation) -> None:
    task = submit(running, "dawdle and be cancelled")
    wait_until(lambda: candidates(running, task).get("alpha") == "running", 30, running.logs)

    first, second = running.run("cancel", task), running.run("cancel", task)

    assert "cancelled" in first.out
    assert "already" in second.out
    wait_until(lambda: "result_too_late" in (running.folder / "alpha.log").read_text(), 40, running.logs)
    assert running.query("SELECT status FROM task WHERE id = :t", t=task)[0].status == "cancelled"
    assert candidates(running, task)["alpha"] == "cancelled"
    assert running.query("SELECT 1 FROM verdicts WHERE task_id = :t", t=task) == []
    assert "is cancelled" in running.run("why", task).out


def test_a_finished_task_is_asked_again_as_a_new_one(running: Installation) -> None:
    task = submit(running, "once more")
    wait_for(running, task, "done")

    again = running.run("retry", task, "--json").json[0]
    wait_for(running, again["id"], "done")

    assert again["retry_of"] == task
    refused = running.run("retry", submit(running, "crawl, still open"))
    assert refused.code == 2
    assert "only a finished one" in refused.err


def test_at_the_deadline_what_exists_is_judged(running: Installation) -> None:
    task = submit(running, "crawl", "--deadline", "4s")
    wait_for(running, task, "done")

    found = candidates(running, task)
    assert found["alpha"] == "cancelled"
    assert found["beta"] == "done"


def test_a_deadline_that_nobody_can_meet_expires_the_task(running: Installation) -> None:
    task = submit(
        running, "--capability", "image-to-text/caption", "--attach", str(picture(running)), "--deadline", "1s"
    )

    wait_for(running, task, "expired")
    assert "deadline passed" in running.run("why", task).out


def test_a_task_for_later_waits_and_says_so(running: Installation) -> None:
    task = submit(running, "later", "--run-at", "1h")

    assert "run_at, in 60 min" in running.run("why", task).out
    assert running.run("cancel", task).code == 0


def test_a_paused_model_is_replaced_or_given_up_and_a_resumed_one_goes_on(running: Installation) -> None:
    assert running.run("pause", "alpha", "--reason", "upgrade").code == 0
    assert "alpha is paused: upgrade" in running.run("status").out

    task = submit(running, "without alpha")
    wait_for(running, task, "done")
    assert set(candidates(running, task)) == {"beta", "gamma"}

    assert "was paused" in running.run("resume", "alpha").out
    task = submit(running, "with alpha again")
    wait_for(running, task, "done")
    assert "alpha" in candidates(running, task)


def test_when_all_models_fail_those_not_tried_are_asked(running: Installation) -> None:
    task = submit(running, "two fail", "--candidates", "1")
    wait_for(running, task, "done")

    assert candidates(running, task) == {"alpha": "error", "beta": "error", "gamma": "done"}


def test_a_model_that_goes_away_after_it_was_sent_to_holds_nobody_up(running: Installation) -> None:
    running.stop("gamma")
    try:
        task = submit(running, "gamma left", "--model", "gamma", "--model", "beta")
        wait_for(running, task, "done")
        assert set(candidates(running, task)) == {"beta"}
        running.query("UPDATE worker SET heartbeat_at = now(), status = 'ready' WHERE name LIKE 'gamma%'")
    finally:
        running.start("gamma", "worker", "gamma")
        running.wait_ready(5)


def test_a_source_with_a_full_backlog_is_refused_with_the_time_to_come_back(running: Installation) -> None:
    for number in range(3):
        submit(running, f"later {number}", "--run-at", "1h", "--source", "greedy")

    refused = running.run("submit", "one too many", "--source", "greedy")
    other = running.run("submit", "somebody else", "--source", "modest")

    assert refused.code == 3
    assert "try again in" in refused.err
    assert other.code == 0
    assert len(running.run("cancel", "--source", "greedy", "--json").json) == 3


def test_drained_means_that_nothing_is_bound_to_it(running: Installation) -> None:
    task = submit(running, "slow, drained")
    drained = running.run("drain", "alpha", "--wait", "--timeout", "20")
    wait_for(running, task, "done")

    assert drained.code == 0
    assert running.run("resume", "alpha").code == 0


def test_prune_deletes_old_tasks_and_files_that_nobody_names(running: Installation) -> None:
    file = picture(running)
    task = submit(running, "--capability", "image-to-text/ocr", "--attach", str(file), "--source", "old")
    running.run("cancel", task)
    digest = running.query("SELECT attachments FROM task WHERE id = :t", t=task)[0].attachments[0]["sha256"]
    running.query("UPDATE task SET finished_at = now() - interval '40 d' WHERE id = :t", t=task)
    running.query("UPDATE artifact SET used_at = now() - interval '2 d' WHERE sha256 = :d", d=digest)
    blobs = blob_store(str(running.folder / "home" / "blobs"))
    assert blobs.get(digest) == file.read_bytes()

    dry = running.run("prune", "--older-than", "30d", "--dry-run", "--json").json
    wet = running.run("prune", "--older-than", "30d", "--json").json

    assert (dry["tasks"], wet["tasks"], wet["files"]) == (1, 1, 1)
    assert running.query("SELECT 1 FROM task WHERE id = :t", t=task) == []
    assert running.run("show", task).code == 2
    with pytest.raises(Exception, match="pruned"):
        blobs.get(digest)


def test_prune_keeps_a_file_that_another_task_names(running: Installation) -> None:
    file = picture(running)
    tasks = [
        submit(running, "--capability", "image-to-text/ocr", "--attach", str(file), "--source", "keeps")
        for _ in range(2)
    ]
    running.run("cancel", *tasks)
    running.query("UPDATE task SET finished_at = now() - interval '40 d' WHERE id = :t", t=tasks[0])
    running.query("UPDATE artifact SET used_at = now() - interval '2 d'")

    report = running.run("prune", "--older-than", "30d", "--json").json

    assert (report["tasks"], report["files"]) == (1, 0)
    assert json.loads(running.run("show", tasks[1], "--json").out)["attachments"]


def picture(running: Installation) -> Path:
    """A picture with a content of its own."""
    from PIL import Image

    file = running.folder / f"{time.monotonic_ns()}.png"
    Image.new("RGB", (8, 8), (time.monotonic_ns() % 256, 0, 0)).save(file, compress_level=time.monotonic_ns() % 9)
    with file.open("ab") as handle:
        handle.write(str(time.monotonic_ns()).encode())
    return file
