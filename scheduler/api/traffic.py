"""Requests counted and timed, by the route's template: a path holds ids, and a label must not.

Processes that share a port are one thing to whoever scrapes it, and a scrape reaches any of them. So each writes its
figures to files of a folder that all of them read (prometheus-client's multiprocess mode); those of one that ended
stay, and no sum goes back.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric
    from starlette.types import Scope

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
ELSEWHERE = "unmatched"
LABELS = ("method", "route", "status")


class Traffic:
    """What the requests of this process took until their answer began: the end of a stream means nothing."""

    def __init__(self) -> None:
        self._shared = bool(os.environ.get(FOLDER))
        self._registry = CollectorRegistry()
        self._seconds = Histogram(
            "bakeoff_http_request_seconds",
            "Seconds from a request to the beginning of its answer.",
            LABELS,
            buckets=BUCKETS,
            registry=self._registry,
        )

    def took(self, scope: Scope, status: int, seconds: float) -> None:
        """A request was answered."""
        method = scope["method"] if scope["method"] in METHODS else "OTHER"
        self._seconds.labels(method, route_of(scope), str(status)).observe(max(0.0, seconds))

    def collect(self) -> list[Metric]:
        """What this process counts."""
        return list(self._registry.collect())

    def text(self) -> bytes:
        """The exposition format, of all processes that share the port."""
        registry = self._registry
        if self._shared:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


def route_of(scope: Scope) -> str:
    """The template of the route that served a request."""
    route = scope.get("route")
    template = getattr(route, "path_format", None) or getattr(route, "path", None)
    return template if isinstance(template, str) and template else ELSEWHERE


@contextmanager
def shared_figures() -> Iterator[None]:
    """A folder for the figures of the processes that are started within this block."""
    folder = tempfile.mkdtemp(prefix="bakeoff-figures-")
    os.environ[FOLDER] = folder
    try:
        yield
    finally:
        del os.environ[FOLDER]
        shutil.rmtree(folder, ignore_errors=True)
