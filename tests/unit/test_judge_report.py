"""`bakeoff evaluate report`: one page of everything, of what is there, without doing it twice."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from db.settings import load_settings
from scheduler.evaluation.report.command import report_command
from scheduler.evaluation.report.page import page_of
from scheduler.evaluation.report.parts import finished_parts, was_cut, without_parameters, write_json
from scheduler.evaluation.report.plots import Curve, Dot, dots, reliability
from tests.unit.judge_sets import duels, sums, written

ATTACKS = '{"id": "long-1", "family": "length", "text": "{output} and on and on and on and on"}\n'


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of evaluation data with one set of each form."""
    folder = tmp_path / "data"
    written(folder, sums(60), "multi_sums")
    written(folder, duels(120), "pairs_duels")
    (tmp_path / "attacks.jsonl").write_text(ATTACKS)
    monkeypatch.setenv("BAKEOFF_EVAL_DATA", str(folder))
    load_settings.cache_clear()
    yield folder
    load_settings.cache_clear()


def report(folder: Path, *more: str) -> Any:
    app = typer.Typer()
    app.command()(report_command)
    arguments = ["--judge-model", "none", "--judges", "jury,consensus", "--attacked", "jury", "--hosts", "2",
                 "--selection", "multi_sums,multi_gone", "--pairs", "pairs_duels", "--hosts-from", "pairs_duels",
                 "--attacks", str(folder.parent / "attacks.jsonl")]  # fmt: skip
    return CliRunner().invoke(app, [str(folder), *arguments, *more], catch_exceptions=False)


class Links(HTMLParser):
    """What a page loads, and the tags that it never closes."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [value or "" for name, value in attrs if name in {"src", "href"}]
        if tag not in {"meta", "link", "img", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 - its name
        self.loaded += [value or "" for name, value in attrs if name in {"src", "href"}]


def test_a_page_and_a_json_of_everything_that_is_there(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "report"

    said = report(folder)

    # then a set that is missing is named, on the screen and on the page, and the rest is there
    assert "multi_gone" in said.stdout
    results = json.loads((folder / "results.json").read_text())
    assert set(results["parts"]) == {"selection-jury@none", "selection-consensus@none", "judge-jury@none-pairs_duels",
                                     "judge-consensus@none-pairs_duels", "attack-jury@none-pairs_duels-attacks"}  # fmt: skip
    assert {one["set"]: one["rows"] for one in results["sets"]} == {"multi_sums": 60, "pairs_duels": 120}
    assert results["date"]
    page = (folder / "index.html").read_text()
    for words in ("multi_gone", "multi_sums", "recovered", "pairs_duels", "length", "prefers-color-scheme: dark",
                  "width=device-width"):  # fmt: skip
        assert words in page
    assert page.count("<svg") >= 4
    # and it needs nothing else
    found = Links()
    found.feed(page)
    assert (found.loaded, found.open) == ([], [])


def test_what_is_finished_is_not_run_again(data: Path, tmp_path: Path) -> None:
    # given a report whose part was marked by hand
    folder = tmp_path / "report"
    report(folder)
    path = folder / "part-judge-jury@none-pairs_duels.json"
    marked = json.loads(path.read_text())
    marked["figures"]["set"] = "MARKED"
    write_json(path, marked)

    report(folder)
    assert finished_parts(folder)["judge-jury@none-pairs_duels"]["figures"]["set"] == "MARKED"
    assert "MARKED" in (folder / "index.html").read_text()

    # then with another limit it is, and when that is asked for
    report(folder, "--limit", "40")
    assert finished_parts(folder)["judge-jury@none-pairs_duels"]["figures"]["support"] == 40
    write_json(path, marked)
    report(folder, "--again")
    assert finished_parts(folder)["judge-jury@none-pairs_duels"]["figures"]["set"] == "pairs_duels"


@pytest.mark.parametrize(
    ("figures", "cut"),
    [
        ({"cut": False, "blind": {"cut": False}}, False),
        ({"cut": False, "blind": {"cut": True}}, True),
        ({"sets": [{"cut": False}, {"cut": True}], "pooled": {"blind": {}}}, True),
        ({"sets": ["pairs_duels"], "cut": False}, False),  # of an attack
    ],
)
def test_what_was_cut_goes_on(figures: dict[str, Any], cut: bool) -> None:  # noqa: FBT001
    assert was_cut(figures) is cut


def test_another_run_adds_to_the_page(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    report(folder, "--judges", "consensus", "--selection", "none", "--attacked", "none")
    report(folder, "--judges", "scripted", "--pairs", "none", "--attacked", "none")
    assert {part["key"]["judge"] for part in finished_parts(folder).values()} == {"consensus", "scripted"}


def test_a_part_that_fails_is_named_and_the_others_are_there(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    said = report(folder, "--judges", "nobody,consensus", "--attacked", "none")
    assert "nobody" in said.stdout
    assert "nobody" in (folder / "index.html").read_text()
    assert {part["key"]["judge"] for part in finished_parts(folder).values()} == {"consensus"}


def test_a_page_without_parts_says_so(tmp_path: Path) -> None:
    page = page_of({"date": "today", "commit": None, "models": [], "sets": [], "missing": ["<b>all</b>"], "parts": {}})
    assert "&lt;b&gt;all&lt;/b&gt;" in page


def test_what_was_fitted_is_not_published() -> None:
    card = {"full": {"temperature": 2.0, "priors": [1.0], "brier": 0.2}, "groups": 3}
    assert without_parameters({"fitted": [card]}) == {"fitted": [{"full": {"brier": 0.2}, "groups": 3}]}


def test_a_plot_shows_every_figure_in_its_place() -> None:
    drawn = dots([Dot(label="<b>", value=0.2, interval=(0.1, 0.3)), Dot(label="two", value=0.8)], "title", mark=0.5)
    assert "<b>" not in drawn
    assert "&lt;b&gt;" in drawn
    first, second = (float(x) for x in re.findall(r'<circle cx="([\d.]+)"', drawn))
    mark = float(re.findall(r'<line x1="([\d.]+)"[^>]*class="mark"', drawn)[0])
    assert first < mark < second
    same = dots([Dot(label="only", value=1.0)], "title")
    assert "nan" not in same


def test_a_curve_stays_in_its_square() -> None:
    drawn = reliability([Curve(label="jury", points=((0.55, 0.5, 10), (1.0, 1.0, 4)))], "title")
    points = re.findall(r'<polyline points="([^"]+)"', drawn)[0].split()
    assert len(points) == 2
    assert all(0 <= float(value) <= 300 for point in points for value in point.split(","))
