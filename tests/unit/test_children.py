"""Which processes a profile needs, whether they fit, and how often one that ends is started."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from db.errors import RefusedNow
from db.registry import Registry, parse_registry
from scheduler.local import memory
from scheduler.local.backoff import Backoff
from scheduler.local.children import api_spec, children_of, flower_spec, threads_per_worker
from scheduler.local.notices import masked

if TYPE_CHECKING:
    from pathlib import Path


def a_registry(judges: dict[str, dict[str, str]] | None = None) -> Registry:
    def model(capability: str, memory_mb: int) -> dict[str, object]:
        return {"capability": capability, "backend": "scripted", "memory_mb": memory_mb}

    return parse_registry(
        {
            "models": {
                "reader": model("image-to-text/ocr", 700),
                "listener": model("automatic-speech-recognition", 900),
                "writer": model("text-generation", 1000),
                "other-writer": model("text-generation", 2000),
            },
            "capabilities": {
                name: {"input": "text", "instruction": "Do it.", "judge": "first"}
                for name in ("image-to-text/ocr", "automatic-speech-recognition", "text-generation")
            },
            "judges": judges or {"first": {"method": "nll", "model": "writer"}},
            "profiles": {
                "small": {"models": ["reader"]},
                "all": {"models": ["reader", "listener", "writer", "other-writer"]},
            },
        }
    )


def commands(registry: Registry, profile: str) -> dict[str, tuple[str, ...]]:
    return {spec.name: spec.command[2:] for spec in children_of(registry, profile)}


def test_the_judge_shares_the_process_of_the_model_it_asks() -> None:
    assert commands(a_registry(), "all") == {
        "scheduler": ("scheduler",),
        "intake": ("worker", "--intake"),
        "worker-reader": ("worker", "reader"),
        "worker-listener": ("worker", "listener"),
        "worker-other-writer": ("worker", "other-writer"),
        "worker-writer": ("worker", "writer", "--judge"),
    }


def test_the_judges_model_is_started_where_the_profile_does_not_name_it() -> None:
    assert commands(a_registry(), "small")["worker-writer"] == ("worker", "writer", "--judge")


def test_a_judge_that_asks_nobody_has_a_process_of_its_own() -> None:
    registry = a_registry({"first": {"method": "scripted"}})
    assert commands(registry, "all")["worker-judge"] == ("worker", "--judge")


def test_workers_stop_before_the_scheduler_and_flower_last() -> None:
    ranks = {
        spec.name: spec.stop_rank
        for spec in [*children_of(a_registry(), "small"), api_spec("::", 2), flower_spec(1, "x")]
    }
    assert ranks["worker-reader"] == ranks["intake"] == ranks["api"] < ranks["scheduler"] < ranks["flower"]


def test_flower_keeps_its_password_off_the_command_line_and_changes_nothing() -> None:
    spec = flower_spec(5555, "pass-word")
    assert not any("pass-word" in part for part in spec.command)
    assert spec.environment["FLOWER_BASIC_AUTH"] == "bakeoff:pass-word"
    assert {"--read_only=True", "--max_tasks=5000", "--address=127.0.0.1"} <= set(spec.command)


@pytest.mark.parametrize(
    ("host", "asked"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "::1")],  # noqa: S104
)
def test_whether_the_api_answers_is_asked_where_it_listens(host: str, asked: str) -> None:
    spec = api_spec(host, 8000)
    assert spec.answers_at == (asked, 8000)
    assert spec.command[-4:] == ("--host", host, "--port", "8000")


def test_models_that_fit_are_summed_up() -> None:
    models = list(a_registry().models.values())
    assert memory.refuse_if_too_large(models, beside_mb=100, free=4700) == 4700


def test_models_that_do_not_fit_are_refused_with_the_sum_and_a_way_out() -> None:
    models = list(a_registry().models.values())
    with pytest.raises(RefusedNow, match=r"need 4700 MB of memory \(other-writer 2000 MB.*4699 MB are free.*profile"):
        memory.refuse_if_too_large(models, beside_mb=100, free=4699)


def test_free_memory_is_what_the_machine_has_or_less() -> None:
    assert 0 < memory.free_mb() < 10_000_000


def test_a_container_limit_counts(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("600\n")
    (tmp_path / "memory.stat").write_text("anon 300\ninactive_file 250\n")
    assert memory._left_in(tmp_path) == [650]
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._left_in(tmp_path) == []
    assert memory._left_in(tmp_path / "none") == []


def test_threads_are_shared_out_and_never_none() -> None:
    assert threads_per_worker(10_000) == 1
    assert threads_per_worker(1) >= 1


def test_delays_double_up_to_a_minute_and_start_over_after_a_steady_run() -> None:
    backoff = Backoff()
    assert backoff.due()
    assert [backoff.failed(0.1) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert not backoff.due()
    assert backoff.failed(61) == 1


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("redis://:se:cret@host/0", "redis://:***@host/0"),
        ("redis://host/0", "redis://host/0"),
    ],
)
def test_passwords_of_other_peoples_servers_are_masked(url: str, shown: str) -> None:
    assert masked(url) == shown
