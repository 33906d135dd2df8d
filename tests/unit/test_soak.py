"""The soak's own arithmetic: percentiles, what counts as a broken promise, and faults that a seed repeats."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import Any

import pytest

from benchmarks.soak.faults import EVERYBODY, LENGTHS, WEIGHTS, Kind, faults
from benchmarks.soak.registry import MODELS, SETTINGS, members, registry
from benchmarks.soak.report import Figures, Phase, percentile, percentiles
from db.registry import parse_registry
from db.settings import Settings
from scheduler.limits import check_limits


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1), (0.01, 1), (0.5, 50), (0.95, 95), (0.99, 99), (0.991, 100), (1.0, 100)]
)
def test_percentile_is_the_nearest_rank(share: float, expected: float) -> None:
    assert percentile(list(range(100, 0, -1)), share) == expected


def test_percentiles_of_nothing_are_nothing() -> None:
    assert percentiles([]) == {"p50": None, "p95": None, "p99": None, "max": None}


def test_a_seed_repeats_its_faults() -> None:
    assert list(islice(faults(7), 50)) == list(islice(faults(7), 50))
    assert list(islice(faults(7), 50)) != list(islice(faults(8), 50))


def test_every_kind_of_fault_comes_about_as_often_as_its_weight_says() -> None:
    many = list(islice(faults(1), 10_000))
    seen = Counter(fault.kind for fault in many)
    total = sum(weight for weight, _ in WEIGHTS.values())
    assert set(seen) == set(Kind)
    for kind, (weight, _) in WEIGHTS.items():
        assert seen[kind] / len(many) == pytest.approx(weight / total, rel=0.2)


def test_every_fault_has_a_target_that_there_is_and_a_length() -> None:
    for fault in islice(faults(2), 1_000):
        assert fault.target in {*members(), "redis", "postgres"}
        least, most = LENGTHS.get(fault.kind, (0.0, 0.0))
        assert least <= fault.seconds <= most
    assert set(EVERYBODY) == set(members())


def test_the_registry_and_the_settings_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    import tomllib

    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    parsed = parse_registry(tomllib.loads(registry(32)))
    check_limits(Settings(), parsed)
    assert list(parsed.models) == list(MODELS)


def figures(**different: Any) -> Figures:
    phase = Phase(seconds=10.0, finished=50, wait=percentiles([0.1, 0.2]))
    sound: dict[str, Any] = {
        "seed": 1, "settings": {}, "rate": 6.0, "submitted": 100, "accepted": 100, "refused": 3,
        "states": {"done": 100}, "lost": 0, "changed": 0, "stored_twice": 0, "wrong_answers": 0,
        "without_verdict": 0, "calls": 303, "called": 300, "charged_again": 2, "judgings": 100, "judged": 100,
        "fallbacks": 0, "unjudged": 0, "calm": phase, "faulty": phase, "drain_seconds": 1.0, "longest_pause": 2.0,
    }  # fmt: skip
    return Figures(**{**sound, **different})


def test_a_sound_soak_has_no_problem_and_counts_repeated_calls() -> None:
    sound = figures()
    assert sound.problems == []
    assert sound.repeated_calls == 3
    assert sound.as_json()["repeated_share"] == pytest.approx(0.01)
    assert sound.as_json()["calm"]["per_second"] == 5.0


@pytest.mark.parametrize(
    "broken",
    [
        {"lost": 1},
        {"accepted": 99},
        {"changed": 1},
        {"stored_twice": 1},
        {"wrong_answers": 1},
        {"without_verdict": 1},
        {"orphans": ["17 python"]},
    ],
)
def test_every_broken_promise_is_a_problem(broken: dict[str, Any]) -> None:
    assert len(figures(**broken).problems) == 1
