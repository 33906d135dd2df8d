"""What pages are made of: marks, drawings, a judge's figures, words; and a task's page in every state."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html import unescape
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.browsing import Said
from db.states import FINAL_CANDIDATE, CandidateState, SubtaskState, TaskState
from scheduler.api.access import Caller
from scheduler.api.pages.assets import static_address, static_file
from scheduler.api.pages.base import Visitor
from scheduler.api.pages.dag import HEIGHT, WIDTH, draw
from scheduler.api.pages.marking import marked
from scheduler.api.pages.readings import readings
from scheduler.api.pages.tasks import task_page, title_of
from scheduler.api.pages.words import number, seconds, short, size

ANN = Visitor(caller=Caller(name="local", source=None), annotator="ann", signed=True)
NOW = datetime.now(UTC).isoformat()


def shown(text: str, base: str) -> str:
    return "".join(
        piece.text if piece.kind == "same" else f"[{'+' if piece.kind == 'ins' else '-'}{piece.text}]"
        for piece in marked(text, base).pieces
    )


@pytest.mark.parametrize(
    ("text", "base", "said"),
    [
        ("a cat sat here", "a dog sat here", "a [-dog][+cat] sat here"),
        ("x7Kq2", "x7Kg2", "x7K[-g][+q]2"),  # one word: letter by letter
        ("東京は晴れ", "東京は雨", "東京は[-雨][+晴れ]"),
        ("one two three", "one two", "one two [+three]"),
        ("to Paris.", "to Paris and on.", "to Paris[- and on]."),
        ("a sat here", "a dog sat here", "a [-dog ]sat here"),
        ("one  two\nthree", "one two three", "one  two\nthree"),
        ("quite another thing altogether", "nothing in common, dear", "quite another thing altogether"),
        ("", "", ""),
    ],
)
def test_a_text_shows_what_it_has_and_lacks_against_another(text: str, base: str, said: str) -> None:
    assert shown(text, base) == said


def test_what_is_not_marked_says_why() -> None:
    assert marked("same", "same").note == "the same, word for word"
    assert marked("quite another thing", "nothing in common, dear").note == "differs throughout"
    assert marked("one  two", "one two").note == "differs in spaces only"
    assert marked("word " * 6000, "word " * 5999).note == "too long to be compared"
    assert marked("word " * 6000, "word " * 5999, letters=True).note == "too long to be compared"


def test_readings_of_a_picture_are_compared_as_one_spells() -> None:
    pieces = marked("hoever finds it", "whoever Finds it", letters=True).pieces
    assert [(piece.kind, piece.text) for piece in pieces if piece.kind != "same"] == [
        ("del", "w"),
        ("del", "F"),
        ("ins", "f"),
    ]


@given(st.text(max_size=80), st.text(max_size=80), st.booleans())
def test_marks_lose_nothing_of_either_text(text: str, base: str, letters: bool) -> None:  # noqa: FBT001 - drawn
    pieces = marked(text, base, letters=letters).pieces
    assert "".join(piece.text for piece in pieces if piece.kind != "del") == text
    if any(piece.kind != "same" for piece in pieces):
        assert "".join("".join(piece.text for piece in pieces if piece.kind != "ins").split()) == "".join(base.split())


def subtask(name: str, *needs: str, status: str = "done", **more: Any) -> dict[str, Any]:
    return {"name": name, "needs": list(needs), "status": status, "verdict": None, **more}


def test_every_step_stands_right_of_what_it_needs_and_on_no_other() -> None:
    drawing = draw([subtask("a"), subtask("b"), subtask("c", "a", "b"), subtask("d", "a"), subtask("e", "c", "a")])
    at = {step.name: step for step in drawing.steps}

    assert at["a"].x == at["b"].x < at["c"].x == at["d"].x < at["e"].x
    assert len({(step.x, step.y) for step in drawing.steps}) == 5
    assert all(step.x + WIDTH <= drawing.width and step.y + HEIGHT <= drawing.height for step in drawing.steps)
    assert len(drawing.lines) == 5
    assert at["e"].said == "e: done, needs c, a"


def test_a_drawing_of_anything_ends() -> None:
    assert draw([]).steps == ()
    assert (
        len(draw([subtask("a", "b"), subtask("b", "a")]).steps) == 2
    )  # nobody stores a ring; a page shows what is there
    assert len(draw([subtask("a", "gone")]).lines) == 0


def test_every_judge_has_its_figures_read() -> None:
    choice = {"read": [{"letter": "A", "models": ["x", "y"], "logprob": -0.25}]}
    pair = {
        "ties": "rank",
        "read": [{"models": ["x"], "outcome": 1.0, "log_odds": [2.5, 0.5]}, {"models": ["y"], "outcome": 0.0}],
    }
    marks = {
        "models": ["x"],
        "score": 0.75,
        "read": [{"component": "names it", "weight": 1, "mark": 0.75, "logprobs": [-1.0]}],
    }
    checks = {"checks": [{"model": "x", "failed": ["json"], "why": ["no JSON"]}]}
    notes = {"cut": ["x"]}

    found = readings([checks, choice, choice, pair, marks, notes, "nonsense", {}])

    assert [one.title for one in found] == [
        "Checks",
        "Order 1 of 2",
        "Order 2 of 2",
        "x against y",
        "Marks of x",
        "Notes",
    ]
    assert found[1].columns == ("candidate", "as", "log probability")
    assert found[1].rows == (("x = y", "A", "\N{MINUS SIGN}0.250"),)
    assert found[3].rows == (("x", "1", "2.500, 0.500"), ("y", "0", ""))
    assert found[4].notes == ("score: 0.750",)
    assert found[5].notes == ("cut: x",)


def test_words_for_people() -> None:
    assert [seconds(value) for value in (None, 0.04, 1.25, 185)] == ["", "40 ms", "1.2 s", "3 min"]
    assert [size(value) for value in (None, 999, 3100, 2_500_000)] == ["", "999 bytes", "3.1 kB", "2.5 MB"]
    assert [number(value) for value in (None, 57.0, -0.5)] == ["", "57", "\N{MINUS SIGN}0.500"]
    assert short("a\n b" + "c" * 200, 6) == "a bcc…"
    assert title_of(" a\nb ", []) == "a b"
    assert title_of("", [{"name": "x.png"}, {"sha256": "0"}, "nonsense"]) == "x.png, a file"


def candidate(status: str, place: int) -> dict[str, Any]:
    done = status == CandidateState.DONE
    return {
        "id": str(UUID(int=place)), "model": f"model-{place}", "status": status, "rank": place, "attempt": place,
        "proposed_by": [{"selector": "downloads", "rank": 0}, {"selector": "<b>likes", "rank": 1}],
        "output": f"It says {place}" if done else None, "detail": {}, "usage": {}, "seconds": 0.5 if done else None, "cached": done,
        "error": {"message": "<b>broke"} if status in {"error", "dead"} else None,
    }  # fmt: skip


def story(state: str, step: str | None, *candidates: str, judged: bool = False) -> dict[str, Any]:
    """A task as `db.queries.task_story` has it, with one step or none."""
    verdict = {
        "winner": "model-1", "winner_id": str(UUID(int=1)), "method": "choice", "judge": "j", "judge_model": None,
        "prompt_version": None, "ranking": ["model-1", "model-2"], "scores": {"model-1": 0.9}, "reason": "<b>better",
        "confidence": None, "fallback": True, "seconds": 0.1, "seen": None, "checks": None, "failed_judges": [{"judge": "k", "error": "e"}],
    }  # fmt: skip
    one = {
        "id": str(UUID(int=99)), "name": "step", "capability": "text-generation", "status": step, "inputs": [], "note": None,
        "error": {"message": "all failed"} if step == "failed" else None, "needs_review": judged, "needs": [],
        "expect": {"checks": [{"check": "json"}], "components": [{"description": "<b>names it", "weight": 2}]} if judged else None,
        "judges": {"asked": "j", "next": [], "failed": [{"judge": "j", "error": "<b>away"}]}, "verdict": verdict if judged else None,
        "candidates": [candidate(status, place) for place, status in enumerate(candidates, start=1)],
    }  # fmt: skip
    return {
        "id": str(UUID(int=7)), "status": state, "source": "api", "request": "<b>What?", "capability": None, "attachments": [],
        "answer": "It says 1" if state == "done" else None, "confidence": 0.5 if judged else None, "fallback": judged,
        "error": {"message": "no"} if state == "failed" else None, "created_at": NOW, "finished_at": None, "retry_of": None,
        "plan": {"planner": "p", "method": "llm", "repairs": ["<b>one"]} if judged else None, "integration": None, "needs_review": judged, "subtasks": [] if step is None else [one],
    }  # fmt: skip


STATES = [  # of a task and its step, and whether a verdict is there
    *((state, None, False) for state in TaskState),
    *((TaskState.RUNNING, step, judged) for step in SubtaskState for judged in (False, True)),
    *((state, SubtaskState.DONE, True) for state in TaskState),
]


@pytest.mark.parametrize(("state", "step", "judged"), STATES)
def test_a_task_has_a_page_in_every_state(state: TaskState, step: SubtaskState | None, *, judged: bool) -> None:
    said = [Said(subtask_id=UUID(int=99), annotator="ann", better="model-2", worse="model-1")]

    answer = task_page(
        ANN,
        story(state, step, "done", "done", *CandidateState, judged=judged),
        orders={UUID(int=99): [{"read": [{"models": ["model-1"], "logprob": -1.0}]}]},
        said=said,
        files=[],
        why="" if state == "done" else "It waits.",
    )

    text = bytes(answer.body).decode()
    assert "<b>" not in text.replace("<body>", "")
    assert unescape(text).count("<b>What?") >= 2
    assert ("data-events" in text) == (not state.final)
    assert ("Try again" in text) == state.final
    if step is not None:
        assert text.count("<article") == 2 + len(CandidateState)
        assert text.count("&lt;b&gt;broke") == 2
        assert all(f'"chip {status}"' in text for status in CandidateState if status not in FINAL_CANDIDATE)
        assert "you prefer <strong>model-2</strong>" in text
        assert ("Verdict: model-1" in text) == judged
        assert ("j gave no verdict: &lt;b&gt;away" in text) != judged


def test_a_static_file_is_kept_for_a_year_under_the_address_of_its_content() -> None:
    address = static_address("style.css")
    _, _, digest, name = address.split("/")

    assert re.fullmatch(r"[0-9a-f]{16}", digest)
    assert "immutable" in static_file(digest, name).headers["cache-control"]
    assert static_file("0" * 16, name).headers["cache-control"] == "no-store"
