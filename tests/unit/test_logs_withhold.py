"""Logs tell what happened and where, not what callers and models wrote."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from db.logs import configure_logging, get_logger

CANARY = "canary-7f3a"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def failing() -> None:
    try:
        int(CANARY)
    except ValueError as error:
        raise KeyError(CANARY) from error


def say_everything() -> None:
    log = get_logger("ours")
    log.info("A candidate failed", action="candidate_failed", model="alpha", said=CANARY)
    try:
        failing()
    except KeyError:
        log.exception("A judge failed", action="judge_failed")
    log.warning(f"A look failed: duplicate key\nDETAIL:  Key (request)=({CANARY}) exists.", action="look_failed")
    context = {"name": "bakeoff.submit", "id": "1", "description": "raised expected", "exc": f"InvalidRequest('{CANARY}')",
               "args": "()", "kwargs": f"{{'request': '{CANARY}'}}"}  # fmt: skip
    celery = logging.getLogger("celery.app.trace")
    celery.error("Task %(name)s[%(id)s] %(description)s: %(exc)s", context, extra={"data": context})


@pytest.mark.parametrize("style", ["json", "text"])
def test_words_of_callers_and_models_are_left_out(capsys: pytest.CaptureFixture[str], style: str) -> None:
    configure_logging("info", style)
    say_everything()

    said = capsys.readouterr().err
    assert CANARY not in said
    for kept in ("A candidate failed", "alpha", "builtins.ValueError", "builtins.KeyError", "in failing", "Traceback (most recent",
                 "A look failed: duplicate key", "raised expected: InvalidRequest"):  # fmt: skip
        assert kept in said


def test_a_setting_lets_them_in(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json", content=True)
    say_everything()

    lines: list[dict[str, Any]] = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [CANARY in json.dumps(line) for line in lines] == [True] * 4
    assert lines[0]["said"] == CANARY
