"""Traceparents, and that who traces nothing pays nothing."""

from __future__ import annotations

import subprocess
import sys
from typing import Any
from uuid import UUID

import pytest

from db import tracing
from db.candidates import Result, Work
from db.registry import ModelEntry
from db.tracing import NOTHING, called_by, here, is_sampled, span, trace_of, valid, wanted, wave_span
from worker.traces import candidate_spans

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(autouse=True)
def _nothing_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tracing._Once, "made", False)
    monkeypatch.setattr(tracing._Once, "provider", None)


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        7,
        "00-1-2-01",
        TRACEPARENT.upper(),
        TRACEPARENT + "-x",
        TRACEPARENT + "\n",
        {"traceparent": TRACEPARENT},
        "ff" + TRACEPARENT[2:],
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
    ],
)
def test_what_is_no_traceparent_is_ignored(given: Any) -> None:
    assert valid(given) is None


def test_a_traceparent_says_its_trace_and_whether_it_is_kept() -> None:
    assert valid(TRACEPARENT) == TRACEPARENT
    assert trace_of(TRACEPARENT) == "0af7651916cd43dd8448eb211c80319c"
    assert is_sampled(TRACEPARENT)
    assert not is_sampled(TRACEPARENT[:-2] + "00")


def test_a_caller_is_passed_on_where_nothing_is_traced() -> None:
    with called_by(TRACEPARENT), span("submit") as given:
        assert here() == TRACEPARENT
        assert given is NOTHING
        with called_by("nonsense"):
            assert here() is None
    assert here() is None


def test_a_span_of_nobody_does_nothing() -> None:
    with wave_span("run alpha", "CONSUMER", [TRACEPARENT]) as given:
        given.set(bakeoff__task="1")
        given.fail("model")

    assert given.traceparent is None


@pytest.mark.parametrize(
    ("environment", "asked"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_the_environment_says_whether_anything_is_traced(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], *, asked: bool
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert wanted() is asked


def test_another_protocol_is_refused_in_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")

    assert not tracing.is_on()
    said = capsys.readouterr()
    assert "http/protobuf" in said.out + said.err


def test_a_model_that_counts_in_words_is_no_fault_of_its_batch() -> None:
    model = ModelEntry(name="fake", capability="x", backend="scripted")
    work = Work(
        id=UUID(int=1), subtask_id=UUID(int=2), task_id=UUID(int=3), capability="x", request="x", inputs=[],
        attachments=[], options={}, input_key=None,
    )  # fmt: skip
    said: Any = {"input_tokens": None, "output_tokens": "many", "images": 2}
    result = Result(id=work.id, seconds=1, output="x", usage=said)

    candidate_spans(model, [work], [result], {work.task_id: TRACEPARENT}, batch=NOTHING, began=0)


def test_without_an_endpoint_nothing_of_opentelemetry_is_imported() -> None:
    program = (
        "import sys; from db import tracing; tracing.configure_tracing('x')\n"
        "with tracing.span('a'): pass\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
        "import worker.run, scheduler.loop\n"  # redis-py looks at the SDK where it is installed, and exports nothing
        "assert not [name for name in sys.modules if name.startswith('opentelemetry.exporter')]"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
