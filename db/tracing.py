"""Traces by OpenTelemetry: from the caller's span to the model call, the judge and the answer.

Off, and nothing of it imported, unless the environment names where spans go (`OTEL_EXPORTER_OTLP_ENDPOINT`) and the
extra `otel` is installed. A task's row holds its `traceparent` (W3C Trace Context), so a message that is lost and sent
again belongs to the same trace. Work that serves one trace is part of it; work that serves several (a wave, a message,
a batch) is a trace of its own with a link to each task's span: a span has one parent, and to pick one of sixty-four
would hide the others.
"""

from __future__ import annotations

import os
import re
import socket
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import Connection, text
from structlog.contextvars import bound_contextvars

from db.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from uuid import UUID

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Link, SpanContext

log = get_logger(__name__)

Kind = Literal["INTERNAL", "CLIENT", "PRODUCER", "CONSUMER"]

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
#: Milliseconds between two exports where OTEL_BSP_SCHEDULE_DELAY says nothing. OpenTelemetry's own 5000 would lose the
#: spans of a worker's child, which lives for a second after the worker was asked to stop.
EXPORT_EVERY = "500"
LONGEST = 100  # characters of a traceparent that are stored; what cannot be read is ignored
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_caller: ContextVar[str | None] = ContextVar("caller", default=None)


def is_on() -> bool:
    """Whether spans of this process go anywhere."""
    return _provider("bakeoff") is not None


def configure_tracing(process: str) -> None:
    """Begin to trace, where the environment asks for it; spans name `process`. Later calls change nothing."""
    _provider(process)


def wanted() -> bool:
    """Whether the environment asks for traces."""
    return (
        any(os.environ.get(name) for name in ENDPOINTS)
        and os.environ.get("OTEL_SDK_DISABLED", "").lower() != "true"
        and os.environ.get("OTEL_TRACES_EXPORTER", "otlp") == "otlp"
    )


class _Once:
    provider: TracerProvider | None = None
    made = False
    lock = threading.Lock()


def _provider(process: str) -> TracerProvider | None:
    if not _Once.made:
        with _Once.lock:  # a second thread waits for what the first one makes
            if not _Once.made:
                _Once.provider = _make_provider(process) if wanted() else None
                _Once.made = True
    return _Once.provider


def _make_provider(process: str) -> TracerProvider | None:
    protocol = next((os.environ[name] for name in PROTOCOLS if os.environ.get(name)), "http/protobuf")
    if protocol != "http/protobuf":
        log.warning(
            f"Nothing is traced: OTEL_EXPORTER_OTLP_PROTOCOL = {protocol!r}, Bakeoff speaks http/protobuf (port 4318)",
            action="tracing_off",
        )
        return None
    try:
        from opentelemetry import trace  # noqa: PLC0415 - an optional extra, and nobody pays for it who has no collector
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        log.warning(f"Nothing is traced: pip install 'bakeoff[otel]' ({error})", action="tracing_off")
        return None
    os.environ.setdefault("OTEL_BSP_SCHEDULE_DELAY", EXPORT_EVERY)
    os.environ.setdefault("OTEL_SERVICE_NAME", "bakeoff")
    instance = {"service.instance.id": f"{process}@{socket.gethostname()}:{os.getpid()}", "bakeoff.process": process}
    provider = TracerProvider(resource=Resource.create(instance))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)  # whoever else is instrumented in this process: FastAPI
    return provider


def flush(seconds: float) -> None:
    """Send what has not been sent; a collector that does not answer is waited for so long at most."""
    if _Once.provider is not None:
        _Once.provider.force_flush(int(seconds * 1000))


class Span:
    """A span, or nothing where nothing is traced: then every method does nothing."""

    def __init__(self, span: Any = None) -> None:
        self._span = span

    @property
    def traceparent(self) -> str | None:
        """What names it to another process."""
        return None if self._span is None else _text_of(self._span)

    def set(self, **attributes: Any) -> None:
        """Add attributes; `a__b` is written `a.b`. What is None is left out."""
        if self._span is not None:
            self._span.set_attributes(_attributes(attributes))

    def fail(self, why: str) -> None:
        """Mark it as failed, with a code and not with what anybody wrote."""
        if self._span is not None:
            from opentelemetry.trace import StatusCode  # noqa: PLC0415 - loaded by now

            self._span.set_attribute("error.type", why)
            self._span.set_status(StatusCode.ERROR, why)


NOTHING = Span()


@contextmanager
def span(
    name: str,
    kind: Kind = "INTERNAL",
    *,
    parent: str | None = None,
    links: Iterable[str] = (),
    start: int | None = None,
    **attributes: Any,
) -> Iterator[Span]:
    """A span around a block. `parent` and `links` are traceparents; without a parent it begins a trace.

    `start` is in nanoseconds since 1970. An exception's class is noted, its words are not: they may quote a caller.
    """
    provider = _provider("bakeoff")
    if provider is None:
        yield NOTHING
        return
    from opentelemetry.trace import SpanKind  # noqa: PLC0415 - loaded by now

    with provider.get_tracer("bakeoff").start_as_current_span(
        name,
        context=_context_of(parent),
        kind=SpanKind[kind],
        attributes=_attributes(attributes),
        links=[_link_to(link) for link in links],
        start_time=start,
        record_exception=False,
        set_status_on_exception=False,
    ) as started:
        given = Span(started)
        try:
            with bound_contextvars(**_ids_of(given)):
                yield given
        except Exception as error:
            given.fail(type(error).__name__)
            raise


def past_span(
    name: str, *, parent: str, links: Iterable[str], start: int, failure: str | None = None, **attributes: Any
) -> None:
    """A span of what is over. It is nobody's surroundings, so it costs less than one around a block."""
    provider = _provider("bakeoff")
    if provider is None:
        return
    given = provider.get_tracer("bakeoff").start_span(
        name,
        context=_context_of(parent),
        attributes=_attributes(attributes),
        links=[_link_to(link) for link in links],
        start_time=start,
    )
    if failure is not None:
        Span(given).fail(failure)
    given.end()


@contextmanager
def wave_span(
    name: str, kind: Kind, tasks: Collection[str], *, sender: str | None = None, **attributes: Any
) -> Iterator[Span]:
    """A span of work that serves these tasks (their traceparents); none where nobody traces one of them.

    Below its `sender`, the span that led to it; without one in the tasks' trace where they share one, else in a trace
    of its own. It links to each task's span.
    """
    if not tasks:
        yield NOTHING
        return
    one = len({trace_of(task) for task in tasks}) == 1
    parent = sender or (next(iter(tasks)) if one else None)
    with span(name, kind, parent=parent, links=tasks, **attributes) as given:
        yield given


@contextmanager
def called_by(traceparent: str | None) -> Iterator[None]:
    """Whoever asks within this block was called by that span; what is no traceparent is ignored."""
    token = _caller.set(valid(traceparent))
    try:
        yield
    finally:
        _caller.reset(token)


def here() -> str | None:
    """Traceparent of the present span, or else of the caller, who is passed on even where nothing is traced here."""
    if _Once.provider is not None:
        from opentelemetry.trace import get_current_span  # noqa: PLC0415 - loaded by now

        present = get_current_span()
        if present.get_span_context().is_valid:
            return _text_of(present)
    return _caller.get()


def headers_here() -> dict[str, str]:
    """Headers of a message that is sent from within a span of this process."""
    traceparent = here() if _Once.provider is not None else None
    return {"traceparent": traceparent} if traceparent else {}


def valid(traceparent: Any) -> str | None:
    """The traceparent, or None where it is none."""
    return traceparent if isinstance(traceparent, str) and _TRACEPARENT.fullmatch(traceparent) else None


def trace_of(traceparent: str) -> str:
    """Id of the trace."""
    return traceparent[3:35]


def is_sampled(traceparent: str) -> bool:
    """Whether its trace is kept by whoever began it."""
    return bool(int(traceparent[-2:], 16) & 1)


def traced(connection: Connection, tasks: Collection[UUID]) -> dict[UUID, str]:
    """Traceparent of those of these tasks whose trace is kept. Asks nobody where nothing is traced."""
    if not tasks or not is_on():
        return {}
    rows = connection.execute(
        text("SELECT id, traceparent FROM task WHERE id = ANY(CAST(:ids AS uuid[])) AND traceparent IS NOT NULL"),
        {"ids": list(tasks)},
    )
    return {row.id: row.traceparent for row in rows if valid(row.traceparent) and is_sampled(row.traceparent)}


def _ids_of(span_: Span) -> dict[str, str]:
    """The same for a line of the log."""
    _, trace, id_, _ = (span_.traceparent or "---").split("-")
    return {"trace_id": trace, "span_id": id_}


def _context_of(traceparent: str | None) -> Context:
    from opentelemetry.context import Context  # noqa: PLC0415 - loaded by now
    from opentelemetry.trace import NonRecordingSpan, set_span_in_context  # noqa: PLC0415 - loaded by now

    if traceparent is None:
        return Context()
    return set_span_in_context(NonRecordingSpan(_span_context(traceparent)), Context())


def _link_to(traceparent: str) -> Link:
    from opentelemetry.trace import Link  # noqa: PLC0415 - loaded by now

    return Link(_span_context(traceparent))


def _span_context(traceparent: str) -> SpanContext:
    """As the library's propagator reads it, which takes five times as long; a wave has hundreds of links."""
    from opentelemetry.trace import SpanContext, TraceFlags  # noqa: PLC0415 - loaded by now

    _, trace, id_, flags = traceparent.split("-")
    return SpanContext(int(trace, 16), int(id_, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))


def _text_of(present: Any) -> str:
    context = present.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def _attributes(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("__", "."): value for name, value in given.items() if value is not None}
