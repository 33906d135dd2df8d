"""`bakeoff up` with scripted models: one command, everything runs, work is done, Flower shows it, it stops or is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from db.instance import Instance, read_instance
from tests.conftest import SCRIPTED, Completed, wait_until

pytestmark = pytest.mark.integration


@dataclass
class Up:
    """One `bakeoff up` in a folder of its own."""

    folder: Path
    process: subprocess.Popen[str] | None = None

    @property
    def home(self) -> Path:
        return self.folder / ".bakeoff"

    @property
    def environment(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("BAKEOFF_")}
        quick = {"BAKEOFF_LEASE_SECONDS": "6", "BAKEOFF_LOST_AFTER": "2", "BAKEOFF_SETTLE_SECONDS": "10",
                 "BAKEOFF_API_PORT": "0"}  # fmt: skip
        return {**clean, **quick, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}

    def start(self) -> None:
        log = self.log.open("a")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "scheduler.cli", "up"],
            env=self.environment, cwd=self.folder, stdout=log, stderr=log, text=True, start_new_session=True,
        )  # fmt: skip
        before = self.printed().count("Ready in")
        wait_until(lambda: self.printed().count("Ready in") > before, 90, self.printed)

    @property
    def log(self) -> Path:
        return self.folder / "up.log"

    def printed(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def run(self, *arguments: str) -> Completed:
        done = subprocess.run(
            [sys.executable, "-m", "scheduler.cli", *arguments],
            env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return Completed(done.returncode, done.stdout, done.stderr)

    @property
    def instance(self) -> Instance:
        found = read_instance(self.home)
        assert found is not None
        return found

    def pids(self) -> list[int]:
        assert self.process is not None
        return [child.pid for child in psutil.Process(self.process.pid).children(recursive=True)]


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    folder = tmp_path / "a folder with spaces"
    folder.mkdir()
    (folder / "models.toml").write_text(SCRIPTED)
    made = Up(folder)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.process.send_signal(signal.SIGTERM)
        made.process.wait(60)


def submit(up: Up, text: str) -> Any:
    done = up.run("submit", text, "--wait", "--json")
    assert done.code == 0, done.err + up.printed()
    return done.json


def test_up_works_shows_itself_in_flower_and_stops(up: Up) -> None:
    up.start()

    story = submit(up, "hello")
    from_sql = up.run("sql", "select answer from results", "--json").json
    api, flower, user = (
        up.instance.api_url,
        up.instance.flower_url,
        (up.instance.flower_user, up.instance.flower_password),
    )
    refused = httpx.get(f"{flower}/api/workers")
    workers = httpx.get(f"{flower}/api/workers?refresh=1", auth=user, timeout=30).json()
    tasks = httpx.get(f"{flower}/api/tasks", auth=user, timeout=30).json()
    listed = httpx.get(f"{api}/v1/tasks", timeout=30).json()
    pids = up.pids()
    down = up.run("down")

    assert story["answer"] == "beta says more: hello"
    assert from_sql == [{"answer": "beta says more: hello"}]
    assert [task["task_id"] for task in listed["tasks"]] == [story["id"]]
    assert refused.status_code == 401
    assert {"alpha", "beta", "gamma", "judge", "intake"} <= {name.partition("@")[0] for name in workers}
    runs = [task for task in tasks.values() if task["name"] == "bakeoff.run_candidates"]
    assert {model for model in ("alpha", "beta", "gamma") for run in runs if f"'{model}'" in run["kwargs"]} == {
        "alpha", "beta", "gamma",
    }  # fmt: skip
    assert all(story["id"] in run["kwargs"] for run in runs)
    assert down.code == 0
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids), 10)
    assert all(secret in up.printed() for secret in (api, flower, user[1]))


def test_up_goes_on_after_a_kill_with_what_it_had_stored(up: Up) -> None:
    up.start()
    first = submit(up, "before the kill")
    up.run("sql", "insert into task (request) select 'slow ' || n from generate_series(1, 6) as n", "--write")
    pids = up.pids()

    assert up.process is not None
    up.process.kill()
    up.process.wait()
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids), 20, lambda: str(pids))
    up.start()

    wait_until(
        lambda: up.run("sql", "select count(*) from results where status = 'done'", "--json").json == [{"count": 7}],
        120,
        up.printed,
    )
    assert up.run("show", first["id"], "--json").json["answer"] == first["answer"]


def test_commands_where_nothing_runs_say_how_to_start(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()

    done = Up(folder).run("submit", "x")

    assert (done.code, "bakeoff up" in done.err) == (3, True)
    assert list(folder.iterdir()) == []
