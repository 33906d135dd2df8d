"""A small OTLP/HTTP collector: what real processes export, decoded."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A span that arrived."""

    name: str
    process: str
    trace: str
    id: str
    parent: str
    kind: int
    links: list[tuple[str, str]]  # trace, span
    attributes: dict[str, Any]
    failed: bool


@dataclass
class Collector:
    """Spans in the order of their arrival."""

    url: str = ""
    spans: list[Seen] = field(default_factory=list)

    def of(self, trace: str) -> list[Seen]:
        return [span for span in list(self.spans) if span.trace == trace]

    def named(self, name: str, trace: str | None = None) -> list[Seen]:
        return [span for span in list(self.spans) if span.name == name and trace in {None, span.trace}]


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            assert self.path == "/v1/traces"
            collector.spans.extend(spans_of(ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()


def spans_of(request: Any) -> Iterator[Seen]:
    for resource in request.resource_spans:
        of_process = values(resource.resource.attributes)
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Seen(
                    name=span.name,
                    process=of_process.get("bakeoff.process", ""),
                    trace=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    kind=span.kind,
                    links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
                    attributes=values(span.attributes),
                    failed=span.status.code == 2,
                )


def values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
