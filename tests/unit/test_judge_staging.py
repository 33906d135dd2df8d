"""What of a set goes through the queue: models that replay its answers, ranks, judges, and never a label."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from db.errors import UsageError
from db.registry import JudgeEntry, Registry, parse_registry
from scheduler.evaluation.judges.cases import Case, case_of, keys_of
from scheduler.evaluation.judges.queue import _decision
from scheduler.evaluation.judges.rows import read_set
from scheduler.evaluation.judges.staging import PROFILE, Stage, judges_named
from scheduler.selectors import Situation, choose
from tests.unit.judge_sets import duels, sums, written

NOBODY = Registry.model_validate({"models": {}, "capabilities": {}, "judges": {}})


def staged(folder: Path, rows: list[dict[str, Any]], **options: Any) -> tuple[Stage, list[Case], list[Any]]:
    read = read_set(written(folder, rows))
    keys = keys_of(read.rows, 4)
    cases = [case_of(row, keys, read.kind, **options) for row in read.rows]
    stage = Stage(read.kind)
    return stage, cases, [stage.put(case, "judge-1") for case in cases]


def registry_of(stage: Stage, judges: list[JudgeEntry], known: Registry = NOBODY) -> Registry:
    text = stage.registry(Path("answers.jsonl"), judges_named(judges), known)
    return parse_registry(tomllib.loads(text)).restricted_to(PROFILE)


def test_models_are_ranked_as_the_case_ranks_them(tmp_path: Path) -> None:
    stage, cases, tasks = staged(tmp_path, sums(12))
    registry = registry_of(stage, [JudgeEntry(name="x", method="consensus")])
    for case, one in zip(cases, tasks, strict=True):
        options = one.task.options
        asked = [registry.models[name] for name in options["models"]]
        chosen = choose(options["selectors"], len(asked), asked, Situation(capability=one.task.capability))
        assert [found.model.name for found in chosen] == [answer.model for answer in case.question.answers]
        assert list(one.answers.values()) == [answer.id for answer in case.question.answers]


def test_a_name_that_says_two_things_to_the_same_words_becomes_two_models(tmp_path: Path) -> None:
    # given two rows of the same words, and answers by candidates without a name
    rows = duels(2)
    rows[1]["instruction"] = rows[0]["instruction"]
    stage, _, tasks = staged(tmp_path, rows)
    assert stage.models == ["candidate-0", "candidate-0.2", "candidate-1", "candidate-1.2"]
    assert sorted(tasks[0].answers) == ["candidate-0", "candidate-1"]
    assert sorted(tasks[1].answers) == ["candidate-0.2", "candidate-1.2"]


def test_what_is_replayed_holds_no_label(tmp_path: Path) -> None:
    rows = sums(4)
    stage, _, _ = staged(tmp_path, [row | {"correct_answer": "SECRET", "reference": "SECRET"} for row in rows])
    file = tmp_path / "answers.jsonl"
    stage.write(file)
    for line in file.read_text().splitlines():
        assert set(json.loads(line)) == {"id", "instruction", "candidates"}
        assert all(set(one) == {"model", "output"} for one in json.loads(line)["candidates"])
    assert "SECRET" not in file.read_text()


def test_a_judge_brings_the_model_that_it_asks(tmp_path: Path) -> None:
    known = Registry.model_validate(
        {
            "models": {
                "small": {
                    "name": "small", "capability": "text-generation", "backend": "transformers", "memory_mb": 900,
                    "source": {"folder": "weights"},
                }
            },
            "capabilities": {
                "text-generation": {"name": "text-generation", "input": "text", "instruction": "Go.", "judge": "own"}
            },
            "judges": {"own": {"name": "own", "method": "nll", "model": "small"}},
        }
    )  # fmt: skip
    stage, _, _ = staged(tmp_path, sums(4))
    registry = registry_of(
        stage, [JudgeEntry(name="own", method="nll", model="small", params={"sharpness": 2.0})], known
    )
    assert registry.judges["judge-1"].params == {"sharpness": 2.0}
    assert registry.models["small"] == known.models["small"]
    assert registry.asked_only == {"small"}


def test_a_stored_verdict_is_read_as_a_decision(tmp_path: Path) -> None:
    # given a verdict on three candidates of which one failed
    _, (case, *_), (one, *_) = staged(tmp_path, sums(4))
    ids = {model: str(uuid4()) for model in one.answers}
    first, second, third = one.answers

    class Row:
        models = {ids[model]: model for model in one.answers}  # noqa: RUF012 - a row, not a class of ours
        ranking = (ids[second], ids[first])
        scores = {ids[second]: 2.0, ids[first]: 1.0}  # noqa: RUF012
        reason, method, judge_model, prompt_version = "so", "jury", None, None
        orders: tuple[Any, ...] = ()
        confidence = 0.75

    decision = _decision(Row(), one)

    assert [case.key(answer) for answer in decision.ranking] == [second, first, third]
    assert decision.scores == {one.answers[second]: 2.0, one.answers[first]: 1.0}


def test_rows_without_words_are_refused(tmp_path: Path) -> None:
    candidates = [{"model": name, "output": name, "score": 1.0} for name in ("a", "b")]
    with pytest.raises(UsageError, match="image unseen"):
        staged(tmp_path, [{"id": "c", "image": "1.jpg", "references": [], "candidates": candidates}])
