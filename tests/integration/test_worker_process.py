"""How a worker's processes end: with their parent, after SIGTERM, and where a model hangs or eats the memory."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
from celery import Celery

from tests.conftest import Installation, wait_until

pytestmark = pytest.mark.integration

MODELS = """
[profiles.demo]
models = ["solo", "second", "loads", "broken"]

[capabilities.text-generation]
input = "text"
instruction = "Answer the request."
judge = "longest"

[judges.longest]
method = "scripted"
params = {{ fail_on = "", fail = "hang", fail_while = "{sick}" }}

[models.second]
capability = "text-generation"
backend = "scripted"

[models.solo]
capability = "text-generation"
backend = "scripted"
timeout = {timeout}
memory_mb = 100

[models.solo.params]
answer = "done: {{text}}"
rules = [
  {{ match = "three seconds", sleep = 3.0 }},
  {{ match = "hang the lock", fail = "hang-gil", fail_while = "{sick}" }},
  {{ match = "hang", fail = "hang", fail_while = "{sick}" }},
  {{ match = "hog", fail = "allocate", fail_while = "{sick}" }},
  {{ match = "device", fail = "device", fail_while = "{sick}" }},
  {{ match = "huge", answer_mb = 50 }},
  {{ match = "nothing", fail = "nothing" }},
]

[models.loads]
capability = "text-generation"
backend = "scripted"
params = {{ load_sleep = 600.0 }}

[models.broken]
capability = "text-generation"
backend = "scripted"
params = {{ load_fails = true }}
"""


@pytest.fixture
def sick(installation: Installation) -> Path:
    """Models fail while this file exists."""
    file = installation.folder / "sick"
    file.touch()
    installation.settings["BAKEOFF_SETTLE_SECONDS"] = "0"  # no scheduler waits for models that a test does not start
    write_models(installation)
    return file


def write_models(installation: Installation, timeout: float = 60.0) -> None:
    installation.models_file.write_text(MODELS.format(timeout=timeout, sick=installation.folder / "sick"))


def start(installation: Installation, *arguments: str) -> None:
    installation.start("solo", "worker", *(arguments or ("solo",)))
    installation.start("scheduler", "scheduler")
    installation.wait_ready(2)


def enqueue(installation: Installation, *texts: str) -> None:
    for text in texts:
        installation.query("INSERT INTO task (request) VALUES (:text)", text=text)


def candidates(installation: Installation, status: str) -> list[Any]:
    return installation.query(
        "SELECT id, status, attempt, output, error, token, message_id FROM candidate WHERE status = :status "
        "AND model = 'solo' ORDER BY id",
        status=status,
    )


def wait_for(installation: Installation, status: str, count: int = 1, timeout: float = 30) -> list[Any]:
    wait_until(lambda: len(candidates(installation, status)) >= count, timeout, installation.logs)
    return candidates(installation, status)


def children(installation: Installation, name: str = "solo") -> list[psutil.Process]:
    """The process that holds the model."""
    found = psutil.Process(installation.processes[name].pid).children(recursive=True)
    return [process for process in found if not is_dead(process) and not is_helper(process)]


def is_helper(process: psutil.Process) -> bool:
    try:
        return "semaphore_tracker" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return True


def is_dead(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def oom_score(process: psutil.Process) -> int:
    return int(Path(f"/proc/{process.pid}/oom_score_adj").read_text())


def logged(installation: Installation, action: str, name: str = "solo") -> bool:
    return f'"action": "{action}"' in (installation.folder / f"{name}.log").read_text()


def terminate(installation: Installation, name: str = "solo", timeout: float = 40) -> tuple[int, float]:
    """SIGTERM to the whole group, as systemd does; returns the exit code and how many seconds it took."""
    began = time.monotonic()
    return installation.stop(name, timeout=timeout), time.monotonic() - began


def workers(installation: Installation) -> list[str]:
    rows = installation.query("SELECT name, status FROM worker ORDER BY name")
    return [f"{row.name.partition('@')[0]} {row.status}" for row in rows]


# A child never outlives its parent


@pytest.mark.parametrize("work", ["", "hang the lock"])
def test_a_child_dies_with_its_parent(installation: Installation, sick: Path, work: str) -> None:
    start(installation)
    if work:
        enqueue(installation, work)
        wait_for(installation, "running")
        time.sleep(0.3)
    (child,) = children(installation)

    installation.processes["solo"].kill()

    wait_until(lambda: is_dead(child), 10)


@pytest.mark.skipif(sys.platform != "linux", reason="the scores are Linux's")
def test_the_kernel_ends_a_model_rather_than_a_database(installation: Installation, sick: Path) -> None:
    installation.start("solo", "worker", "solo")
    installation.wait_ready(1)
    (child,) = children(installation)

    assert oom_score(child) == 500
    assert oom_score(psutil.Process(installation.processes["solo"].pid)) == oom_score(psutil.Process())


# SIGTERM


def test_an_idle_worker_ends_at_once(installation: Installation, sick: Path) -> None:
    installation.start("solo", "worker", "solo")
    installation.wait_ready(1)

    code, seconds = terminate(installation)

    assert code == 0
    assert seconds < 15
    assert workers(installation) == []


@pytest.mark.parametrize("model", ["loads", "broken"])
def test_a_worker_that_cannot_work_yet_ends_promptly(installation: Installation, sick: Path, model: str) -> None:
    installation.start("solo", "worker", model)
    status = {"loads": "starting", "broken": "broken"}[model]
    wait_until(lambda: workers(installation) == [f"{model} {status}"], 30, installation.logs)
    wait_until(lambda: [oom_score(child) for child in children(installation)] == [500], 30, installation.logs)
    time.sleep(0.5)  # now it loads

    code, seconds = terminate(installation)

    assert code == 0
    assert seconds < 15
    assert workers(installation) == []


def test_a_worker_that_has_hardly_started_ends_at_once(installation: Installation, sick: Path) -> None:
    installation.start("solo", "worker", "solo")
    wait_until(lambda: workers(installation), 30, installation.logs)

    code, seconds = terminate(installation)

    assert code == 0
    assert seconds < 15
    assert workers(installation) == []


def test_a_batch_that_runs_is_finished_and_stored(installation: Installation, sick: Path) -> None:
    start(installation)
    enqueue(installation, "three seconds")
    wait_for(installation, "running")

    began = time.monotonic()
    os.killpg(installation.processes["solo"].pid, signal.SIGTERM)
    wait_until(lambda: "solo stopping" in workers(installation), 20, installation.logs)
    code = installation.processes.pop("solo").wait(30)

    assert code == 0
    assert 1 < time.monotonic() - began < 15
    (candidate,) = candidates(installation, "done")
    assert candidate.attempt == 1
    assert "solo" not in " ".join(workers(installation))


def test_a_batch_that_does_not_end_is_given_back_uncharged(installation: Installation, sick: Path) -> None:
    installation.settings["BAKEOFF_STOP_SECONDS"] = "2"
    installation.settings["BAKEOFF_LEASE_SECONDS"] = "300"
    start(installation)
    enqueue(installation, "hang")
    wait_for(installation, "running")
    installation.stop("scheduler", signal.SIGKILL)
    (child,) = children(installation)

    code, seconds = terminate(installation)

    assert code == 0
    assert 1.5 < seconds < 15
    (candidate,) = candidates(installation, "chosen")
    assert (candidate.attempt, candidate.token, candidate.message_id) == (0, None, None)
    assert is_dead(child)


def test_a_judge_that_hangs_is_given_back_uncharged(installation: Installation, sick: Path) -> None:
    installation.settings["BAKEOFF_STOP_SECONDS"] = "1"
    installation.settings["BAKEOFF_LEASE_SECONDS"] = "300"
    for name in ("judge", "second"):
        installation.start(name, "worker", "--judge" if name == "judge" else name)
    installation.start("solo", "worker", "solo")
    installation.wait_ready(3)
    installation.start("scheduler", "scheduler")
    enqueue(installation, "which is better?")
    wait_until(lambda: subtasks(installation)[:1] == [("judging", 1)], 30, installation.logs)
    installation.stop("scheduler", signal.SIGKILL)

    code, seconds = terminate(installation, "judge")

    assert code == 0
    assert seconds < 15
    assert subtasks(installation) == [("running", 0)]


def subtasks(installation: Installation) -> list[tuple[str, int]]:
    return [(row.status, row.attempt) for row in installation.query("SELECT status, attempt FROM subtask")]


def test_a_second_signal_gives_back_at_once(installation: Installation, sick: Path) -> None:
    installation.settings["BAKEOFF_LEASE_SECONDS"] = "300"
    start(installation)
    enqueue(installation, "hang the lock")
    wait_for(installation, "running")
    installation.stop("scheduler", signal.SIGKILL)

    os.killpg(installation.processes["solo"].pid, signal.SIGINT)
    time.sleep(0.5)
    assert installation.processes["solo"].poll() is None
    code, seconds = terminate(installation)

    assert code == 0
    assert seconds < 15
    (candidate,) = candidates(installation, "chosen")
    assert candidate.attempt == 0


def test_a_redis_that_hangs_does_not_hold_up_the_end(installation: Installation, sick: Path) -> None:
    with forwarder(installation.redis_url) as (url, frozen):
        installation.redis_url, real = url, installation.redis_url
        installation.start("solo", "worker", "solo")
        installation.redis_url = real
        installation.wait_ready(1)
        frozen.set()

        code, seconds = terminate(installation)

    assert code == 0
    assert seconds < 15


@contextlib.contextmanager
def forwarder(redis_url: str) -> Iterator[tuple[str, threading.Event]]:
    """A Redis that stops to answer when asked to: its connections stay open, as behind a firewall."""
    from urllib.parse import urlsplit, urlunsplit

    parts = urlsplit(redis_url)
    frozen = threading.Event()
    listening = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if frozen.is_set():
                    time.sleep(3600)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                ours, _ = listening.accept()
                theirs = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 6379))
                for pair in ((ours, theirs), (theirs, ours)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    login = parts.netloc.rpartition("@")[0]
    place = f"{login}@" if login else ""
    yield urlunsplit(parts._replace(netloc=f"{place}127.0.0.1:{listening.getsockname()[1]}")), frozen
    listening.close()


# Models that hang, hold the interpreter's lock, eat the memory, lose their device


def test_a_memory_hog_is_killed_and_the_others_are_done(installation: Installation, sick: Path) -> None:
    start(installation)
    (child,) = children(installation)
    enqueue(installation, "a", "hog", "b")

    wait_until(lambda: logged(installation, "memory_exceeded"), 20, installation.logs)
    sick.unlink()

    done = wait_for(installation, "done", 3)
    assert {row.output for row in done} == {"done: a", "done: hog", "done: b"}
    assert is_dead(child)


def test_a_batch_that_hangs_is_ended_soon_after_its_deadline(installation: Installation, sick: Path) -> None:
    write_models(installation, timeout=1.0)
    installation.settings["BAKEOFF_LEASE_SECONDS"] = "300"
    start(installation)
    enqueue(installation, "hang")
    wait_for(installation, "running")
    began = time.monotonic()

    wait_until(lambda: logged(installation, "batch_overrun"), 20, installation.logs)
    seconds = time.monotonic() - began
    sick.unlink()

    (done,) = wait_for(installation, "done")
    assert done.attempt == 2
    assert 2 < seconds < 15


def test_a_model_that_holds_the_interpreter_is_ended_by_the_hard_limit(installation: Installation, sick: Path) -> None:
    write_models(installation, timeout=1.0)
    installation.settings["BAKEOFF_START_ALLOWANCE"] = "1"  # the hard limit: this, the model's second and ten more
    installation.settings["BAKEOFF_LEASE_SECONDS"] = "300"
    start(installation)
    (child,) = children(installation)
    enqueue(installation, "hang the lock")
    wait_for(installation, "running")
    began = time.monotonic()

    wait_until(lambda: logged(installation, "child_lost"), 30, installation.logs)
    seconds = time.monotonic() - began
    sick.unlink()

    (done,) = wait_for(installation, "done")
    assert done.attempt == 2
    assert 5 < seconds < 30
    assert is_dead(child)


def test_a_process_whose_device_is_lost_is_replaced(installation: Installation, sick: Path) -> None:
    start(installation)
    (child,) = children(installation)
    enqueue(installation, "device")

    wait_until(lambda: logged(installation, "process_unusable"), 20, installation.logs)
    sick.unlink()

    (done,) = wait_for(installation, "done")
    assert done.attempt == 2
    assert is_dead(child)


def test_an_answer_of_50_megabytes_and_no_answer_are_refused(installation: Installation, sick: Path) -> None:
    start(installation)
    enqueue(installation, "huge", "nothing", "well")

    (done,) = wait_for(installation, "done")
    wait_until(lambda: len(errors(installation)) == 2, 20, installation.logs)

    assert done.output == "done: well"
    assert {row.error["code"] for row in errors(installation)} == {"output_too_long", "no_text"}


def errors(installation: Installation) -> list[Any]:
    return installation.query("SELECT error FROM candidate WHERE error IS NOT NULL")


# Liveness


def test_a_worker_that_consumes_nothing_ends_so_that_it_is_started_again(
    installation: Installation, sick: Path
) -> None:
    installation.settings["BAKEOFF_STALL_SECONDS"] = "2"
    installation.start("solo", "worker", "solo")
    installation.wait_ready(1)
    control = Celery(broker=installation.redis_url).control
    (name,) = [row.name for row in installation.query("SELECT name FROM worker")]
    wait_until(lambda: control.ping([f"{name}"], timeout=1), 20, installation.logs)

    control.cancel_consumer("model.solo", destination=[name], reply=True)
    Celery(broker=installation.redis_url).send_task("bakeoff.run_candidates", queue="model.solo")

    code = installation.processes.pop("solo").wait(20)
    assert code == 75
    assert logged(installation, "worker_stalled")
    assert workers(installation) == []


# Intake


def test_what_killed_intake_workers_held_is_stored_once_by_the_next(installation: Installation, sick: Path) -> None:
    installation.settings["BAKEOFF_INTAKE_VISIBILITY"] = "3"
    client = Celery(broker=installation.redis_url)
    for number in range(120):
        queue = ("intake", "celery")[number % 2]
        client.send_task("bakeoff.submit", kwargs={"request": str(number)}, task_id=str(uuid4()), queue=queue)

    for few in (5, 40):
        installation.start("intake", "worker", "--intake")
        wait_until(lambda few=few: len(stored(installation)) > few, 20, installation.logs)
        installation.stop("intake", signal.SIGKILL)
        assert len(stored(installation)) < 120
    installation.start("intake", "worker", "--intake")

    wait_until(lambda: len(stored(installation)) >= 120, 30, installation.logs)
    code, seconds = terminate(installation, "intake")
    assert sorted(stored(installation), key=int) == [str(number) for number in range(120)]
    assert code == 0
    assert seconds < 15


def stored(installation: Installation) -> list[str]:
    return [row.request for row in installation.query("SELECT request FROM task")]


def test_a_model_whose_process_dies_while_it_loads_is_called_broken(installation: Installation, sick: Path) -> None:
    installation.start("solo", "worker", "loads")
    seen: list[psutil.Process] = []

    def another() -> bool:
        """A new child, still itself a moment later: what multiprocessing starts besides looks like one at first."""
        new = [child for child in children(installation) if child not in seen]
        time.sleep(0.2)
        seen.extend([child for child in new if not is_dead(child) and not is_helper(child)][:1])
        return len(seen) > before

    for _ in range(3):
        before = len(seen)
        wait_until(another, 30, installation.logs)
        time.sleep(1.5)  # the parent has noticed it
        seen[-1].kill()

    def status() -> str:
        return str(installation.query("SELECT status FROM worker")[0].status)

    wait_until(lambda: status() == "broken", 30, installation.logs)
    assert "ended before the model was loaded" in installation.query("SELECT error FROM worker")[0].error
