"""Tables in narrow and wide terminals, and what a model may not do to a terminal."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest
from rich.cells import cell_len
from rich.text import Text

from scheduler.cli import output, story, upkeep
from scheduler.cli.output import SafeConsole, harmless, json_line, state, table

HOSTILE = (
    "\x1b]0;owned\x07\x1b[2J\x1b[31mred\r\b\x9b1A\u202edrawkcab \u65e5\u672c\u8a9e\u306e\u7b54\u3048 \U0001f389 end"
)
LONG = "a-model-with-a-name-that-is-longer-than-anybody-would-like-it-to-be-0123456789"
WIDTHS = pytest.mark.parametrize("width", [80, 200])
FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A console of a width that every command prints to; call it for what was printed."""

    def at(width: int) -> io.StringIO:
        file = io.StringIO()
        console = SafeConsole(
            file=file, width=width, force_terminal=True, color_system=None, highlight=False, markup=False
        )
        for module in (output, story, upkeep):
            monkeypatch.setattr(module, "console", console)
        return file

    return at


def narrow_enough(text: str, width: int) -> bool:
    return all(cell_len(line) <= width for line in text.splitlines())


def a_status(model: str) -> dict[str, Any]:
    row = {
        "model": model, "queue": "q", "status": "suspended", "reason": HOSTILE, "chosen": 3, "sent": 1, "running": 0,
        "oldest": 12.5, "last_error": HOSTILE, "live": True, "ready": False, "seconds_per_item": 0.25,
    }  # fmt: skip
    worker = {"name": f"{model}@host", "pid": 7, "status": "ready", "age": 1.0, "error": HOSTILE, "queues": ["q"] * 9}
    return {
        "tasks": {"pending": 1}, "redis": True, "scheduler": False, "models": [row], "judges": [], "workers": [worker],
        "last_10_minutes": {"fallback_share": 0.5, "fallbacks": 1, "verdicts": 2},
    }  # fmt: skip


def a_story(model: str) -> dict[str, Any]:
    candidate = {
        "id": "c", "model": model, "status": "done", "output": HOSTILE, "usage": None, "error": None, "seconds": 1.0,
        "cached": False, "proposed_by": [{"selector": "downloads", "rank": 0}],
    }  # fmt: skip
    verdict = {
        "winner": model, "method": "nll", "judge": "j", "seen": None, "reason": HOSTILE, "seconds": 1.0,
        "scores": {model: 0.5}, "checks": [],
    }  # fmt: skip
    subtask = {
        "name": HOSTILE, "capability": "text-generation", "status": "done", "needs": [], "needs_review": True,
        "expect": None, "judges": {"failed": []}, "note": HOSTILE, "error": None, "verdict": verdict,
        "candidates": [candidate],
    }  # fmt: skip
    return {
        "id": "0199b0b3-7ccc-7ccc-8ccc-0123456789ab", "status": "done", "source": HOSTILE, "request": HOSTILE,
        "attachments": [{"name": HOSTILE, "sha256": "0" * 64}], "plan": {"planner": "p", "reason": HOSTILE},
        "integration": None, "answer": HOSTILE, "error": {"message": HOSTILE}, "subtasks": [subtask],
    }  # fmt: skip


@WIDTHS
@pytest.mark.parametrize("model", ["a", LONG, "\u65e5\u672c\u8a9e\u30e2\u30c7\u30eb"])
def test_the_status_fits_and_controls_nothing(printed: Any, width: int, model: str) -> None:
    file = printed(width)

    upkeep._print_status(a_status(model))

    text = file.getvalue()
    assert not FORBIDDEN.search(text)
    tables = text[text.index("model ") :]
    assert narrow_enough(tables, width)
    assert "".join(model) in tables.replace("\n", "") or width == 80


@WIDTHS
@pytest.mark.parametrize("model", ["a", LONG])
def test_a_story_controls_nothing(printed: Any, width: int, model: str) -> None:
    file = printed(width)

    story.print_story(a_story(model))

    assert not FORBIDDEN.search(file.getvalue())


def test_a_name_that_is_too_long_is_folded_and_not_cut(printed: Any) -> None:
    file = printed(80)
    out = table("model", "status", "worker", "last error", wrap=("last error",))
    out.add_row(LONG, state("active"), "ready", HOSTILE)

    output.console.print(out)

    column = "".join(line.split(" ")[0] for line in file.getvalue().splitlines()[1:])
    assert column == LONG


@WIDTHS
def test_a_table_without_rows_shows_its_columns(printed: Any, width: int) -> None:
    file = printed(width)

    output.console.print(table("model", "status"))

    assert file.getvalue().split() == ["model", "status"]


def test_what_is_no_terminal_gets_a_row_per_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    file = io.StringIO()
    out = table("model", "answer")
    out.add_row(LONG, "word " * 100)

    SafeConsole(file=file, highlight=False, markup=False).print(out)

    assert len(file.getvalue().splitlines()) == 2
    assert "\x1b" not in file.getvalue()


def test_a_text_of_somebody_else_is_harmless_also_where_nobody_thought_of_it(printed: Any) -> None:
    file = printed(80)

    output.console.print(Text(HOSTILE, style="red"))
    output.console.print(HOSTILE, soft_wrap=True)

    assert not FORBIDDEN.search(file.getvalue())


def test_json_escapes_what_a_terminal_would_obey() -> None:
    said = json_line({"answer": HOSTILE, "n": float("nan")})

    assert not re.search("[\x00-\x1f\x7f-\x9f]", said)
    assert json.loads(said) == {"answer": HOSTILE, "n": None}


def test_letters_of_all_languages_stay() -> None:
    for text in ("\u65e5\u672c\u8a9e", "\u0639\u0631\u0628\u064a", "e\u0301", "\U0001f469\u200d\U0001f4bb", "a\n\tb"):
        assert harmless(text) == text
