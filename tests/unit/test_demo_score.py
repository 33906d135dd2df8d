"""The demo's figures, on answers and stories made up here."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rapidfuzz", reason="rapidfuzz is not installed: pip install 'bakeoff[demo]'")
pytest.importorskip("captcha", reason="captcha is not installed: pip install 'bakeoff[demo]'")

from rich.console import Console

from benchmarks.demo import report
from benchmarks.demo.client import environment
from benchmarks.demo.inputs import OCR, SPEECH, DemoInput
from benchmarks.demo.memory import Watch
from benchmarks.demo.score import Scored, as_json, character_error, consensus, summarize, word_error, words


@pytest.mark.parametrize(
    ("truth", "answer", "error"),
    [
        ("Gate B36", "Gate B36", 0.0),
        ("Gate B36", " Gate\n B36 ", 0.0),
        ("Gate B36", "gate B36", 1 / 8),
        ("Gate B36", "", 1.0),
        ("abc", "something else entirely", 1.0),
        ("", "", 0.0),
        ("", "x", 1.0),
    ],
)
def test_character_error_counts_case_and_folds_white_space(truth: str, answer: str, error: float) -> None:
    assert character_error(truth, answer) == pytest.approx(error)


@pytest.mark.parametrize(
    ("truth", "answer", "error"),
    [
        ("ten of clubs", "10 of Clubs.", 0.0),
        ("mister john", "Mr. John!", 0.0),
        ("ill disposed", "ill-disposed", 0.0),
        ("two nine three four zero", "29340.", 0.0),
        ("four queen of clubs", "for queen of clubs", 1 / 4),
        ("five five", "", 1.0),
        ("five", "a b c d e", 1.0),
    ],
)
def test_word_error_ignores_case_punctuation_and_digits(truth: str, answer: str, error: float) -> None:
    assert word_error(truth, answer) == pytest.approx(error)


def test_numbers_are_spelled_out() -> None:
    said = " ".join(words("42 and 7, 19 or 30; 690, 05"))
    assert said == "forty two and seven nineteen or thirty six nine zero zero five"


def test_consensus_is_the_nearest_to_the_others_and_first_of_equals() -> None:
    assert consensus({"a": "xxxx", "b": "hello", "c": "hallo"}) == "b"
    assert consensus({"a": "one", "b": "two"}) == "a"
    assert consensus({"a": None, "b": "two"}) == "b"
    assert consensus({"a": None}) is None


def item(family: str, outputs: dict[str, str | None], winner: str | None) -> Scored:
    return Scored(family=family, truth="abcd", outputs=outputs, winner=winner)


def test_summary_keeps_one_single_model_over_a_family() -> None:
    # given two inputs, each read by another model only
    items = [
        item("lines", {"a": "abcd", "b": "", "c": ""}, "a"),
        item("lines", {"a": "ab", "b": "abcd", "c": "xbcd"}, "c"),
    ]
    # when
    summary = summarize(items, character_error)["lines"]
    # then
    assert summary.n == 2
    assert summary.best_model == "a"
    assert summary.best_single == pytest.approx((0 + 0.5) / 2)
    assert summary.random == pytest.approx((2 / 3 + 0.75 / 3) / 2)
    assert summary.judge == pytest.approx((0 + 0.25) / 2)
    assert summary.oracle == 0.0
    assert summary.consensus == pytest.approx((1.0 + 0.0) / 2)


def test_a_failed_candidate_is_wrong_and_no_winner_is_wrong() -> None:
    # given
    items = [item("lines", {"a": None, "b": "abcd"}, None)]
    # when
    summary = summarize(items, character_error)["lines"]
    # then
    assert summary.random == 0.5
    assert summary.judge == 1.0
    assert summary.consensus == 0.0


def test_all_is_the_mean_over_inputs_not_over_families() -> None:
    # given three good lines and one bad captcha
    items = [item("lines", {"a": "abcd"}, "a")] * 3 + [item("captchas", {"a": ""}, "a")]
    # when
    families = summarize(items, character_error)
    # then
    assert set(families) == {"lines", "captchas", "all"}
    assert families["all"].n == 4
    assert families["all"].judge == 0.25


def test_summary_as_json_has_exactly_the_published_keys() -> None:
    # given
    families = summarize([item("lines", {"a": "abc"}, "a")], character_error)
    # when
    told = json.loads(json.dumps(as_json({OCR: families})))
    # then
    assert set(told[OCR]["lines"]) == {"n", "best_single", "random", "consensus", "judge", "oracle"}
    assert told[OCR]["all"]["judge"] == 0.25


def story(*, status: str = "done", winner: str | None = "reader-b") -> dict[str, Any]:
    candidates = [
        {"model": "reader-a", "status": "done", "output": "Gate\nB35", "error": None, "seconds": 0.21},
        {"model": "reader-b", "status": "done", "output": "Gate B36", "error": None, "seconds": 1.5},
        {
            "model": "reader-c",
            "status": "error",
            "output": None,
            "error": {"kind": "model", "code": "x", "message": "out of [bold]luck"},
            "seconds": None,
        },
    ]
    verdict = {"winner": winner, "method": "nll", "judge": "tiny", "scores": {"reader-a": -2.5, "reader-b": -1.25}}
    return {
        "id": "0198",
        "status": status,
        "error": None if status == "done" else {"message": "nobody could read it"},
        "subtasks": [
            {"capability": OCR, "status": status, "candidates": candidates, "verdict": verdict if winner else None}
        ],
    }


GATE = DemoInput(path=Path("gate.png"), capability=OCR, family="lines", condition="blur", truth="Gate B36")


def test_a_story_becomes_candidates_with_scores_and_winner() -> None:
    # given / when
    first, second, third = report.candidates_of(story())
    # then
    assert (first.score, first.won, first.seconds) == (-2.5, False, 0.21)
    assert second.won
    assert third.output is None
    assert third.score is None
    assert third.error == "out of [bold]luck"


def test_the_tables_show_outputs_times_scores_winner_and_truth() -> None:
    # given
    told = StringIO()
    console = Console(file=told, width=120)
    # when
    report.print_inputs(console, [GATE], [story()])
    report.print_summary(console, report.summaries([GATE], [story()]))
    # then
    text = told.getvalue()
    winner = next(line for line in text.splitlines() if line.startswith("*"))
    assert winner.split() == ["*", "reader-b", "Gate", "B36", "1.50", "s", "-1.25", "0.0", "%"]
    assert "Gate B35" in text
    assert "failed: out of [bold]luck" in text
    assert "nll by tiny" in text
    assert any("truth" in line and "Gate B36" in line for line in text.splitlines())
    assert "best single" in text


def test_a_task_without_verdict_counts_as_wrong_and_says_why() -> None:
    # given a task that failed before it was judged, and one that has no subtask at all
    failed = story(status="failed", winner=None)
    empty = {"id": "0199", "status": "expired", "error": None, "subtasks": []}
    told = StringIO()
    # when
    report.print_inputs(Console(file=told, width=120), [GATE, GATE], [failed, empty])
    summary = report.summaries([GATE, GATE], [failed, empty])[OCR]["lines"]
    # then
    assert "nobody could read it" in told.getvalue()
    assert "expired" in told.getvalue()
    assert summary.judge == 1.0


def test_capabilities_are_summed_up_apart() -> None:
    # given the same story for a picture and a recording
    talk = DemoInput(
        path=Path("talk.wav"), capability=SPEECH, family="noisy", condition="hum", truth="gate b thirty six"
    )
    # when
    results = report.summaries([GATE, talk], [story(), story()])
    # then
    assert set(results) == {OCR, SPEECH}
    assert results[SPEECH]["noisy"].n == 1


def test_terminal_codes_in_an_output_are_not_printed() -> None:
    assert report.one_line("a\x1b[31mb\u202ec\nd") == "a [31mb c d"


def test_the_demo_never_uses_servers_of_somebody_else(tmp_path: Path) -> None:
    # given an environment that names production
    outer = {"BAKEOFF_DATABASE_URL": "postgresql://production", "BAKEOFF_THREADS": "1", "PATH": "/bin"}
    # when
    inner = environment(outer, tmp_path)
    # then
    assert "BAKEOFF_DATABASE_URL" not in inner
    assert (inner["BAKEOFF_THREADS"], inner["PATH"], inner["BAKEOFF_HOME"]) == ("1", "/bin", str(tmp_path))


def test_the_watch_sees_descendants_and_who_is_left(tmp_path: Path) -> None:
    # given a process with a child that outlives it
    import subprocess
    import time

    parent = subprocess.Popen(["sh", "-c", "sleep 60 & echo $! > child; wait"], cwd=tmp_path, start_new_session=True)
    watch = Watch(lambda: parent.pid)
    child = tmp_path / "child"
    while not (child.exists() and child.read_text().strip()):
        time.sleep(0.02)
    # when it is seen, and killed alone
    watch.look()
    parent.kill()
    parent.wait()
    left = watch.left()
    # then
    assert [process.pid for process in left] == [int(child.read_text())]
    assert watch.peak_bytes > 0
    assert watch.peak_processes == 2
    for process in left:
        process.kill()
        process.wait()
