"""What the faults cost: a table at the end of the session, and the same as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass
class Measurement:
    """One run of one fault. Seconds: of recovery from the fault to the last result, and in all."""

    fault: str
    seed: int
    tasks: int
    done: int
    failed: int
    lost: int
    repeated_calls: int
    fallbacks: int
    recovery_seconds: float
    seconds: float
    baseline_seconds: float | None
    passed: bool = True


_HEAD = (
    ("fault", 62),
    ("runs", 4),
    ("passed", 6),
    ("tasks", 5),
    ("done", 5),
    ("failed", 6),
    ("lost", 4),
    ("again", 5),
    ("fallbk", 6),
    ("recover", 7),
    ("all", 6),
    ("without", 7),
)


def table(measurements: Sequence[Measurement]) -> Iterable[str]:
    """Lines of a table, one per fault; times are the longest of its runs."""
    yield "".join(f"{name:<{width}} " if name == "fault" else f"{name:>{width}} " for name, width in _HEAD).rstrip()
    for fault in dict.fromkeys(measurement.fault for measurement in measurements):
        runs = [measurement for measurement in measurements if measurement.fault == fault]
        without = [run.baseline_seconds for run in runs if run.baseline_seconds is not None]
        cells: list[Any] = [
            fault,
            len(runs),
            sum(run.passed for run in runs),
            sum(run.tasks for run in runs),
            sum(run.done for run in runs),
            sum(run.failed for run in runs),
            sum(run.lost for run in runs),
            sum(run.repeated_calls for run in runs),
            sum(run.fallbacks for run in runs),
            f"{max(run.recovery_seconds for run in runs):.1f}",
            f"{max(run.seconds for run in runs):.1f}",
            f"{max(without):.1f}" if without else "-",
        ]
        yield "".join(
            f"{cell!s:<{width}} " if name == "fault" else f"{cell!s:>{width}} "
            for cell, (name, width) in zip(cells, _HEAD, strict=True)
        ).rstrip()


def write_json(path: Path, measurements: Sequence[Measurement]) -> None:
    path.write_text(json.dumps([asdict(measurement) for measurement in measurements], indent=2) + "\n")
