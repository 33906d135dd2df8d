"""When a worker counts as stalled, and what memory its child may take."""

from __future__ import annotations

from db.settings import Settings
from worker.role import WorkerRole
from worker.watch import LEAST_LIMIT, MEGABYTE, Stall, memory_limit


def test_a_worker_that_could_start_something_and_does_not_is_stalled() -> None:
    stall = Stall(120)
    assert not stall.after(0, started=5, could_start=True)
    assert not stall.after(119, started=5, could_start=True)
    assert stall.after(120, started=5, could_start=True)


def test_whoever_starts_messages_is_not_stalled_however_long_its_queue() -> None:
    stall = Stall(120)
    assert not any(stall.after(60.0 * n, started=n, could_start=True) for n in range(20))


def test_one_look_without_waiting_messages_begins_anew() -> None:
    stall = Stall(120)
    stall.after(0, started=5, could_start=True)
    assert not stall.after(100, started=5, could_start=False)
    assert not stall.after(130, started=5, could_start=True)
    assert not stall.after(249, started=5, could_start=True)
    assert stall.after(250, started=5, could_start=True)


def test_a_busy_worker_is_never_stalled() -> None:
    stall = Stall(1)
    assert not any(stall.after(float(n), started=1, could_start=False) for n in range(100))


def test_memory_is_limited_by_the_registry_and_judges_models_count() -> None:
    settings = Settings(profile="demo")
    registry = settings.registry
    model = max(registry.models.values(), key=lambda entry: entry.memory_mb)
    wanted = settings.memory_factor * model.memory_mb * MEGABYTE
    assert memory_limit(settings, WorkerRole(name="a", models=(model.name,))) == max(LEAST_LIMIT, int(wanted))
    asked = sum(registry.model(name).memory_mb for name in registry.asked_by_judges())
    judging = memory_limit(settings, WorkerRole(name="j", judge=True))
    assert judging == max(LEAST_LIMIT, int(settings.memory_factor * asked * MEGABYTE))


def test_a_worker_without_models_may_hold_an_interpreter() -> None:
    assert memory_limit(Settings(profile="demo"), WorkerRole(name="i", intake=True)) == LEAST_LIMIT
