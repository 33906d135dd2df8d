"""The thread that holds leases: when it renews, when it ends the process, and when it leaves a batch alone."""

from __future__ import annotations

import os
import signal
import time
from typing import Any
from uuid import uuid4

import pytest

from db.lease import Leased
from tests.conftest import wait_until
from worker import renewal
from worker.renewal import Renewal


@pytest.fixture
def renewed(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    times: list[float] = []
    monkeypatch.setattr(Renewal, "_renew", lambda _: times.append(time.monotonic()))
    return times


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    signals: list[int] = []
    monkeypatch.setattr(os, "kill", lambda _, number: signals.append(number))
    return signals


def make(seconds: float = 0.4) -> Renewal:
    engine: Any = None
    return Renewal(engine, Leased.CANDIDATE, uuid4(), seconds)


def test_a_lease_is_renewed_every_quarter_while_its_batch_may_run(renewed: list[float]) -> None:
    with make(0.4) as held:
        began = time.monotonic()
        held.until(began + 60)
        wait_until(lambda: len(renewed) >= 3)
    took = time.monotonic() - began

    assert took >= 0.2
    assert len(renewed) <= took / 0.1 + 1


def test_nothing_is_renewed_after_the_batch(renewed: list[float]) -> None:
    with make(0.4) as held:
        held.until(time.monotonic() + 60)
    count = len(renewed)
    time.sleep(0.4)

    assert len(renewed) == count


def test_a_batch_past_its_deadline_is_renewed_no_more(renewed: list[float]) -> None:
    with make(0.4) as held:
        held.until(time.monotonic() - 1)
        time.sleep(0.4)

    assert renewed == []


def test_a_batch_far_past_its_deadline_ends_the_process(killed: list[int]) -> None:
    with make() as held:
        held.until(time.monotonic() - renewal.OVERRUN_GRACE - 1)
        held.look()

    assert signal.SIGKILL in killed


def test_a_batch_that_has_ended_meanwhile_ends_nothing(killed: list[int]) -> None:
    with make() as held:
        pass
    held.until(time.monotonic() - renewal.OVERRUN_GRACE - 1)
    held.look()

    assert killed == []


def test_one_lease_that_cannot_be_looked_after_ends_the_care_for_no_other(
    renewed: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = make(0.4)
    monkeypatch.setattr(broken, "look", lambda: 1 / 0)
    with broken, make(0.4) as held:
        held.until(time.monotonic() + 60)
        time.sleep(0.5)

    assert renewed
