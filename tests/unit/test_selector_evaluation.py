from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from db.errors import InvalidRequest
from db.settings import Settings, load_settings
from scheduler.evaluation.selectors.arms import Pick, fitted_target, run_arms, tally_of, teach
from scheduler.evaluation.selectors.command import selectors_command
from scheduler.evaluation.selectors.measure import Outcome, Tally, expected_at_random, outcome
from scheduler.evaluation.selectors.report import report_of
from scheduler.evaluation.selectors.rows import Row, Rows, find_file, read_rows, split


def row(name: str, text: str = "", **scores: float) -> Row:
    return Row(id=name, text=text or name, scores=scores)


def specialists(count: int = 40) -> Rows:
    """Two kinds of inputs: `coder` is right on one kind, `poet` on the other and a little more often; others rarely."""
    rows = []
    for number in range(count):
        code = number % 5 < 2
        text = f"write python code function number {number}" if code else f"compose a poem about autumn, verse {number}"
        rows.append(
            row(f"r{number}", text, Coder=float(code), Poet=float(not code), Weak=0.0, Lucky=float(number % 10 == 0))
        )
    return Rows(rows=tuple(rows), models=("Coder", "Lucky", "Poet", "Weak"))


# --- measuring


def test_of_the_chosen_the_best_answer_counts() -> None:
    assert outcome(row("r", a=0.2, b=0.7, c=0.9), ["a", "b"]) == Outcome(score=0.7, best_among=0.0, calls=2)
    assert outcome(row("r", a=0.2, b=0.9, c=0.9), ["b"]) == Outcome(score=0.9, best_among=1.0, calls=1)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_random_is_the_mean_over_every_choice_there_is(k: int) -> None:
    one = row("r", a=0.1, b=0.5, c=0.9, d=0.9)
    every = [outcome(one, chosen) for chosen in itertools.combinations(one.scores, k)]

    expected = expected_at_random(one, k)

    assert expected.score == pytest.approx(sum(o.score for o in every) / len(every))
    assert expected.best_among == pytest.approx(sum(o.best_among for o in every) / len(every))


def test_an_input_of_several_splits_counts_once() -> None:
    tally = Tally()
    for score in (0.0, 1.0):
        tally.add("x", 1, "often", Outcome(score=score, best_among=score, calls=1))
    tally.add("x", 1, "once", Outcome(score=1.0, best_among=1.0, calls=3))

    figures = tally.figures("x", 1)

    assert figures.rows == 2
    assert figures.score.mean == pytest.approx(0.75)
    assert figures.calls == pytest.approx(2)


def test_differences_are_taken_input_by_input() -> None:
    tally = Tally()
    for name, base in (("a", 0.1), ("b", 0.9), ("c", 0.5)):
        tally.add("low", 1, name, Outcome(score=base, best_among=0, calls=1))
        tally.add("high", 1, name, Outcome(score=base + 0.05, best_among=0, calls=1))

    difference = tally.difference("high", "low", 1)

    assert difference.mean == pytest.approx(0.05)
    assert difference.se == pytest.approx(0, abs=1e-9)  # though the inputs differ much
    assert tally.kept("low", 1, ("high", 1)).mean == pytest.approx(0.5 / 0.55)


# --- the arms


def test_only_fit_rows_teach() -> None:
    fit, test = split(specialists().rows, 3)

    taught = teach(fit, specialists().models)

    assert {entry.text for entry in taught.history.log.entries} == {one.text for one in fit}
    assert not {one.id for one in fit} & {one.id for one in test}
    assert split(specialists().rows, 3) == (fit, test) != split(specialists().rows, 4)


def test_names_that_the_registry_would_refuse_are_written_otherwise() -> None:
    taught = teach([row("r", **{"GPT 4": 1.0, "gpt-4": 0.0, "_Odd/Name": 0.5})], ["GPT 4", "gpt-4", "_Odd/Name"])

    assert sorted(taught.names.values()) == ["GPT 4", "_Odd/Name", "gpt-4"]
    assert taught.best_first == ("GPT 4", "_Odd/Name", "gpt-4")


def test_nearest_finds_the_specialist_where_the_best_single_model_does_not() -> None:
    data = specialists(80)

    tally, _ = run_arms(data, [1], 0.95, 0.98)

    assert tally.figures("nearest", 1).score.mean == pytest.approx(1.0)
    assert tally.figures("best_single", 1).score.mean == pytest.approx(0.6, abs=0.15)
    assert tally.figures("random", 1).score.mean == pytest.approx(0.275, abs=0.05)
    assert tally.figures("nearest", 4).score == tally.figures("random", 4).score  # all of them


def test_adaptive_asks_one_where_one_is_enough() -> None:
    data = specialists(80)

    tally, _ = run_arms(data, [1], 0.8, 0.98)
    report = report_of(data, tally, [0.8])

    assert report["adaptive"]["kept"]["mean"] == pytest.approx(1.0)
    assert report["adaptive"]["calls"] < 1.5
    assert report["bar"] == {"choices": True, "adaptive": True}


def test_the_target_is_the_lowest_that_keeps_enough_of_the_fit_rows() -> None:
    fit = [row(f"r{number}", f"text {number}", a=float(number % 4 != 0), b=1.0) for number in range(40)]

    assert fitted_target(fit, ["a", "b"], 1, 0.98) < 0.95  # b alone is right always
    assert fitted_target([row(f"r{n}", f"t {n}", a=float(n % 2), b=float(n % 2 == 0)) for n in range(40)], ["a", "b"], 1, 0.98) > 0.5  # fmt: skip


def test_choices_of_the_real_queue_are_measured_alike() -> None:
    data = specialists()
    _, test = split(data.rows, 1)
    winners = [Pick(arm="judged", k=2, row=one.id, models=["Poet"]) for one in test]

    tally = tally_of(data, 1, winners)
    report = report_of(data, tally, [])

    assert report["arms"]["judged"]["2"]["score"]["mean"] == pytest.approx(
        sum(one.scores["Poet"] for one in test) / len(test)
    )
    assert set(report["arms"]) == {"random", "best_single", "judged"}
    assert report["adaptive"] is None
    assert report["bar"]["choices"] is None


def test_a_choice_for_a_row_that_taught_is_refused() -> None:
    data = specialists()
    fit, test = split(data.rows, 1)

    for pick in (
        Pick(arm="x", k=1, row=fit[0].id, models=["Poet"]),
        Pick(arm="x", k=1, row=test[0].id, models=["Nobody"]),
        Pick(arm="x", k=1, row=test[0].id, models=[]),
    ):
        with pytest.raises(InvalidRequest, match="is no test row of seed 1"):
            tally_of(data, 1, [pick])


# --- files


def written(folder: Path, *lines: Any) -> Path:
    path = folder / "scores.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return path


def matrix(count: int = 12) -> list[Any]:
    head = {"models": ["strong", "weak", "weak_verbose", "gpt4_1106_preview"]}
    return [
        head,
        *({"id": f"i{n}", "instruction": f"ask {n}", "p": [0.9, 0.1 * (n % 3), 0.2, 0.5]} for n in range(count)),
    ]


def test_a_matrix_is_read_without_the_baseline_and_the_variants(tmp_path: Path) -> None:
    data = read_rows(written(tmp_path, *matrix()))

    assert data.models == ("strong", "weak")
    assert data.rows[1] == Row(id="i1", text="ask 1", scores={"strong": 0.9, "weak": 0.1})


def test_rows_with_candidates_are_read_without_people(tmp_path: Path) -> None:
    lines = [
        {"question": f"q{n}", "candidates": [{"model": "a", "correct": 1}, {"model": "b", "score": 0.5}, {"model": "Human", "score": 1}]}
        for n in range(10)
    ]  # fmt: skip

    data = read_rows(written(tmp_path, *lines))

    assert data.rows[3] == Row(id="3", text="q3", scores={"a": 1.0, "b": 0.5})


def test_inputs_without_every_score_are_counted_and_left_out(tmp_path: Path) -> None:
    lines = matrix()
    lines[2]["p"][0] = None

    data = read_rows(written(tmp_path, *lines))

    assert (len(data.rows), data.incomplete) == (11, 1)


@pytest.mark.parametrize("lines", [[{"a": 1}], ["text"], matrix(5), [{"models": ["a"]}, {"id": "x", "p": [1, 2]}]])
def test_another_file_is_refused_with_what_is_missing(tmp_path: Path, lines: list[Any]) -> None:
    with pytest.raises(InvalidRequest, match=r"scores\.jsonl (holds no scores of models|has 2 models and 5 inputs)"):
        read_rows(written(tmp_path, *lines))


def test_a_set_is_found_by_its_name(tmp_path: Path) -> None:
    path = written(tmp_path, *matrix())

    assert find_file(Settings(eval_data=tmp_path), "scores") == path
    with pytest.raises(InvalidRequest, match=r"'other' is no file.*BAKEOFF_EVAL_DATA"):
        find_file(Settings(eval_data=tmp_path), "other")


# --- the command


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[typer.Typer]:
    monkeypatch.setenv("BAKEOFF_EVAL_DATA", str(tmp_path))
    load_settings.cache_clear()
    app = typer.Typer()
    app.command()(selectors_command)
    yield app
    load_settings.cache_clear()


def test_the_command_prints_every_arm_as_json(app: typer.Typer, tmp_path: Path) -> None:
    written(tmp_path, *matrix(20))

    done = CliRunner().invoke(app, ["scores", "--splits", "2", "--json"])

    said = json.loads(done.stdout)
    assert {"random", "best_single", "track_record", "nearest", "explore"} <= set(said["arms"])
    assert said["arms"]["track_record"]["1"]["score"]["mean"] == pytest.approx(0.9)
    assert said["against"]["nearest"]["1"]["random"]["mean"] > 0
    assert len(said["adaptive"]["targets"]) == 2


def test_the_command_prints_tables_for_people(app: typer.Typer, tmp_path: Path) -> None:
    written(tmp_path, *matrix(20))

    done = CliRunner().invoke(app, ["scores", "--target", "0.9"])

    assert done.exit_code == 0
    assert "best among" in done.stdout
    assert "adaptive: score 0.9000, 1.00 of 2 calls" in done.stdout
