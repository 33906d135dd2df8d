"""The figures of a soak: what was measured, whether it is sound, and how it is shown."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MEGABYTE = 1_000_000
SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that `share` of all are not above; None of nothing."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def percentiles(values: Sequence[float]) -> dict[str, float | None]:
    """p50, p95, p99, and the largest."""
    return {**{name: percentile(values, share) for name, share in SHARES.items()}, "max": max(values, default=None)}


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of the run: how long it was, how much ended in it, and how long that took from commit to finish."""

    seconds: float
    finished: int
    wait: Mapping[str, float | None]

    @property
    def per_second(self) -> float:
        """Throughput."""
        return self.finished / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Everything that one soak measured."""

    seed: int
    settings: Mapping[str, str]
    rate: float
    submitted: int
    accepted: int
    refused: int  # tries, made again with the same key
    states: Mapping[str, int]
    lost: int  # accepted, and not final when the drain was over
    changed: int  # final rows that were written again
    stored_twice: int
    wrong_answers: int
    without_verdict: int
    calls: int  # of models
    called: int  # candidates that entered a model
    charged_again: int  # attempts beyond one per candidate, as the rows count them
    judgings: int
    judged: int
    fallbacks: int
    unjudged: int  # verdicts on a single survivor
    calm: Phase
    faulty: Phase
    drain_seconds: float
    longest_pause: float
    faults: Mapping[str, int] = field(default_factory=dict)
    missed: Mapping[str, int] = field(default_factory=dict)
    restarts: Mapping[str, int] = field(default_factory=dict)
    peak_redis_bytes: int = 0
    peak_backlog: int = 0
    orphans: Sequence[str] = ()

    @property
    def repeated_calls(self) -> int:
        """Model calls beyond one per candidate that ran."""
        return self.calls - self.called

    @property
    def problems(self) -> list[str]:
        """What breaks a promise."""
        wrong = {
            "accepted tasks lost": self.lost,
            "submissions never accepted": self.submitted - self.accepted,
            "changes of final rows": self.changed,
            "keys stored twice": self.stored_twice,
            "answers to another request": self.wrong_answers,
            "subtasks done without a verdict": self.without_verdict,
            "processes left running": len(self.orphans),
        }
        return [f"{count} {what}" for what, count in wrong.items() if count]

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            **asdict(self),
            "calm": {**asdict(self.calm), "per_second": self.calm.per_second},
            "faulty": {**asdict(self.faulty), "per_second": self.faulty.per_second},
            "repeated_calls": self.repeated_calls,
            "repeated_share": self.repeated_calls / self.called if self.called else 0.0,
            "problems": self.problems,
        }


def shown(figures: Figures) -> Group:
    """The figures for people."""
    return Group(_promises(figures), Text(), _times(figures), Text(), _costs(figures), Text(), _faults(figures))


def _grid(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", header_style="dim", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _promises(figures: Figures) -> Table:
    table = _grid("What became of every task", "")
    rows: list[tuple[str, object]] = [
        ("submitted", figures.submitted),
        ("accepted", figures.accepted),
        ("refused, then tried again", figures.refused),
        *((f"finished: {state}", count) for state, count in sorted(figures.states.items())),
        ("lost", figures.lost),
        ("final rows changed", figures.changed),
        ("keys stored twice", figures.stored_twice),
        ("answers to another request", figures.wrong_answers),
    ]
    for name, value in rows:
        table.add_row(name, str(value))
    return table


def _times(figures: Figures) -> Table:
    table = _grid("Seconds from commit to finish", "p50", "p95", "p99", "max", "finished", "per second")
    for name, phase in (("calm", figures.calm), ("with faults", figures.faulty)):
        times = ["" if value is None else f"{value:.2f}" for value in phase.wait.values()]
        table.add_row(name, *times, str(phase.finished), f"{phase.per_second:.1f}")
    return table


def _costs(figures: Figures) -> Table:
    table = _grid("What the faults cost", "")
    share = figures.repeated_calls / figures.called if figures.called else 0.0
    rows: list[tuple[str, str]] = [
        ("model calls made again", f"{figures.repeated_calls} of {figures.calls} ({share:.2%})"),
        ("  as the rows charge them", str(figures.charged_again)),
        ("judgings made again", f"{figures.judgings - figures.judged} of {figures.judgings}"),
        ("fallback verdicts", str(figures.fallbacks)),
        ("verdicts on a single survivor", str(figures.unjudged)),
        ("longest time without a result", f"{figures.longest_pause:.1f} s"),
        ("drained after", f"{figures.drain_seconds:.1f} s"),
        ("largest backlog", str(figures.peak_backlog)),
        ("peak memory of Redis", f"{figures.peak_redis_bytes / MEGABYTE:.1f} MB"),
        ("processes left after the stop", ", ".join(figures.orphans) or "0"),
    ]
    for row in rows:
        table.add_row(*row)
    return table


def _faults(figures: Figures) -> Table:
    table = _grid("Faults", "made", "missed: down already")
    for kind in sorted({*figures.faults, *figures.missed}):
        table.add_row(kind, str(figures.faults.get(kind, 0)), str(figures.missed.get(kind, 0) or ""))
    table.add_row("all", str(sum(figures.faults.values())), str(sum(figures.missed.values()) or ""), style="bold")
    return table
