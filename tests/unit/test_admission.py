"""When a source's backlog is counted."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler import admission
from scheduler.admission import Admission


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Open tasks by source, and how often somebody asked."""
    state: dict[str, Any] = {"open": {}, "asked": 0, "now": 0.0}

    def count(_: Any, source: str, most: int) -> int:
        state["asked"] += 1
        return min(most, state["open"].get(source, 0))

    monkeypatch.setattr(admission, "count_open", count)
    monkeypatch.setattr(admission.time, "monotonic", lambda: state["now"])
    return state


def bound(made: Admission, *sources: str) -> int | None:
    connection: Any = None
    return made.bound(connection, sources, 100)


def test_far_below_the_bound_a_source_is_counted_once_a_second(counted: dict[str, Any]) -> None:
    made = Admission()
    assert [bound(made, "a") for _ in range(10)] == [None] * 10
    assert counted["asked"] == 1

    counted["now"] = 1.5
    assert bound(made, "a") is None
    assert counted["asked"] == 2


def test_near_the_bound_the_statement_checks_each_time(counted: dict[str, Any]) -> None:
    counted["open"]["a"] = 90
    made = Admission()

    assert [bound(made, "a") for _ in range(3)] == [100, 100, 100]


def test_what_was_submitted_since_counts(counted: dict[str, Any]) -> None:
    counted["open"]["a"] = 80
    made = Admission()
    assert bound(made, *["a"] * 10) is None
    counted["open"]["a"] = 90

    assert bound(made, "a") == 100


def test_what_the_statement_checked_leaves_no_room_behind(counted: dict[str, Any]) -> None:
    made = Admission()
    assert bound(made, *["a"] * 95) == 100
    counted["open"]["a"] = 95

    assert bound(made, "a") == 100


def test_one_source_at_its_bound_makes_the_statement_check(counted: dict[str, Any]) -> None:
    counted["open"]["full"] = 100

    assert bound(Admission(), "empty", "full") == 100
