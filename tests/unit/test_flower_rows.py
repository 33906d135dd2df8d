"""What a row of Flower says, and how Flower knows the broker."""

from __future__ import annotations

import ast
from uuid import UUID

import pytest

from scheduler.publishing import NAMED, in_flower
from worker.reconnect import EagerConnection

MANY = [UUID(int=number) for number in range(NAMED + 3)]


def test_a_row_names_model_task_and_subtask() -> None:
    said = in_flower(["alpha"], MANY[:1], MANY[1:2])
    assert ast.literal_eval(said) == {"model": "alpha", "task": str(MANY[0]), "subtask": str(MANY[1])}


def test_a_row_of_a_wave_names_some_and_says_how_many_more() -> None:
    said = ast.literal_eval(in_flower(["alpha", "beta"], MANY[:2], MANY))
    assert said == {
        "models": ["alpha", "beta"],
        "task": [str(one) for one in MANY[:2]],
        "subtask": [str(one) for one in MANY[:NAMED]],
        "more subtasks": 3,
    }
    assert "model" not in in_flower([], MANY[:1], MANY[:1])


def test_a_row_stays_small_however_many_travel_together() -> None:
    assert len(in_flower(["m" * 100], MANY * 100, MANY * 100)) < 2000


@pytest.mark.parametrize(("tls", "scheme"), [(False, "redis"), (True, "rediss")])
def test_a_brokers_address_says_redis_whatever_carries_the_messages(*, tls: bool, scheme: str) -> None:
    here = EagerConnection("redis://:secret@there:6380/2", transport="worker.thrift:Transport", ssl=tls)
    assert here.as_uri() == f"{scheme}://:**@there:6380/2"
    assert here.as_uri(include_password=True) == f"{scheme}://:secret@there:6380/2"
    assert EagerConnection("memory://").as_uri().startswith("memory://")
