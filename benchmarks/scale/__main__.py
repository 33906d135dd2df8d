"""`python -m benchmarks.scale`: do a million stored tasks, or a backlog of 100,000, make anything slower?

Fills a database per size and measures all of them in turns, so that a machine that is busy for a moment slows none of
them alone; then again with a backlog of a tenth of each size. At the largest size every statement of the scheduler,
workers, judges, clients and operators is explained: plans.txt and plans.json. Exit code 1 where one reads through a
large table.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from benchmarks import harness
from benchmarks.harness import Figures, medians, say
from benchmarks.scale import fill, report
from benchmarks.scale.explain import QUIET, Explaining
from benchmarks.scale.servers import filled_server, url_of
from benchmarks.scale.station import Station

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.harness import Options
    from scheduler.local.servers import EmbeddedPostgres

SIZES = (10_000, 100_000, 1_000_000)
SMALLEST = 1_000  # finished tasks: what a client polls is drawn from so many
TURNS = 3  # of every database in one run: a machine that is busy for seconds then slows a part of each run
BACKLOG_SHARE = 10  # open tasks are a tenth of the finished ones


def _sizes(value: str) -> tuple[int, ...]:
    sizes = tuple(sorted({int(size) for size in value.split(",")}))
    if sizes[0] < SMALLEST:
        raise argparse.ArgumentTypeError(f"a database has at least {SMALLEST} finished tasks")
    return sizes


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rows",
        type=_sizes,
        default=SIZES,
        metavar="N,N",
        help="finished tasks, a database for each number (default: 10000,100000,1000000)",
    )


class Scale:
    """The measuring. `problems` says afterwards which statements read too much."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def measure(self, options: Options) -> dict[str, Figures]:
        """Figures by size, and by size of the backlog."""
        sizes: tuple[int, ...] = options.given.rows
        with ExitStack() as stack:
            folder = Path(tempfile.mkdtemp(prefix="bakeoff-scale-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            folder.chmod(0o755)  # Postgres runs as somebody else where we are root
            server = filled_server(folder / "postgres", sizes)
            stack.callback(server.stop)
            stations = {size: Station(url_of(server, size), folder / str(size)) for size in sizes}
            for station in stations.values():
                stack.callback(station.stop)
            explaining = Explaining(url_of(server, sizes[-1]), folder / "explaining")
            figures = self._figures(options, server, stations, explaining)
            report.compare(figures, sizes)
            self.problems = explaining.finish(options.out, stations[sizes[-1]].scanning_plans())
        for problem in self.problems:
            say(problem)
        return figures

    def _figures(
        self, options: Options, server: EmbeddedPostgres, stations: Mapping[int, Station], explaining: Explaining
    ) -> dict[str, Figures]:
        largest = max(stations)

        def change(size: int, *steps: Callable[[psycopg.Connection], None]) -> None:
            with psycopg.connect(url_of(server, size), autocommit=True) as connection:
                for step in (*steps, fill.note_sizes):
                    step(connection)

        figures = _in_turns(options.runs, {str(size): station for size, station in stations.items()})
        explaining.collect(QUIET)
        for size in stations:
            change(size, partial(fill.add_backlog, rows=size // BACKLOG_SHARE))
        figures |= _in_turns(
            options.runs,
            {report.backlog_name(size // BACKLOG_SHARE): station for size, station in stations.items()},
        )
        explaining.collect("pending")
        change(largest, fill.plan_backlog)
        explaining.collect("ready")
        change(largest, fill.plan_backlog, fill.send_backlog)
        explaining.collect("running")
        return figures


def _in_turns(runs: int, stations: Mapping[str, Station]) -> dict[str, Figures]:
    """Medians of so many runs, each of which is the median of `TURNS`; first, a short turn each warms up."""
    order = list(stations)
    for station in stations.values():
        station.run(warm_up=True)
    each: dict[str, list[Figures]] = {name: [] for name in stations}
    for _ in range(runs):
        turns: dict[str, list[Figures]] = {name: [] for name in stations}
        for number in range(TURNS):
            for name in sorted(stations, key=order.index, reverse=number % 2 == 1):
                turns[name].append(stations[name].run())
        for name, figures in turns.items():
            each[name].append({key: statistics.median(turn[key] for turn in figures) for key in figures[0]})
    say(f"Measured {', '.join(stations)}")
    return {name: medians(found) for name, found in each.items()}


def main() -> int:
    """Exit code of the harness, or 1 where a statement reads through a large table."""
    scale = Scale()
    code = harness.main("scale", __doc__, scale.measure, report.draw, arguments=_arguments, size=(13.0, 6.0))
    return code or bool(scale.problems)


if __name__ == "__main__":
    sys.exit(main())
