"""Times as people type them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from db.errors import InvalidRequest
from scheduler.cli.times import moment_of, seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("15min", 900), ("1.5h", 5400), ("30d", 2_592_000)]
)
def test_a_length_of_time_is_seconds(text: str, seconds: float) -> None:
    assert seconds_of("--older-than", text) == seconds


@pytest.mark.parametrize("text", ["", "30", "-1d", "soon", "1e9d", "99999999999d"])
def test_what_is_no_length_of_time_is_refused_with_the_value(text: str) -> None:
    with pytest.raises(InvalidRequest, match="--older-than"):
        seconds_of("--older-than", text)


def test_a_moment_is_a_length_from_now_or_a_time() -> None:
    assert abs(moment_of("--deadline", "10m") - datetime.now(UTC) - timedelta(minutes=10)) < timedelta(seconds=5)
    assert moment_of("--deadline", "2999-01-01T00:00:00Z") == datetime(2999, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("text", ["2020-01-01T00:00:00Z", "2999-01-01T00:00:00", "tomorrow"])
def test_the_past_and_what_is_no_time_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="--deadline"):
        moment_of("--deadline", text)
