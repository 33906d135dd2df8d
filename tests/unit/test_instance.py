"""`up.json`, the lock, and telling one process from another with the same id."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from db.errors import RefusedNow
from db.instance import FILE_NAME, ChildRef, Instance, ProcessRef, read_instance, running
from scheduler.local.instance import only_up, stop_leftovers, supervisor_of, write_instance

if TYPE_CHECKING:
    from pathlib import Path


def an_instance(**changes: object) -> Instance:
    values: dict[str, object] = {
        "supervisor": ProcessRef.of(os.getpid()),
        "profile": "demo",
        "database_url": "postgresql://bakeoff:secret-1@127.0.0.1:1/bakeoff",
        "redis_url": "redis://:secret-2@127.0.0.1:2/0",
        "flower_password": "secret-3",
    }
    return Instance.model_validate(values | changes)


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)


def test_what_is_written_is_read_and_only_by_its_owner(tmp_path: Path) -> None:
    written = an_instance(children=[{"name": "scheduler", "pid": 1, "start_time": 2.5}])

    write_instance(tmp_path, written)

    assert read_instance(tmp_path) == written
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"supervisor": 1}'])
def test_a_file_that_makes_no_sense_is_no_instance(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    assert read_instance(tmp_path) is None


def test_no_file_and_no_folder_are_no_instance(tmp_path: Path) -> None:
    assert read_instance(tmp_path) is None
    assert read_instance(tmp_path / "none") is None


def test_passwords_stay_out_of_its_representation() -> None:
    assert "secret" not in repr(an_instance())


def test_this_process_runs_and_another_with_its_id_does_not() -> None:
    mine = ProcessRef.of(os.getpid())
    assert running(an_instance())
    assert not running(an_instance(supervisor=mine.model_copy(update={"start_time": mine.start_time - 100})))


def test_a_process_that_waits_to_be_reaped_has_ended() -> None:
    child = sleeper()
    ref = ProcessRef.of(child.pid)
    assert ref.alive()
    os.kill(child.pid, 9)
    deadline = time.monotonic() + 10
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not ref.alive()
    child.wait()
    assert not ref.alive()


def test_a_second_up_is_told_who_runs_and_what_to_do(tmp_path: Path) -> None:
    with (
        only_up(tmp_path),
        pytest.raises(RefusedNow, match=rf"already running \(pid {os.getpid()}\).*bakeoff down"),
        only_up(tmp_path),
    ):
        pass


def test_the_lock_ends_with_the_process_that_held_it(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            (
                "import sys, time, pathlib, scheduler.local.instance as i\n"
                "with i.only_up(pathlib.Path(sys.argv[1])):\n    print(flush=True); time.sleep(60)"
            ),
            str(tmp_path),
        ],
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    found = supervisor_of(tmp_path)
    assert found is not None
    assert found.pid == holder.pid

    holder.kill()
    holder.wait()

    assert supervisor_of(tmp_path) is None
    with only_up(tmp_path):
        pass


def test_nobody_is_found_where_nothing_ever_ran(tmp_path: Path) -> None:
    assert supervisor_of(tmp_path / "none") is None
    assert not (tmp_path / "none").exists()


def test_leftovers_are_stopped_and_strangers_are_not(tmp_path: Path) -> None:
    left, stranger = sleeper(), sleeper()
    stubborn = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)",
        ],
        start_new_session=True,
        stdout=subprocess.PIPE,
    )
    assert stubborn.stdout is not None
    stubborn.stdout.readline()
    children = [
        ChildRef(name="left", **ProcessRef.of(left.pid).model_dump()),
        ChildRef(name="stubborn", **ProcessRef.of(stubborn.pid).model_dump()),
        ChildRef(name="stranger", pid=stranger.pid, start_time=ProcessRef.of(stranger.pid).start_time - 1000),
    ]
    write_instance(tmp_path, an_instance(children=[child.model_dump() for child in children]))

    stopped = stop_leftovers(tmp_path, grace=0.5)

    assert stopped == ["left", "stubborn"]
    assert (left.wait(5), stubborn.wait(5)) == (-15, -9)
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_the_message_names_the_folder(tmp_path: Path) -> None:
    with only_up(tmp_path), pytest.raises(RefusedNow, match=re.escape(str(tmp_path))), only_up(tmp_path):
        pass
