"""`bakeoff watch` in pipes and on terminals, what shells complete, and what an other schema is told as."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from db.endings import cancel_tasks
from db.errors import Unreachable
from db.settings import Settings
from scheduler import waiting
from scheduler.cli import completing
from scheduler.cli.watch import Watched, by_change
from tests.conftest import Installation, wait_until
from tests.in_process import Ran, runner
from tests.integration.curation_parts import conversations, write_array

pytestmark = pytest.mark.integration

PATIENCE = 120  # seconds, for a machine that has other things to do
#: makes the terminal its own, so that Ctrl-C is a signal to it
ON_TERMINAL = "import os, sys; os.login_tty(os.dup(0)); os.execvp(sys.argv[1], sys.argv[1:])"
COLOUR = re.compile(r"\x1b\[[0-9;]*[349][0-7]\d*m")


def a_task(installation: Installation, source: str = "cli") -> UUID:
    """A task that nobody works on: it waits."""
    found = installation.query("INSERT INTO task (request, source) VALUES ('x', :s) RETURNING id", s=source)
    return UUID(str(found[0].id))


def cancel(installation: Installation, task: UUID) -> None:
    engine = installation.engine()
    with engine.begin() as connection:
        cancel_tasks(connection, [task])
    engine.dispose()


class Started:
    """A command whose output is read as it comes, from a pipe or as its terminal."""

    def __init__(self, process: subprocess.Popen[bytes], out: int) -> None:
        self.process, self._out, self.printed = process, out, ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                said = os.read(self._out, 65536)
            except OSError:  # the terminal's other end is closed
                return
            if not said:
                return
            self.printed += said.decode(errors="replace")

    def wait_for(self, words: str) -> None:
        wait_until(lambda: words in self.printed or self.process.poll() is not None, PATIENCE, lambda: self.printed)
        assert words in self.printed, self.printed

    def end(self) -> int:
        code = self.process.wait(PATIENCE)
        self._reader.join(10)
        return code


@contextmanager
def in_pipe(installation: Installation, *words: str) -> Iterator[Started]:
    process = subprocess.Popen(
        installation.command(*words), env=installation.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    try:
        yield Started(process, process.stdout.fileno())
    finally:
        process.kill()
        process.wait()


@contextmanager
def on_terminal(
    installation: Installation, *words: str, command: Sequence[str] = (), **environment: str
) -> Iterator[tuple[Started, int]]:
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", ON_TERMINAL, *(command or installation.command(*words))],
        env={**installation.environment, "TERM": "xterm-256color", **environment},
        stdin=its,
        stdout=its,
        stderr=its,
    )
    os.close(its)
    try:
        yield Started(process, ours), ours
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_a_watched_task_is_a_json_object_per_change(installation: Installation) -> None:
    task = a_task(installation)

    with in_pipe(installation, "watch", str(task), "--json") as watch:
        watch.wait_for('"pending"')
        cancel(installation, task)
        code = watch.end()

    said = [json.loads(line) for line in watch.printed.splitlines()]
    assert [(one["id"], one["status"], one["doing"]) for one in said] == [
        (str(task), "pending", "waiting"),
        (str(task), "cancelled", ""),
    ]
    assert code == 1  # it was named, and is not done


def test_without_a_terminal_a_change_is_a_line(installation: Installation) -> None:
    task = a_task(installation)

    with in_pipe(installation, "watch") as watch:
        watch.wait_for(f"{task}  pending")
        another = a_task(installation)
        watch.wait_for(f"{another}  pending")
        cancel(installation, task)
        cancel(installation, another)
        code = watch.end()

    assert code == 0
    assert len(watch.printed.splitlines()) == 4
    assert "\x1b" not in watch.printed


def test_an_interrupted_watch_ends_well(installation: Installation) -> None:
    task = a_task(installation)

    with in_pipe(installation, "watch") as watch:
        watch.wait_for(str(task))
        watch.process.send_signal(signal.SIGINT)
        code = watch.end()

    assert (code, "the work goes on" in watch.printed, "Traceback" in watch.printed) == (0, True, False)


def test_on_a_terminal_the_tasks_are_a_table_until_ctrl_c(installation: Installation) -> None:
    task = a_task(installation)

    with on_terminal(installation, "watch", NO_COLOR="1") as (watch, keyboard):
        watch.wait_for(str(task))
        watch.wait_for("1 open, 0 ended")
        os.write(keyboard, b"\x03")
        code = watch.end()

    assert (code, "the work goes on" in watch.printed) == (0, True), watch.printed
    assert watch.printed.rindex("\x1b[?25h") > watch.printed.index("\x1b[?25l")  # the cursor is back
    assert not COLOUR.search(watch.printed)


def test_a_dumb_terminal_gets_lines(installation: Installation) -> None:
    task = a_task(installation)

    with on_terminal(installation, "watch", TERM="dumb") as (watch, _):
        watch.wait_for(f"{task}  pending")
        cancel(installation, task)
        code = watch.end()

    assert (code, "\x1b" in watch.printed) == (0, False)


def test_a_wait_says_on_the_terminal_what_happens(installation: Installation) -> None:
    words = ("submit", "hello", "-c", "text-generation", "--without-worker", "--wait", "--json")

    with on_terminal(installation, *words) as (wait, _):
        wait.wait_for(": waiting, ")
        (task,) = installation.query("SELECT id FROM task")
        cancel(installation, task.id)
        code = wait.end()

    assert code == 1
    assert '"status": "cancelled"' in wait.printed


def a_recipe(folder: Path) -> str:
    """A job that asks no model."""
    write_array(folder / "records.json", conversations(30))
    path = folder / "job.toml"
    path.write_text('name = "job"\nstages = ["validate", "exact"]\n[input]\nfile = "records.json"')
    return str(path)


def test_a_curation_on_a_terminal_shows_its_funnel(installation: Installation, tmp_path: Path) -> None:
    with on_terminal(installation, "curate", "run", a_recipe(tmp_path), NO_COLOR="1") as (curation, _):
        curation.wait_for("kept so far")
        curation.wait_for("job: done")
        code = curation.end()

    assert code == 0
    assert curation.printed.rindex("\x1b[?25h") < curation.printed.rindex("job: done")  # what was drawn is gone


def test_a_curation_in_a_pipe_gives_json_alone_and_says_its_stages(installation: Installation, tmp_path: Path) -> None:
    done = installation.run("curate", "run", a_recipe(tmp_path), "--json", timeout=PATIENCE)

    assert (done.code, done.json["status"], done.json["records"]) == (0, "done", 30), done.err
    assert "job: validate: 30 of 30" in done.err


def test_ids_of_many_tasks_go_to_the_file_that_is_meant(installation: Installation, tmp_path: Path) -> None:
    file, ids = tmp_path / "tasks.jsonl", tmp_path / "ids.txt"
    file.write_text('{"request": "one", "capability": "text-generation"}\n' * 3)
    words = [*installation.command("submit", "--from", str(file), "--without-worker")]

    with on_terminal(installation, command=["sh", "-c", f'"$@" > {ids}', "sh", *words]) as (submission, _):
        submission.wait_for("3 tasks stored")
        code = submission.end()

    stored = {str(row.id) for row in installation.query("SELECT id FROM task")}
    assert (code, set(ids.read_text().split())) == (0, stored)


def test_polling_finds_what_notices_would_have_told(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_: str) -> Any:
        raise Unreachable("no notices here")

    monkeypatch.setattr(waiting, "listen", away)
    with database.begin() as connection:
        task = connection.execute(text("INSERT INTO task (request) VALUES ('x') RETURNING id")).scalar_one()
    seen: list[str] = []

    def look(one: Any) -> None:
        seen.append(one.status)
        with database.begin() as connection:
            cancel_tasks(connection, [task])

    url = database.url.set(drivername="postgresql").render_as_string(hide_password=False)
    Watched(Settings(database_url=url), [task]).follow(PATIENCE, by_change(look))

    assert seen == ["pending", "cancelled"]


@pytest.fixture
def shell(installation: Installation, tmp_path: Path) -> Any:
    """Complete words as bash does: the function that bash loads, called in a real bash."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "bakeoff"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m scheduler.cli "$@"\n')
    script.chmod(0o755)
    loaded = tmp_path / "completion.sh"
    loaded.write_text(installation.run(env={"_BAKEOFF_COMPLETE": "source_bash"}).out)

    def complete(*words: str, **environment: str) -> list[str]:
        quoted = " ".join(f"'{word}'" for word in words)
        asked = f"COMP_WORDS=(bakeoff {quoted}); COMP_CWORD={len(words)}; _bakeoff_completion bakeoff"
        done = subprocess.run(
            ["bash", "--norc", "-c", f"source '{loaded}'; {asked}; printf '%s\\n' \"${{COMPREPLY[@]}}\""],
            env={**installation.environment, "PATH": f"{folder}:{os.environ['PATH']}", **environment},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        return done.stdout.split()

    return complete


def test_bash_completes_commands_and_names(shell: Any) -> None:
    assert shell("sub") == ["submit"]
    assert shell("results", "--status", "d") == ["done"]
    assert shell("pause", "al") == ["alpha"]
    assert shell("submit", "-c", "image") == ["image-to-text/caption", "image-to-text/ocr"]


def test_bash_hears_nothing_where_the_database_is_away(shell: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # takes connections and never answers
        port = deaf.getsockname()[1]

        assert shell("show", "", BAKEOFF_DATABASE_URL=f"postgresql://a:b@127.0.0.1:{port}/c") == []


@pytest.fixture
def run(installation: Installation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ran:
    for name, value in installation.environment.items():
        if name.startswith("BAKEOFF_"):
            monkeypatch.setenv(name, value)
    return runner(monkeypatch, capsys)


@pytest.fixture
def complete(run: Ran, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What zsh is told of an unfinished line, in this process; a database is waited for, however slow it is."""
    monkeypatch.setattr(completing, "WAIT", PATIENCE)
    monkeypatch.setenv("_BAKEOFF_COMPLETE", "complete_zsh")

    def completed(line: str) -> list[str]:
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
        code, out, err = run()
        assert (code, err) == (0, "")
        return re.findall(r'^.*?"([^"]*)"', out, re.MULTILINE)

    return completed


def test_recent_tasks_complete_and_open_ones_where_only_they_make_sense(
    installation: Installation, complete: Any
) -> None:
    waits, ended = a_task(installation), a_task(installation)
    cancel(installation, ended)

    assert complete(f"bakeoff show {str(waits)[:6]}") == [str(ended), str(waits)]
    assert complete("bakeoff cancel ") == [str(waits)]
    assert complete("bakeoff show nonsense") == []


def test_a_shell_is_given_no_words_of_callers(installation: Installation, complete: Any) -> None:
    a_task(installation, source="$(touch owned)")
    a_task(installation, source="shop")

    assert complete("bakeoff results --source ") == ["shop"]


def test_completion_is_silent_whatever_is_wrong(complete: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BAKEOFF_DATABASE_URL", "postgresql://a:b@127.0.0.1:9/c")
    assert complete("bakeoff show ") == []
    monkeypatch.setenv("BAKEOFF_MODELS_FILE", str(tmp_path / "none.toml"))
    assert complete("bakeoff pause ") == []
    monkeypatch.setenv("BAKEOFF_CANDIDATES", "many")
    assert complete("bakeoff submit -c ") == []


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_there_is_a_script_for_each_shell(name: str, run: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_BAKEOFF_COMPLETE", f"source_{name}")

    code, out, err = run()

    assert (code, err, f"_BAKEOFF_COMPLETE=complete_{name}" in out) == (0, "", True)


def other_schema(installation: Installation, revision: str) -> None:
    installation.query("ALTER TABLE candidate RENAME COLUMN usage TO was")
    installation.query("UPDATE alembic_version SET version_num = :revision", revision=revision)


def test_an_older_schema_is_told_as_one(installation: Installation, run: Ran) -> None:
    task = a_task(installation)
    other_schema(installation, "0001")

    code, _, err = run("show", str(task))

    assert (code, "is at 0001" in err, "bakeoff db upgrade" in err) == (1, True, True), err


def test_a_newer_schema_is_told_as_one(installation: Installation, run: Ran) -> None:
    task = a_task(installation)
    other_schema(installation, "9999")

    shown, upgraded = run("show", str(task)), run("db", "upgrade", "--json")

    assert (shown[0], "(9999) is newer than this version" in shown[2]) == (1, True), shown
    assert (upgraded[0], "(9999) is newer" in json.loads(upgraded[2])["error"]["detail"]) == (2, True), upgraded


def test_an_empty_database_is_told_as_one(
    servers: tuple[str, str], run: Ran, monkeypatch: pytest.MonkeyPatch, installation: Installation
) -> None:
    installation.query("DROP SCHEMA public CASCADE")
    installation.query("CREATE SCHEMA public")

    code, _, err = run("results")

    assert (code, "no schema of ours" in err, "bakeoff db upgrade" in err) == (1, True, True), err


def test_a_table_that_a_statement_invents_is_no_other_schema(run: Ran) -> None:
    code, _, err = run("sql", "select * from nothing")

    assert (code, 'relation "nothing" does not exist' in err, "upgrade" in err) == (1, True, False), err


def test_a_task_that_is_unknown_is_named_with_the_way_to_those_known(run: Ran) -> None:
    for words in (("show",), ("why",), ("watch",), ("cancel",), ("retry",), ("prefer",)):
        code, _, err = run(*words, "0199b0b3-7ccc-7ccc-8ccc-0123456789ab", *(["alpha"] if words == ("prefer",) else []))

        assert (code, "0199b0b3" in err) == (2, True), (words, err)
