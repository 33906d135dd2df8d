"""The result cache: equal inputs run once, and a hit is a candidate like any other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Installation, make_installation, wait_until

pytestmark = pytest.mark.integration

REGISTRY = """
[profiles.demo]
models = ["steady", "moody", "twin"]

[capabilities.text-generation]
input = "text"
instruction = "Answer the request."
judge = "longest"

[judges.longest]
method = "scripted"

[models.steady]
capability = "text-generation"
backend = "scripted"
priority = 1
max_batch = 16
deterministic = true
params = {{ answer = "{version}: {{text}}", rules = [{{ match = "fails", fail = "input" }}, {{ match = "dawdles", sleep = 0.5 }}] }}

[models.twin]
capability = "text-generation"
backend = "scripted"
priority = 2
cache = true
params = {{ answer = "the twin of {{text}}" }}

[models.moody]
capability = "text-generation"
backend = "scripted"
priority = 3
params = {{ answer = "moody {{text}}" }}
"""


def write(installation: Installation, version: str = "one") -> None:
    installation.models_file.write_text(REGISTRY.format(version=version))


@pytest.fixture(scope="module")
def running(
    servers: tuple[str, str], template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    for made in make_installation(servers, tmp_path_factory.mktemp("cache"), template):
        made.settings |= {"BAKEOFF_SETTLE_SECONDS": "0", "BAKEOFF_CACHE_MAX_BYTES": "1000"}
        write(made)
        made.start_all(("steady", "moody", "twin"))
        yield made


def ask(running: Installation, text: str, *arguments: str) -> dict[str, Any]:
    done = running.run("submit", text, *arguments, "--wait", "--json")
    story = done.json
    return {c["model"]: (c["cached"], c["attempt"], c["output"]) for c in story["subtasks"][0]["candidates"]}


def test_the_second_time_a_deterministic_model_is_not_run(running: Installation) -> None:
    first = ask(running, "hello")
    again = ask(running, "hello")

    assert first["steady"] == (False, 1, "one: hello")
    assert again["steady"] == (True, 0, "one: hello")
    assert again["twin"] == (True, 0, "the twin of hello")
    assert again["moody"] == (False, 1, "moody hello")


def test_a_subtask_that_the_cache_answers_whole_goes_straight_to_the_judge(running: Installation) -> None:
    both = ("--model", "steady", "--model", "twin")
    ask(running, "whole", *both)

    again = ask(running, "whole", *both)

    assert [cached for cached, _, _ in again.values()] == [True, True]
    sent = running.query("SELECT message_id FROM candidate WHERE cached AND attempt = 0 AND sends > 0")
    assert sent == []


def test_another_input_other_params_or_a_sampled_answer_is_no_hit(running: Installation) -> None:
    ask(running, "ground")

    assert ask(running, "ground ")["steady"][0] is False
    assert ask(running, "ground", "--param", "max_new_tokens=5")["steady"][0] is False
    for _ in range(2):
        assert ask(running, "ground", "--param", "temperature=0.5")["steady"][0] is False


def test_a_caller_may_refuse_stored_answers(running: Installation) -> None:
    ask(running, "fresh")

    assert ask(running, "fresh", "--no-cache")["steady"][0] is False


def test_a_failure_is_not_kept(running: Installation) -> None:
    for _ in range(2):
        assert ask(running, "fails", "--model", "steady", "--model", "twin")["steady"][2] is None

    assert running.query("SELECT 1 FROM candidate WHERE model = 'steady' AND output IS NULL AND cached") == []


def test_a_long_input_is_not_kept(running: Installation) -> None:
    for _ in range(2):
        assert ask(running, "long " * 300)["steady"][0] is False


def test_equal_inputs_of_one_message_run_once(running: Installation) -> None:
    running.query(
        """
        INSERT INTO task (request, source, options)
        SELECT 'dawdles ' || n % 2, 'many', '{"models": ["steady"]}' FROM generate_series(1, 12) AS n
        """
    )

    def open_ones() -> int:
        return len(running.query("SELECT 1 FROM task WHERE source = 'many' AND finished_at IS NULL"))

    wait_until(lambda: open_ones() == 0, 30, running.logs)

    rows = running.query("SELECT c.output, sum(c.attempt) AS runs, count(*) AS n FROM candidate AS c "
                         "WHERE c.output LIKE 'one: dawdles%' GROUP BY c.output")  # fmt: skip
    assert sum(row.n for row in rows) == 12
    assert sum(row.runs for row in rows) <= 4  # one run each, or two where they did not travel together


def test_a_model_that_is_run_differently_answers_anew(running: Installation, tmp_path: Path) -> None:
    ask(running, "changing")
    write(running, "two")
    try:
        for name in ("scheduler", "steady", "judge"):
            running.stop(name)
        running.start("scheduler", "scheduler")
        running.start("judge", "worker", "--judge")
        running.start("steady", "worker", "steady")
        running.wait_ready(5)

        assert ask(running, "changing")["steady"] == (False, 1, "two: changing")
    finally:
        write(running)
