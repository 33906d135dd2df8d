"""The leaderboard: what follows from counts and games, and its picture."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random
from statistics import fmean, quantiles
from typing import Any

import pytest

from db.errors import BakeoffError, UsageError
from db.leaderboard import Games, ModelFigures
from scheduler.leaderboard import Board, board_of, wilson
from scheduler.leaderboard.plot import draw, save_plot
from scheduler.selectors.strength import fit_strengths


def figures(model: str, **said: Any) -> ModelFigures:
    nothing = dict.fromkeys(("tried", "done", "failed", "cached", "judged", "wins"), 0)
    times = dict.fromkeys(("median_seconds", "p95_seconds", "mean_output_tokens"))
    return ModelFigures(model=model, **{**nothing, **times, **said})


def games(better: str, worse: str, count: int, origin: str = "verdict") -> Games:
    return Games(better=better, worse=worse, origin=origin, count=count, weight=float(count))


def board(*found: Games) -> Board:
    return board_of("text-generation", [], found)


def test_the_strongest_comes_first_and_who_met_nobody_last() -> None:
    made = board_of(
        "text-generation",
        [figures("alone", tried=3, done=3), figures("weak"), figures("strong", tried=4, done=3, failed=1, cached=1)],
        [games("strong", "weak", 9), games("weak", "strong", 1)],
    )

    strong, weak, alone = made.standings
    assert [one.model for one in made.standings] == ["strong", "weak", "alone"]
    assert (strong.failure_rate, strong.cached_share) == (0.25, 1 / 3)
    assert strong.strength is not None
    assert weak.strength == pytest.approx(-strong.strength)
    assert (alone.strength, alone.strength_interval, alone.win_rate) == (None, None, None)


def test_more_games_make_an_interval_narrower() -> None:
    def width(count: int) -> float:
        interval = board(games("a", "b", 2 * count), games("b", "a", count)).standings[0].strength_interval
        assert interval is not None
        return interval[1] - interval[0]

    assert width(1000) < width(10) < width(1)


def test_an_interval_is_that_of_the_distance_from_the_average() -> None:
    # given three models that met often, and many draws from what their strengths may be
    wins = {("a", "b"): 40, ("b", "a"): 20, ("b", "c"): 30, ("c", "b"): 30, ("c", "a"): 5}
    strengths, random = fit_strengths(wins), Random(1)  # noqa: S311 - for a test
    draws = [strengths.draw("abc", random) for _ in range(4000)]

    made = board(*(games(better, worse, count) for (better, worse), count in wins.items()))

    assert sum(one.strength or 0.0 for one in made.standings) == pytest.approx(0.0, abs=1e-9)
    for one in made.standings:
        drawn = quantiles((draw[one.model] - fmean(draw.values()) for draw in draws), n=40)
        assert one.strength_interval == pytest.approx((drawn[0], drawn[-1]), abs=0.05)


def test_a_persons_preference_outweighs_a_verdict() -> None:
    made = board(games("a", "b", 2), games("b", "a", 1, "human"))

    assert [one.model for one in made.standings] == ["b", "a"]


def test_preferences_are_counted_for_both_and_verdicts_are_not_preferences() -> None:
    made = board(games("a", "b", 2, "human"), games("b", "a", 1, "import"), games("a", "c", 7))

    counted = {one.model: (one.preferred, one.compared) for one in made.standings}
    assert counted == {"a": (2, 3), "b": (1, 3), "c": (0, 0)}


@pytest.mark.parametrize(
    ("wins", "judged", "low", "high"),
    [(5, 10, 0.2366, 0.7634), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_wilsons_interval_is_the_published_one(wins: int, judged: int, low: float, high: float) -> None:
    assert wilson(wins, judged) == pytest.approx((low, high), abs=1e-4)


def test_of_nothing_there_is_no_interval() -> None:
    assert wilson(0, 0) is None


@pytest.mark.parametrize(("form", "begins"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_a_picture_is_drawn(tmp_path: Path, form: str, begins: bytes) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'bakeoff[demo]'")
    file = tmp_path / f"board.{form}"

    save_plot([board(games("a", "b$_{x}$", 3)), board_of("image-to-text/ocr", [figures("alone")], [])], file)

    assert file.read_bytes().startswith(begins)


def test_what_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'bakeoff[demo]'")
    some = [board(games("a", "b", 3))]

    with pytest.raises(UsageError, match=r"must end in one of \.png, \.svg, \.pdf"):
        save_plot(some, tmp_path / "board.docx")
    with pytest.raises(UsageError, match="nothing to plot"):
        save_plot([], tmp_path / "board.png")
    with pytest.raises(BakeoffError, match="Cannot write"):
        save_plot(some, tmp_path / "no" / "such" / "board.png")


def test_without_matplotlib_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # Python refuses to import it then

    with pytest.raises(UsageError, match="needs matplotlib, which is not installed: pip install"):
        draw([board(games("a", "b", 3))], "png")


def test_the_commands_load_nothing_heavy() -> None:
    script = (
        "import sys, scheduler.cli.prefer, scheduler.cli.leaderboard, scheduler.leaderboard.plot, scheduler.labels; "
        "print(sorted({'numpy', 'matplotlib', 'torch'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
