"""The system that `bakeoff evaluate pipeline` starts: its registry, its judges, its processes."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from db.registry import Registry, parse_registry
from scheduler.evaluation.pipeline.items import ANSWER, HEAR, READ
from scheduler.evaluation.pipeline.registry import AGREEMENT, PROFILE, judges_of, run_tables
from scheduler.evaluation.pipeline.report import most_downloaded
from scheduler.evaluation.pipeline.running import workers_of
from scheduler.evaluation.running import as_toml

TABLES = tomllib.loads((Path(__file__).resolve().parents[2] / "models.toml").read_text())
TABLES["capabilities"]["text-generation"]["judge"] = "smollm2-nll"  # which asks one of the candidates
MODELS = {
    READ: ["rapidocr", "ddddocr"],
    HEAR: ["whisper-base", "pocketsphinx-en-us"],
    ANSWER: ["smollm2-135m", "qwen2.5-coder-1.5b"],
}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return parse_registry(TABLES)


def test_a_registry_is_written_as_it_was_read() -> None:
    assert tomllib.loads(as_toml(TABLES)) == TABLES


def test_a_judge_that_would_be_a_candidate_of_the_step_does_not_judge_it(registry: Registry) -> None:
    judges = judges_of(registry, MODELS, None)

    assert judges == {READ: "smollm2-nll", HEAR: "smollm2-nll", ANSWER: AGREEMENT}
    assert set(judges_of(registry, MODELS, "qwen-nll").values()) == {"qwen-nll"}


def test_a_run_has_its_models_its_judges_and_a_process_for_each(registry: Registry) -> None:
    # given
    tables = run_tables(TABLES, MODELS, judges_of(registry, MODELS, None), "qwen")
    # when
    run = parse_registry(tomllib.loads(as_toml(tables))).restricted_to(PROFILE)
    # then the judge and the planner live where the model is that they ask
    assert set(run.models) == {name for names in MODELS.values() for name in names} | {"minilm-l6"}
    assert run.capabilities["text-generation"].judge == AGREEMENT
    assert workers_of(run) == {
        "rapidocr": ("rapidocr",),
        "ddddocr": ("ddddocr",),
        "whisper-base": ("whisper-base",),
        "pocketsphinx-en-us": ("pocketsphinx-en-us",),
        "smollm2-135m": ("smollm2-135m", "--judge"),
        "qwen2.5-coder-1.5b": ("qwen2.5-coder-1.5b", "--planner"),
    }


def with_downloads(figures: dict[str, int]) -> Registry:
    tables = tomllib.loads(as_toml(TABLES))
    for name, model in tables["models"].items():
        model["metadata"] = {"downloads": figures[name]} if name in figures else {}
    return parse_registry(tables)


def test_without_downloads_the_first_of_the_registry_is_asked_and_it_says_so() -> None:
    chosen, note = most_downloaded(with_downloads({}), MODELS)

    assert chosen == {READ: "rapidocr", HEAR: "whisper-base", ANSWER: "smollm2-135m"}
    assert note == "no downloads known for read, hear, answer: first of the registry"


def test_with_downloads_the_most_downloaded_model_is_asked() -> None:
    # given
    figures = {"rapidocr": 5, "ddddocr": 9, "pocketsphinx-en-us": 1, "qwen2.5-coder-1.5b": 3}
    # when
    chosen, note = most_downloaded(with_downloads(figures), MODELS)
    # then
    assert chosen == {READ: "ddddocr", HEAR: "pocketsphinx-en-us", ANSWER: "qwen2.5-coder-1.5b"}
    assert note == "by downloads"
