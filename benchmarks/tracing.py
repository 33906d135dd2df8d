"""`python -m benchmarks.tracing`: what traces cost. The overhead benchmark's work with and without a collector.

Every task is of another caller, who keeps its trace: the dearest case. The two take turns on the same servers; both run
the same code with the same rows, only the environment differs. The collector takes what comes and is not counted.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from dataclasses import replace
from secrets import token_hex
from statistics import median
from typing import TYPE_CHECKING, Any

import redis

from benchmarks.harness import Figures, Options, main, medians, say
from benchmarks.overhead.driver import request
from benchmarks.overhead.fleet import Driver
from benchmarks.overhead.ours import USUAL_WAVE, Ourselves
from benchmarks.overhead.run import bench
from db.engine import engine_of, transaction
from db.tasks import TaskRow, insert_tasks

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping
    from uuid import UUID

    from benchmarks.overhead.run import Bench

WARM_UP = 12  # single tasks: by then every process has exported once
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
COLLECTOR = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Take(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200); self.send_header("content-length", "0"); self.end_headers()
    def log_message(self, *_): pass
server = ThreadingHTTPServer(("127.0.0.1", 0), Take)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


class Traced(Ourselves):
    """Rows, each with a trace of its own."""

    def submit(self, numbers: range) -> None:
        """All in one transaction."""
        self._insert(numbers)

    def submit_one(self, number: int) -> str:
        return str(self._insert(range(number, number + 1))[0][0])

    def _insert(self, numbers: range) -> list[tuple[UUID, bool]]:
        rows = [
            TaskRow(request=request(number), traceparent=f"00-{token_hex(16)}-{token_hex(8)}-01") for number in numbers
        ]
        with transaction(engine_of(self._settings.dsn, "submit")) as connection:
            return insert_tasks(connection, rows)


def arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark adds."""
    parser.add_argument("--tasks", type=int, default=600, help="of one measurement (default: %(default)d)")


def measure(options: Options) -> dict[str, Figures]:
    """Both, in pairs; the ratio is the median over pairs."""
    found: dict[str, list[Figures]] = {"untraced": [], "traced": []}
    with bench() as at, _collector() as endpoint:
        for run in range(options.runs):
            for name in ("untraced", "traced") if run % 2 == 0 else ("traced", "untraced"):
                found[name].append(_turn(at, endpoint if name == "traced" else None, options.given.tasks))
                say(f"run {run + 1} {name:>9}: {found[name][-1]['cpu_ms_per_task']:.2f} ms of CPU per task")
    pairs = list(zip(found["traced"], found["untraced"], strict=True))
    ratios = {key: median(on[key] / off[key] for on, off in pairs) for key in ("cpu_ms_per_task", "tasks_per_s")}
    return {**{name: medians(runs) for name, runs in found.items()}, "ratio": ratios}


def _turn(at: Bench, endpoint: str | None, tasks: int) -> Figures:
    os.environ.pop(ENDPOINT, None)
    if endpoint is not None:
        os.environ[ENDPOINT] = endpoint
    with at.our_workers(), at.our_wave(USUAL_WAVE) as running:
        environment = {name: value for name, value in os.environ.items() if name != ENDPOINT}
        environment |= {"BAKEOFF_DATABASE_URL": at.ours.postgres.url, "BAKEOFF_REDIS_URL": at.ours.redis.url}
        driver = Driver(sys.executable, "benchmarks.tracing:Traced", environment, at.ours.folder / "traced.log")
        with contextlib.closing(driver), redis.Redis.from_url(at.ours.redis.url, decode_responses=True) as client:
            of_rows = replace(running, driver=driver)
            of_rows.singles(WARM_UP)
            return of_rows.backlog(tasks, client)


@contextlib.contextmanager
def _collector() -> Iterator[str]:
    process = subprocess.Popen([sys.executable, "-c", COLLECTOR], stdout=subprocess.PIPE, text=True)
    try:
        port = process.stdout.readline().strip() if process.stdout is not None else ""
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def draw(figures: Mapping[str, Figures], plot: Any) -> None:
    """CPU per task, side by side."""
    axes = plot.subplots()
    names = ["untraced", "traced"]
    axes.bar_label(axes.bar(names, [figures[name]["cpu_ms_per_task"] for name in names]), fmt="%.1f")
    axes.set_ylabel("ms of CPU per task, all processes")


if __name__ == "__main__":
    sys.exit(main("tracing", __doc__, measure, draw, size=(4.0, 3.5), arguments=arguments))
