"""What is said of work that goes on: in a table that redraws itself, in lines, not at all."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from db.progress import Progress
from db.settings import Settings
from scheduler.cli import funnel, live
from scheduler.cli.funnel import Funnel, Pace
from scheduler.cli.live import happening
from scheduler.cli.output import SafeConsole
from scheduler.cli.watch import Watched, by_change, drawn


def at(status: str = "running", **values: Any) -> Progress:
    some: dict[str, Any] = {
        "id": uuid4(), "status": status, "source": "cli", "request": "r", "age": 1.0, "steps": 1, "steps_done": 0,
        "judging": 0, "candidates": 0, "candidates_done": 0, "running": (), "waiting": (), "answer": None, "error": None,
    }  # fmt: skip
    return Progress(**{**some, **values})


@pytest.mark.parametrize(
    ("one", "says"),
    [
        (at("pending"), "waiting"),
        (at("planning"), "planning"),
        (at(), "choosing models"),
        (at(candidates=3, candidates_done=2), "2 of 3 candidates"),
        (at(candidates=3, candidates_done=3, judging=1), "judging"),
        (at(steps=3, steps_done=1, candidates=6, candidates_done=4), "step 2 of 3: 4 of 6 candidates"),
        (at("integrating"), "writing the answer"),
        (at("done"), ""),
    ],
)
def test_what_happens_to_a_task_is_a_few_words(one: Progress, says: str) -> None:
    assert one.doing == says


def test_a_change_is_told_once_and_age_is_none() -> None:
    told: list[Progress] = []
    show = by_change(told.append)
    first, other = at(candidates=3), at("pending")

    show([first, other])
    show([at(id=first.id, candidates=3, age=9.0), other])
    show([at(id=first.id, candidates=3, candidates_done=1), other])

    assert [(one.id, one.candidates_done) for one in told] == [(first.id, 0), (other.id, 0), (first.id, 1)]


def rendered(watched: Watched, width: int = 120) -> str:
    file = io.StringIO()
    SafeConsole(file=file, width=width, force_terminal=True, color_system=None).print(drawn(watched))
    return file.getvalue()


def watching(*tasks: Progress, **values: Any) -> Watched:
    return Watched(Settings(), [], {one.id: one for one in tasks}, **values)


def test_the_table_names_who_is_on_a_task() -> None:
    said = rendered(watching(at(candidates=3, candidates_done=1, running=("alpha",), waiting=("beta",))))

    assert "1 of 3 candidates; on it: alpha; waiting: beta" in said
    assert "1 open, 0 ended" in said


def test_the_table_puts_open_tasks_first_and_ends_somewhere() -> None:
    ended = [at("done", id=UUID(int=number), answer="42") for number in range(40)]
    said = rendered(watching(*ended, at("pending", id=UUID(int=99)))).splitlines()

    assert "waiting" in said[1]
    assert any("and 11 more" in line for line in said)


def test_the_table_says_that_the_database_is_away() -> None:
    assert "looking again" in rendered(watching(at(), away=True))


@pytest.mark.parametrize("terminal", ["dumb", "xterm"])
def test_a_spinner_is_drawn_on_a_terminal_that_can(monkeypatch: pytest.MonkeyPatch, terminal: str) -> None:
    monkeypatch.setenv("TERM", terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    file = io.StringIO()
    monkeypatch.setattr(live, "errors", SafeConsole(file=file, force_terminal=True, markup=False, highlight=False))

    with happening("planning [/b]") as say:
        say("2 of 3 candidates")

    assert ("planning [/b]" in file.getvalue()) == (terminal == "xterm")
    assert "\x1b[3" not in file.getvalue()  # no colour


def test_nothing_is_drawn_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(live, "errors", SafeConsole(file=file, force_terminal=False))

    with happening("planning") as say:
        say("judging")

    assert not file.getvalue()


def test_a_stages_pace_is_that_of_its_last_seconds() -> None:
    pace = Pace()
    assert pace.note("clean", 0, 1000, now=0.0)
    assert (pace.rate, pace.left) == (None, None)
    assert not pace.note("clean", 100, 1000, now=10.0)
    assert (pace.rate, pace.left) == (10.0, 90.0)

    pace.note("clean", 100 + 40, 1000, now=50.0)  # the first ten seconds are too long ago
    assert pace.rate is None

    assert pace.note("judge", 0, 50, now=51.0)
    assert pace.rate is None


def test_a_stages_pace_is_a_sentence() -> None:
    pace = Pace()
    pace.note("clean", 0, 1000, now=0.0)
    pace.note("clean", 100, 1000, now=10.0)

    assert str(pace) == "clean: 100 of 1000, 10/s, 90 s left"


def test_in_a_pipe_a_curation_says_a_line_per_stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = io.StringIO()
    monkeypatch.setattr(funnel, "errors", SafeConsole(file=file, force_terminal=False, markup=False, highlight=False))
    monkeypatch.setattr(funnel, "SAY", 1e9)

    with Funnel(Settings(home=tmp_path), "job") as report:
        for stage, done in (("clean", 10), ("clean", 20), ("judge", 5)):
            report(stage, done, 20)

    assert file.getvalue().splitlines() == ["job: clean: 10 of 20", "job: judge: 5 of 20"]


def test_a_curation_is_a_funnel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shown = Funnel(Settings(home=tmp_path), "job")
    shown._stages = [
        {"stage": "clean", "came": 1000, "waiting": 0, "passed": 900, "dropped": {"short": 60, "long": 40}},
        {"stage": "judge", "came": 900, "waiting": 850, "passed": 30, "dropped": {"worse": 20}},
    ]
    shown._pace.note("judge", 0, 900, now=0.0)
    shown._pace.note("judge", 50, 900, now=10.0)
    file = io.StringIO()

    SafeConsole(file=file, width=80, force_terminal=True, color_system=None).print(shown._drawn())

    lines = [line.split() for line in file.getvalue().splitlines()]
    assert lines[1] == ["clean", "1000", "1000", "100"]
    assert lines[2] == ["judge", "50", "900", "20", "5/s", "170", "s"]
    assert "30 kept so far" in file.getvalue()
