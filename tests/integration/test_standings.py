"""The leaderboard's figures, read from a real database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from db.leaderboard import Games, games_between_models, known_capabilities, model_figures
from db.registry import ModelEntry
from db.track import judged_subtasks, preferences_between_models
from db.workers import sync_models
from scheduler.leaderboard import Standing, leaderboard
from scheduler.selectors.history import history_of
from tests.integration.standings_parts import HERE, judged, preferred

pytestmark = pytest.mark.integration

MODELS = [ModelEntry(name=name, capability=HERE, backend="scripted") for name in ("alpha", "beta", "gamma")]


@pytest.fixture
def connection(database: Engine) -> Iterator[Connection]:
    with database.begin() as connection:
        sync_models(connection, MODELS)
    with database.connect() as connection:
        yield connection
        connection.rollback()


def standing(connection: Connection, model: str, **more: Any) -> Standing:
    (board,) = leaderboard(connection, HERE, **more)
    return next(one for one in board.standings if one.model == model)


def test_wins_are_counted_and_shared_by_all_who_said_the_same(connection: Connection) -> None:
    judged(connection, {"alpha": "a", "beta": "b", "gamma": "c"}, ("beta", "gamma", "alpha"))
    judged(connection, {"alpha": "same", "beta": "same", "gamma": "c"}, ("beta", "gamma", "alpha"))

    assert {one: standing(connection, one).wins for one in ("alpha", "beta", "gamma")} == {
        "alpha": 1, "beta": 2, "gamma": 0,
    }  # fmt: skip
    assert standing(connection, "alpha").win_rate == 0.5


def test_a_fallback_and_a_model_alone_win_nothing(connection: Connection) -> None:
    judged(connection, {"alpha": "a", "beta": "b"}, ("alpha", "beta"), fallback=True)
    judged(connection, {"alpha": "a"}, ("alpha",))
    judged(connection, {"alpha": "a", "beta": None}, ("alpha",), failed_as="cancelled")

    alpha = standing(connection, "alpha")
    assert (alpha.tried, alpha.done, alpha.judged, alpha.wins, alpha.win_rate) == (3, 3, 0, 0, None)
    assert alpha.strength is None


def test_failures_count_against_a_model_also_where_the_whole_subtask_failed(connection: Connection) -> None:
    judged(connection, {"alpha": "a", "beta": None}, ("alpha",), age=50)
    judged(connection, {"alpha": None, "beta": None}, failed_as="dead")

    alpha, beta = standing(connection, "alpha"), standing(connection, "beta")
    assert (alpha.tried, alpha.failure_rate, alpha.wins) == (2, 0.5, 1)
    assert (beta.tried, beta.failure_rate, beta.judged, beta.wins) == (2, 1.0, 1, 0)
    # and not what failed before the verdicts that are looked at
    judged(connection, {"beta": None}, age=100)
    assert standing(connection, "beta", latest=1).tried == 2
    assert standing(connection, "beta").tried == 3


def test_where_everything_failed_the_failures_are_shown(connection: Connection) -> None:
    judged(connection, {"alpha": None})

    (board,) = leaderboard(connection)
    assert [(one.model, one.failure_rate) for one in board.standings] == [("alpha", 1.0)]


def test_times_are_of_calls_and_not_of_the_cache(connection: Connection) -> None:
    for number in range(1, 21):
        judged(connection, {"alpha": "a"}, ("alpha",), seconds=float(number), usage={"output_tokens": number * 2})
    for usage in ({"output_tokens": "many"}, None, {}):
        judged(connection, {"alpha": "a"}, ("alpha",), seconds=0.0, cached=True, usage=usage)

    alpha = standing(connection, "alpha")
    assert (alpha.median_seconds, alpha.p95_seconds) == (10.5, pytest.approx(19.05))
    assert alpha.mean_output_tokens == 21
    assert alpha.cached_share == pytest.approx(3 / 23)


def test_strengths_are_those_that_the_selectors_use(connection: Connection) -> None:
    # given rankings with equals, failures, a cancelled one, an unranked one, and preferences of every kind
    subtask = judged(connection, {"alpha": "a", "beta": "b", "gamma": "c"}, ("beta", "gamma", "alpha"))
    judged(connection, {"alpha": "same", "beta": "same", "gamma": None}, ("alpha", "beta"))
    judged(connection, {"alpha": "a", "beta": None, "gamma": None}, ("alpha",), failed_as="dead")
    judged(connection, {"alpha": "a", "beta": "b", "gamma": None}, ("alpha", "beta"), failed_as="cancelled")
    judged(connection, {"alpha": "a", "beta": "b", "gamma": "c"}, ("gamma", "beta"))
    judged(connection, {"alpha": "a", "beta": "b"}, ("beta", "alpha"), fallback=True)
    preferred(connection, "gamma", "alpha")
    preferred(connection, "alpha", "elsewhere", "import")
    preferred(connection, "beta", "alpha", "judge")
    preferred(connection, "alpha", "beta", "judge", subtask)  # its verdict says it
    preferred(connection, "alpha", "alpha")

    (board,) = leaderboard(connection, HERE)

    expected = history_of(
        judged_subtasks(connection, HERE, 100), preferences_between_models(connection, HERE, 100)
    ).strengths
    assert sorted(one.model for one in board.standings) == list(expected.names)
    for one in board.standings:
        assert one.strength == pytest.approx(expected.of(one.model)[0])


def test_only_the_latest_are_read_and_what_is_recent_enough(connection: Connection) -> None:
    judged(connection, {"alpha": "a", "beta": "b"}, ("beta", "alpha"), age=7200)
    judged(connection, {"alpha": "a", "beta": "b"}, ("alpha", "beta"), age=60)
    preferred(connection, "beta", "alpha", age=7200)

    for narrow in ({"since": 3600}, {"latest": 1}):
        assert standing(connection, "alpha", **narrow).win_rate == 1.0
    assert games_between_models(connection, HERE, 3600, 100) == [
        Games(better="alpha", worse="beta", origin="verdict", count=1, weight=1.0)
    ]
    assert leaderboard(connection, HERE, since=30) == []
    assert standing(connection, "alpha").win_rate == 0.5


def test_every_capability_that_something_is_known_of_has_a_board(connection: Connection) -> None:
    preferred(connection, "alpha", "beta")
    connection.execute(text("UPDATE preference SET capability = 'image-to-text/ocr'"))
    judged(connection, {"alpha": "a"}, ("alpha",))
    connection.execute(text("UPDATE subtask SET capability = 'image-to-text/caption'"))

    assert known_capabilities(connection) == ["image-to-text/caption", "image-to-text/ocr", HERE]
    assert [board.capability for board in leaderboard(connection)] == ["image-to-text/caption", "image-to-text/ocr"]
    assert model_figures(connection, HERE, None, 10) == []
