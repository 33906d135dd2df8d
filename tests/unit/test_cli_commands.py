"""The tree of commands: nothing is imported that is not needed, everything that gives back has JSON, errors say the way out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.main

from db.errors import BacklogFull, NotFound
from scheduler import cli
from scheduler.cli.commands import COMMANDS, PANELS
from scheduler.cli.failing import failure_of, say
from scheduler.cli.output import SafeConsole
from tests.conftest import SCRIPTED
from tests.in_process import Ran, runner

ROOT = Path(__file__).resolve().parents[2]
CLI = ROOT / "scheduler" / "cli"
TASK = "0199b0b3-7ccc-7ccc-8ccc-0123456789ab"

#: commands without --json → why
NO_JSON = {
    "up": "a server: it prints addresses and runs until it is stopped",
    "down": "stops a server; its exit code says whether it did",
    "worker": "a server",
    "scheduler": "a server",
    "api": "a server",
    "flower": "a server",
    "curate serve": "a server",
    "annotate session": "a conversation with a person; next and score are its parts for programs",
}


def commands(name: str = "", command: Any = None) -> Iterator[tuple[str, Any]]:
    command = command or typer.main.get_command(cli.app)
    inner = getattr(command, "commands", {})
    if name and (not inner or command.invoke_without_command):
        yield name, command
    for one in inner:
        yield from commands(f"{name} {one}".strip(), inner[one])


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Ran:
    """Run a command in this process, where nothing answers: (exit code, standard output, standard error)."""
    ran = runner(monkeypatch, capsys)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BAKEOFF_MODELS_FILE", str(ROOT / "models.toml"))
    monkeypatch.setenv("BAKEOFF_DATABASE_URL", "postgresql://somebody:hunter2@127.0.0.1:9/bakeoff")
    monkeypatch.setenv("BAKEOFF_REDIS_URL", "redis://:hunter2@127.0.0.1:9/0")

    def keeping_secrets(*arguments: str) -> tuple[int, str, str]:
        code, out, err = ran(*arguments)
        assert "hunter2" not in out + err
        return code, out, err

    return keeping_secrets


def test_every_command_gives_json_or_has_a_reason_not_to() -> None:
    without = {name for name, command in commands() if not any("--json" in option.opts for option in command.params)}

    assert without == set(NO_JSON)


def test_every_module_of_commands_is_listed_whole() -> None:
    for file in CLI.glob("*.py"):
        module = import_module(f"scheduler.cli.{file.stem}") if not file.stem.startswith("__") else None
        if module is None or not hasattr(module, "register"):
            continue
        part = typer.Typer()
        module.register(part)
        names = {one.name for one in (*part.registered_commands, *part.registered_groups)}

        assert names == {name for name, (of, _) in COMMANDS.items() if of == file.stem}, file.stem


def test_no_name_is_listed_twice() -> None:
    assert sum(len(names) for names in PANELS.values()) == len(COMMANDS)


@pytest.mark.parametrize(
    "environment", [{}, {"_BAKEOFF_COMPLETE": "complete_bash", "COMP_WORDS": "bakeoff su", "COMP_CWORD": "1"}]
)
def test_help_and_the_names_of_commands_need_no_database_driver(environment: dict[str, str]) -> None:
    heavy = "{'sqlalchemy', 'psycopg', 'redis', 'celery', 'structlog'}"
    script = (
        "import sys, atexit; sys.argv = ['bakeoff'] + ([] if sys.argv[1:] else ['--help'])\n"
        f"atexit.register(lambda: print('heavy:', sorted({heavy} & set(sys.modules))))\n"
        "from scheduler.cli import main; main()"
    )

    done = subprocess.run(
        [sys.executable, "-c", script, *environment],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )

    assert "heavy: []" in done.stdout
    assert "submit" in done.stdout


def test_a_wrong_setting_does_not_keep_anybody_from_reading_the_help(run: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAKEOFF_CANDIDATES", "many")

    assert run("--help")[0] == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("sumbit", "No such command 'sumbit'. Did you mean 'submit'? `bakeoff --help` says what there is."),
        ("curate rnu", "Did you mean 'run'? `bakeoff curate --help`"),
        ("submit --jsn", "No such option: --jsn. Did you mean --json? `bakeoff submit --help`"),
        ("results --status don", "'don' is not one of 'pending'"),
        ("why", "Missing argument 'task'. `bakeoff why --help`"),
        ("show nonsense", "'nonsense' is not a task id"),
        ("show 12", "`bakeoff results` lists them"),
        ("models --profile dmo", "Did you mean 'demo'?"),
        ("models pull whisper-bas", "Did you mean 'whisper-base'"),
        ("submit hello -c text-genration", "Did you mean 'text-generation'?"),
        ("submit hello -c text-generation --judge consensu", "Did you mean 'consensus'"),
        ("submit hello -c text-generation --selector downlods", "Did you mean 'downloads'?"),
        ("submit --from none.jsonl", "Cannot read none.jsonl: No such file or directory."),
        ("curate run none.toml", "none.toml"),
        ("preferences import none.jsonl", "none.jsonl"),
        ("annotate load none.jsonl --name n", "none.jsonl"),
        ("models import none.jsonl", "none.jsonl"),
        ("prune --older-than 30", "say for example 90s"),
        ("worker", "Say what the worker is for"),
        ("worker nobody", "No model 'nobody'"),
        ("api --port 99999", "--port"),
        ("retry", "bakeoff results --status failed"),
    ],
)
def test_wrong_words_end_with_2_and_say_the_way_out(run: Ran, words: str, sentence: str) -> None:
    code, out, err = run(*words.split())

    assert (code, sentence in err) == (2, True), err
    assert not out


@pytest.mark.parametrize(
    "words",
    [
        "submit hello -c text-generation",
        "watch",
        "watch --json",
        "results",
        f"show {TASK}",
        f"why {TASK}",
        f"cancel {TASK}",
        f"retry {TASK}",
        "status",
        "pause rapidocr",
        "resume rapidocr",
        "drain rapidocr",
        "prune --older-than 30d",
        "sql select",
        "db upgrade",
        "db roles",
        "keys list",
        "webhooks list",
        f"webhooks replay {TASK}",
        f"prefer {TASK} alpha",
        "leaderboard",
        "annotate status",
        "annotate some --annotator me",
        "curate status",
        "curate resume some",
        "curate delete some --yes",
        "worker rapidocr",
    ],
)
def test_without_a_database_a_command_ends_with_3_and_says_how_to_start_one(run: Ran, words: str) -> None:
    code, out, err = run(*words.split())

    assert (code, "does not answer" in err, "Start it with `bakeoff up`" in err) == (3, True, True), err
    assert not out


def test_without_anything_running_here_a_command_names_the_folder(
    run: Ran, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("BAKEOFF_DATABASE_URL")
    monkeypatch.setenv("BAKEOFF_HOME", str(tmp_path / "elsewhere"))

    code, _, err = run("status")

    assert (code, str(tmp_path / "elsewhere") in err, "bakeoff up" in err) == (3, True, True), err


def test_with_json_an_error_is_one_json_object_on_standard_error(run: Ran) -> None:
    code, out, err = run("results", "--json")

    said = json.loads(err)["error"]
    assert (code, out, said["code"], said["exit_code"]) == (3, "", "unreachable", 3)
    assert "bakeoff up" in said["detail"]


def test_with_json_a_wrong_option_is_json_too(run: Ran) -> None:
    code, _, err = run("submit", "--json", "--wiat")

    assert (code, json.loads(err)["error"]["code"]) == (2, "usage")


@pytest.mark.parametrize(
    ("error", "code", "exit_code"),
    [
        (NotFound("No task."), "not_found", 2),
        (BacklogFull("shop", 10, 7), "backlog_full", 3),
        (typer.Abort(), "aborted", 1),
        (ZeroDivisionError("division by zero"), "fault", 1),
    ],
)
def test_every_error_has_a_code_and_an_exit_code(error: Exception, code: str, exit_code: int) -> None:
    found = failure_of(error)

    assert (found.code, found.exit_code) == (code, exit_code)


def test_a_refusal_says_to_programs_when_to_come_back(capsys: pytest.CaptureFixture[str]) -> None:
    say(failure_of(BacklogFull("shop", 10, 7)), as_json=True)

    assert json.loads(capsys.readouterr().err)["error"]["retry_after"] == 7


def test_what_an_error_quotes_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    say(failure_of(NotFound("No task \x1b]0;owned\x07 here.")), as_json=False)

    assert "\x1b" not in capsys.readouterr().err


def test_a_misspelt_setting_is_named_with_the_one_that_is_meant(run: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAKEOFF_CANDIDATS", "4")

    code, _, err = run("config", "--json")

    assert (code, "Did you mean 'BAKEOFF_CANDIDATES'" in err) == (0, True), err


def test_the_version_is_said(run: Ran) -> None:
    code, out, _ = run("--version")

    assert (code, out.split()[0]) == (0, "bakeoff")


def test_what_was_pulled_is_json_and_each_model_a_line(
    run: Ran, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "models.toml"
    file.write_text(SCRIPTED)
    monkeypatch.setenv("BAKEOFF_MODELS_FILE", str(file))

    code, out, err = run("models", "pull", "alpha", "beta", "--json")

    assert (code, [one["model"] for one in json.loads(out)]) == (0, ["alpha", "beta"])
    assert "alpha: nothing to fetch beta: nothing to fetch" in err


@pytest.mark.parametrize("words", ["--help", "models", "config --json"])
def test_a_reader_that_has_enough_is_no_failure(words: str, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "scheduler.cli", *words.split()],
        stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False,
        env={**os.environ, "BAKEOFF_HOME": str(tmp_path), "BAKEOFF_MODELS_FILE": str(ROOT / "models.toml")},
    )  # fmt: skip
    os.close(writing)

    assert (done.returncode, done.stderr) == (0, b"")


def test_what_runs_on_may_go_on_when_nobody_reads_it() -> None:
    """`bakeoff up | head` ended everything: rich makes a pipe that is closed the end of the process."""
    reading, writing = os.pipe()
    os.close(reading)
    console = SafeConsole(file=os.fdopen(writing, "w"))

    for _ in range(2):
        with pytest.raises(BrokenPipeError):
            console.print("Ready.")
    with pytest.raises(BrokenPipeError):
        console.file.close()
