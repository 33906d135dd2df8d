"""The paper's ablation on little sets of the published forms, with a language model that knows what is right."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from db.errors import UsageError
from scheduler.evaluation.ablation import command
from scheduler.evaluation.ablation.arms import ARMS, Contest, question
from scheduler.evaluation.ablation.report import ablation
from scheduler.evaluation.judges.metrics import paired_interval
from scheduler.evaluation.judges.rows import PROBLEM, best_models, find_set, part_of, read_set


class Knowing:
    """A language model that prefers answers which hold a word; `seen` is every prompt it was given."""

    identity = "knowing@1"

    def __init__(self, word: str) -> None:
        self.word = word
        self.seen: list[str] = []

    def option_logprobs(self, prompts: Sequence[str], options: Sequence[str]) -> list[list[float]]:
        self.seen += prompts
        rows = []
        for prompt in prompts:
            shown = dict(re.findall(r'<answer letter="(.)">\n(.*?)\n</answer>', prompt, re.DOTALL))
            rows.append([3.0 if self.word in shown[option] else 0.0 for option in options])
        return rows

    def continuation_logprobs(self, prompt: str, continuations: Sequence[str]) -> list[float]:
        raise NotImplementedError


def problem(number: int, right: str = "strong") -> dict[str, Any]:
    """A sum that `right` and nobody else solves; two weak models agree on a wrong answer."""
    wrong = iter(("I guess.\nA: 7777", "Surely.\nA: 7777"))
    models = {
        name: f"I add them.\n#### {number}" if name == right else next(wrong) for name in ("strong", "weak-1", "weak-2")
    }
    return {
        "id": f"gsm8k/{number}",
        "instruction": f"What is {number - 1} + 1?",
        "reference": str(number),
        "candidates": [
            *({"model": name, "output": text, "correct": int("####" in text)} for name, text in models.items()),
            {"model": "gpt-4-1106-preview", "output": f"#### {number}", "correct": 1},
        ],
    }


def written(folder: Path, name: str, rows: Sequence[dict[str, Any]]) -> Path:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    """A hundred sums: `strong` is best alone, but of every three one is solved by another model."""
    right = ("strong", "strong", "weak-1")
    return written(tmp_path, "multi_gsm8k", [problem(number, right[number % 3]) for number in range(100)])


def arms(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {arm["arm"]: arm for arm in found["arms"]}


# --- reading ----------------------------------------------------------------------------------------------------------


def test_parts_are_disjoint_and_about_as_large_as_they_should_be() -> None:
    parts = [part_of(f"group {number}") for number in range(2000)]
    assert parts.count("fit") == pytest.approx(1000, abs=80)
    assert parts.count("tune") == pytest.approx(400, abs=80)
    assert part_of("group 1") == parts[1]


def test_a_set_leaves_out_what_it_must(sums: Path) -> None:
    read = read_set(sums, command.STRONGEST)
    assert all(set(row.answers) == {"strong", "weak-1", "weak-2"} for row in read.rows)
    assert {len(read.part(part)) for part in ("fit", "tune", "report")} != {0}
    assert sum(len(read.part(part)) for part in ("fit", "tune", "report")) == 100


def test_mathvista_shows_the_picture_in_words_and_an_answer_that_is_none_is_empty(tmp_path: Path) -> None:
    row = {
        "id": "mathvista/1", "question": "Which is larger?", "choices": ["A bus", "A cat"], "unit": None,
        "image": "images/1.jpg", "caption_bard": "A bus beside a cat.", "ocr": "[([[1, 2]], 'LINE 7', 0.9), ([[1, 2]], 'EXIT', 0.8), ([[1",
        "reference": "A bus",
        "candidates": [
            {"model": "one", "output": "The bus is", "prediction": "A bus", "correct": 1},
            {"model": "two", "output": "I cannot see", "prediction": None, "correct": 0},
        ],
    }  # fmt: skip
    (read,) = read_set(written(tmp_path, "multi_mathvista", [row])).rows
    for words in ("Which is larger?", "A bus; A cat", "A bus beside a cat.", "LINE 7; EXIT"):
        assert words in read.request
    assert read.answers == {"one": "The bus is\nAnswer: A bus", "two": ""}


def test_the_human_is_no_candidate(tmp_path: Path) -> None:
    row = {
        "id": "coco/1", "image": "1.jpg", "references": ["A cat."],
        "candidates": [
            {"model": "VinVL", "output": "A cat.", "score": 4.5, "P": 5, "R": 4},
            {"model": "Human", "output": "My cat.", "score": 5.0, "P": 5, "R": 5},
        ],
    }  # fmt: skip
    (read,) = read_set(written(tmp_path, "multi_thumb_mscoco", [row])).rows
    assert (dict(read.answers), read.request) == ({"VinVL": "A cat."}, "")


@pytest.mark.parametrize(("name", "text", "said"), [("multi_gsm8k", "{}\n", "line 1"), ("multi_other", "", "no rows")])
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / f"{name}.jsonl").write_text(text)
    with pytest.raises(UsageError, match=said):
        read_set(tmp_path / f"{name}.jsonl")


def test_a_set_is_found_by_name_or_path(sums: Path) -> None:
    assert find_set("multi_gsm8k", sums.parent) == find_set(str(sums), None) == sums
    with pytest.raises(UsageError, match="BAKEOFF_EVAL_DATA"):
        find_set("multi_gsm8k", None)


# --- arms -------------------------------------------------------------------------------------------------------------


def test_every_arm_is_measured_on_the_same_rows(sums: Path) -> None:
    # given a judge's model that always knows
    found = ablation(read_set(sums, command.STRONGEST), Knowing("####"), limit=None, candidates=3)
    read = arms(found)
    # then it reaches the oracle listwise and in pairs, and the vote follows the wrong majority
    assert tuple(read) == ARMS
    assert found["models"][0] == "strong"
    assert read["oracle"]["score"] == 1.0
    assert 0.4 < read["best single"]["score"] < 0.9
    assert read["random"]["score"] == pytest.approx(1 / 3)
    for arm in ("LLM only", "similarity + LLM", "pairwise, both orders"):
        assert read[arm]["recovered"] == pytest.approx(1.0)
        assert read[arm]["interval"][0] > 0
        assert read[arm]["calls"] > 0
    assert read["similarity only"]["score"] == 0.0
    assert read["similarity only"]["calls"] == 0


def test_a_limit_is_the_same_rows_every_time(sums: Path) -> None:
    one, other = (ablation(read_set(sums, command.STRONGEST), Knowing("####"), limit=5, candidates=2) for _ in range(2))
    for found in (one, other):
        for arm in found["arms"]:
            arm.pop("seconds")
    assert one == other
    assert (one["support"], len(one["models"])) == (5, 2)


def test_when_the_time_is_up_all_arms_have_the_same_rows(sums: Path) -> None:
    found = ablation(read_set(sums, command.STRONGEST), Knowing("####"), candidates=3, seconds=0)
    runs = Contest(["strong", "weak-1"], PROBLEM, Knowing("####")).run(read_set(sums).rows, 0)
    assert found["support"] == 1
    assert {len(run.scores) for run in runs.values()} == {1}


def test_no_label_reaches_a_judge(sums: Path, tmp_path: Path) -> None:
    # given the same set with every label turned round
    rows = [json.loads(line) for line in sums.read_text().splitlines()]
    for row in rows:
        row["reference"] = "4321"
        for candidate in row["candidates"]:
            candidate["correct"] = 1 - candidate["correct"]
    (tmp_path / "other").mkdir()
    turned = written(tmp_path / "other", "multi_gsm8k", rows)
    asked = []
    for path in (sums, turned):
        model = Knowing("####")
        kind = PROBLEM
        Contest(["strong", "weak-1", "weak-2"], kind, model).run(read_set(path).part("report"))
        asked.append(model.seen)
    # then the judges read the same prompts
    assert asked[0] == asked[1]
    assert asked[0]


def test_a_judge_sees_no_names_and_blind_ranks_are_shuffled(sums: Path) -> None:
    rows = read_set(sums).rows
    models = best_models(rows, 3)
    plain = [question(row, models, PROBLEM, 0) for row in rows]
    blind = [question(row, models, PROBLEM, 1) for row in rows]
    assert not any(answer.model in models for one in plain for answer in one.answers)
    assert {tuple(answer.rank for answer in one.answers) for one in plain} == {(0, 1, 2)}
    assert len({tuple(answer.rank for answer in one.answers) for one in blind}) == 6


def test_an_interval_holds_the_mean_and_shrinks_with_rows() -> None:
    few, many = (paired_interval([0.0, 1.0] * count) for count in (5, 100))
    assert few[0] < 0.5 < few[1]
    assert many[1] - many[0] < few[1] - few[0]


# --- the command ------------------------------------------------------------------------------------------------------


def run(*arguments: str) -> Any:
    app = typer.Typer()
    app.command()(command.ablation_command)
    return CliRunner().invoke(app, [*arguments])


class Loaded(Knowing):
    """A model as the command loads it."""

    def close(self) -> None:
        """Nothing to give back."""


def test_the_command_prints_json_and_a_table(sums: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_loaded", lambda *_: Loaded("####"))
    done = run(str(sums), "--judge-model", "any", "--limit", "6", "--json")
    (found,) = json.loads(done.stdout)["sets"]
    assert (found["set"], found["support"]) == ("multi_gsm8k", 6)
    assert {"arm", "score", "difference", "interval", "recovered", "calls", "seconds"} == set(found["arms"][0])
    printed = run(str(sums), "--judge-model", "any", "--limit", "6").stdout
    assert "similarity + LLM" in printed


def test_a_judge_model_that_is_unknown_is_named(sums: Path) -> None:
    done = run(str(sums), "--judge-model", "nobody")
    assert "nobody" in str(done.exception)
