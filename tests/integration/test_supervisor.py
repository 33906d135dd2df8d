"""`up` with small stand-ins for its children: what it starts, starts again, stops, and leaves behind when killed."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
import psycopg
import pytest

from db.instance import Instance, read_instance, running
from scheduler.local import files
from scheduler.local.children import Child, flower_spec
from scheduler.local.servers import EmbeddedRedis
from scheduler.local.up import run_down

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.integration

CHECKOUT = Path(__file__).resolve().parents[2]

# A supervisor whose children only write what they were given and wait. Arguments: home, what is special.
UP = """
import json, os, sys, pathlib
from scheduler.local.children import ChildSpec
from scheduler.local.servers import EmbeddedPostgres, EmbeddedRedis
from scheduler.local.supervisor import Supervisor

home, special = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
WAIT = "import os, time; print('addresses', os.environ['BAKEOFF_DATABASE_URL'], flush=True); time.sleep(600)"
children = [
    ChildSpec(name="scheduler", command=("-c", WAIT), stop_rank=1),
    ChildSpec(name="worker-a", command=("-c", special.get("worker", WAIT)), models=("a",), reports=True, grace=float(special.get("grace", 1))),
]

def states(database_url):
    known = json.loads((home / "up.json").read_text())["children"]
    return {c["pid"]: special.get("state", "ready") for c in known if c["name"] == "worker-a"}

def migrate(database_url):
    import psycopg
    with psycopg.connect(database_url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (n int)")

try:
    code = Supervisor(
        home=home,
        profile="test",
        children=children,
        environment=os.environ,
        database=special.get("database") or EmbeddedPostgres(home / "postgres", durable=False),
        redis=special.get("redis") or EmbeddedRedis(home / "redis"),
        migrate=migrate,
        states=states,
        echo=lambda text: print(text, flush=True),
    ).run()
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
sys.exit(code)
"""


class Up:
    """A running supervisor and what it printed."""

    def __init__(self, home: Path, special: dict[str, str], prefix: tuple[str, ...] = ()) -> None:
        self.home = home
        self.output = home.parent / f"{home.name}.out"
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-c", textwrap.dedent(UP), str(home), json.dumps(special)],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=CHECKOUT,
            )

    @property
    def text(self) -> str:
        return self.output.read_text()

    @property
    def instance(self) -> Instance:
        found = read_instance(self.home)
        assert found is not None, self.text
        return found

    def wait_for(self, words: str, count: int = 1, seconds: float = 30) -> Up:
        wait_until(lambda: self.text.count(words) >= count or self.process.poll() is not None, seconds)
        assert self.text.count(words) >= count, self.text
        return self

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)

    def everything(self) -> list[psutil.Process]:
        me = psutil.Process(self.process.pid)
        return [me, *me.children(recursive=True)]


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    started: list[Up] = []

    def start(home: Path | None = None, prefix: tuple[str, ...] = (), **special: str) -> Up:
        started.append(Up(home or tmp_path / "home with spaces", special, prefix))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)


def still_alive(processes: list[psutil.Process], seconds: float = 15) -> list[psutil.Process]:
    def alive() -> list[psutil.Process]:
        return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]

    def gone() -> bool:
        try:
            return not alive()
        except psutil.NoSuchProcess:
            return False

    wait_until(gone, seconds)
    return [] if gone() else alive()


def rows(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)  # type: ignore[call-overload]
        return cursor.fetchall() if cursor.description else []


def test_it_starts_says_everything_and_stops_on_ctrl_c(up: Callable[..., Up]) -> None:
    one = up().wait_for("Ready in")
    instance = one.instance
    everything = one.everything()

    assert running(instance)
    assert instance.supervisor.pid == one.process.pid
    assert {child.name for child in instance.children} == {"scheduler", "worker-a"}
    for shown in (instance.database_url, instance.redis_url, str(one.home), "bakeoff down"):
        assert shown in one.text
    assert (one.home / "logs" / "scheduler.log").read_text() == f"addresses {instance.database_url}\n"
    assert stat.S_IMODE((one.home / "logs").stat().st_mode) == 0o700

    assert one.end() == 0

    assert still_alive(everything) == []
    assert "The data is kept" in one.text
    assert read_instance(one.home) is None


def test_a_second_start_finds_the_data_at_the_same_addresses(up: Callable[..., Up]) -> None:
    first = up().wait_for("Ready in")
    urls = (first.instance.database_url, first.instance.redis_url)
    rows(urls[0], "INSERT INTO kept VALUES (1)")
    first.end(signal.SIGTERM)

    second = up().wait_for("Ready in", count=2)

    assert (second.instance.database_url, second.instance.redis_url) == urls
    assert rows(urls[0], "SELECT n FROM kept") == [(1,)]


def test_killed_it_leaves_nothing_running_and_starts_again_with_the_data(up: Callable[..., Up]) -> None:
    first = up().wait_for("Ready in")
    everything = first.everything()
    rows(first.instance.database_url, "INSERT INTO kept VALUES (2)")

    first.process.kill()
    first.process.wait()

    assert still_alive(everything) == []
    second = up().wait_for("Ready in", count=2)
    assert rows(second.instance.database_url, "SELECT n FROM kept") == [(2,)]


def test_what_outlives_a_killed_up_is_stopped_by_the_next(up: Callable[..., Up]) -> None:
    escaped = "import ctypes, time; ctypes.CDLL(None).prctl(1, 0, 0, 0, 0); time.sleep(600)"  # no signal then
    first = up(worker=escaped).wait_for("Ready in")
    time.sleep(1)  # until it has asked the kernel
    worker = next(child for child in first.instance.children if child.name == "worker-a")
    first.process.kill()
    first.process.wait()
    assert worker.alive()

    up().wait_for("Ready in", count=2).wait_for("stopped what it left running: worker-a")

    assert not worker.alive()


def test_a_child_that_dies_is_started_again_with_one_line(up: Callable[..., Up]) -> None:
    one = up().wait_for("Ready in")
    before = next(child for child in one.instance.children if child.name == "scheduler")

    os.kill(before.pid, signal.SIGKILL)

    one.wait_for("scheduler was killed by SIGKILL, starts again in 1 s; last line of")
    wait_until(lambda: any(c.name == "scheduler" and c.pid != before.pid for c in one.instance.children))
    after = next(child for child in one.instance.children if child.name == "scheduler")
    assert after.pid != before.pid
    assert after.alive()


def test_servers_that_die_are_started_again_at_their_addresses(up: Callable[..., Up]) -> None:
    one = up().wait_for("Ready in")
    for name in ("postgres", "redis"):
        pid = json.loads((one.home / name / "process.json").read_text())["pid"]
        os.kill(pid, signal.SIGKILL)
        one.wait_for(f"The {name} server ended, starts again")

    def answers() -> bool:
        try:
            return rows(one.instance.database_url, "SELECT count(*) FROM kept") == [(0,)]
        except psycopg.OperationalError:
            return False

    wait_until(answers)
    assert answers(), one.text


def test_a_worker_that_cannot_start_is_called_broken_with_its_last_words(up: Callable[..., Up]) -> None:
    one = up(worker="raise SystemExit('no such weights')", state="starting")
    one.wait_for("model a is broken: no such weights").wait_for("Broken: model a")


def test_a_model_that_reports_to_be_broken_is_named(up: Callable[..., Up]) -> None:
    up(state="broken: sha256 differs").wait_for("model a is broken: sha256 differs").wait_for("nothing can work")


def test_a_worker_that_does_not_end_is_killed_after_its_grace(up: Callable[..., Up]) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    one = up(worker=deaf).wait_for("Ready in")
    everything = one.everything()

    begun = time.monotonic()
    assert one.end() == 0

    assert still_alive(everything) == []
    assert 0.9 < time.monotonic() - begun < 15


def test_a_second_ctrl_c_kills(up: Callable[..., Up]) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    one = up(worker=deaf, grace="600").wait_for("Ready in")
    everything = one.everything()

    one.process.send_signal(signal.SIGINT)
    one.wait_for("Stopping")
    assert one.process.poll() is None
    assert one.end() == 0

    assert still_alive(everything) == []


def test_ctrl_c_while_it_starts_leaves_nothing(up: Callable[..., Up]) -> None:
    one = up()
    wait_until((one.home / "postgres" / "lock").exists)

    assert one.end() == 0

    assert still_alive(one_of_home(one.home)) == []
    assert "Traceback" not in one.text


def one_of_home(home: Path) -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["cmdline"]) if any(str(home) in part for part in p.info["cmdline"] or [])]


def test_down_stops_it_and_says_so(up: Callable[..., Up], capsys: pytest.CaptureFixture[str]) -> None:
    one = up().wait_for("Ready in")
    everything = one.everything()[1:]

    assert run_down(one.home, echo=print) == 0

    assert f"(pid {one.process.pid})" in capsys.readouterr().out
    assert one.process.wait(5) == 0
    assert still_alive(everything) == []
    assert run_down(one.home, echo=print) == 0
    assert "Nothing is running" in capsys.readouterr().out


def test_down_where_nothing_ever_ran_creates_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_down(tmp_path / "none", echo=print) == 0
    assert "Nothing is running" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


def test_two_homes_run_side_by_side_and_one_home_runs_once(up: Callable[..., Up], tmp_path: Path) -> None:
    first = up().wait_for("Ready in")
    second = up(home=tmp_path / "other").wait_for("Ready in")
    assert first.instance.database_url != second.instance.database_url

    third = up()

    assert third.process.wait(20) == 1
    assert f"RefusedNow: Bakeoff is already running (pid {first.process.pid})" in third.text


def test_other_peoples_servers_are_used_and_their_passwords_masked(up: Callable[..., Up], tmp_path: Path) -> None:
    theirs = up(home=tmp_path / "theirs").wait_for("Ready in").instance
    password = theirs.database_url.split(":")[2].split("@")[0]

    ours = up(home=tmp_path / "ours", database=theirs.database_url).wait_for("Ready in")

    assert ours.instance.database_url == theirs.database_url
    assert not (ours.home / "postgres").exists()
    assert (ours.home / "redis").exists()
    assert password not in ours.text


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests are the ones of a normal user")
def test_as_a_normal_user(up: Callable[..., Up]) -> None:
    as_user = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
    one = up(prefix=as_user).wait_for("Ready in")
    assert rows(one.instance.database_url, "SELECT 1") == [(1,)]
    assert one.end() == 0


def test_flower_asks_for_its_password_and_changes_nothing(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / "redis")
    url, port = server.start(), files.free_port()
    environment = {**os.environ, "BAKEOFF_REDIS_URL": url, "BAKEOFF_HOME": str(tmp_path), "PYTHONPATH": str(CHECKOUT)}
    child = Child(flower_spec(port, "its-password"), tmp_path / "flower.log", environment)
    child.start()
    try:
        address = f"http://127.0.0.1:{port}"

        def answers() -> bool:
            try:
                return httpx.get(f"{address}/healthcheck").status_code == 200
            except httpx.TransportError:
                return False

        wait_until(answers)
        mine = httpx.Client(auth=("bakeoff", "its-password"), base_url=address)
        assert httpx.get(f"{address}/workers").status_code == 401
        assert mine.get("/workers").status_code == 200, child.log.read_text()
        assert mine.post("/api/worker/shutdown/x").status_code == 403
        assert mine.post("/api/task/send-task/bakeoff.submit", json={"args": []}).status_code == 403
    finally:
        child.kill()
        server.stop()
