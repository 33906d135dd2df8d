"""Plots as inline SVG: where things stand, worked out here and drawn by `plots.html.j2`.

Lengths along the width are shares of it, heights are pixels: a plot is as wide as its place, and its text keeps its
size, on a phone too. Each mark has its name and its figures as text above it, so nothing is told by colour or place
alone; colours are the page's own. A table with the same figures stands beside every plot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

ROW = 44  # pixels of a mark: a line of text, and the mark below it
TEXT, TRACK = 17, 30  # pixels from the top of a row to the line of its text, and to the middle of its mark
AXIS = 24  # pixels below the rows
EDGE = 1.5  # per cent that are left free on both sides, for half a dot
NEAR = 0.04  # of the width: nearer to the edge than that a label would leave the plot
ABOUT = 6  # steps of an axis
BINS_HIGH = 120  # pixels


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A value of the axis. `anchor`: which end of its label stands there; none may leave the plot."""

    at: str
    label: str
    anchor: str


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Values along the width."""

    low: float
    high: float

    def at(self, value: float) -> str:
        """Where a value stands, as a length of SVG. What is outside stands at the edge."""
        return percent(EDGE + (100 - 2 * EDGE) * self._share(value))

    def tick(self, value: float, label: str) -> Tick:
        """A value of the axis."""
        share = self._share(value)
        anchor = "start" if share < NEAR else "end" if share > 1 - NEAR else "middle"
        return Tick(at=self.at(value), label=label, anchor=anchor)

    def _share(self, value: float) -> float:
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    def ticks(self) -> tuple[float, ...]:
        """Round values within, six steps or so."""
        step = _round_step((self.high - self.low) / ABOUT)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return tuple(round(number * step, 10) + 0.0 for number in range(first, last + 1))


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A value with its interval, and what is said of it."""

    name: str
    said: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A dot where it stands."""

    dot: Dot
    text: int
    track: int
    at: str
    low: str
    high: str


@dataclass(frozen=True, kw_only=True)
class DotPlot:
    """Dots with intervals, one below the other. `origin`: where the value stands that the others are read against."""

    marks: tuple[Mark, ...]
    ticks: tuple[Tick, ...]
    origin: str | None
    floor: int
    height: int


@dataclass(frozen=True, kw_only=True)
class Stage:
    """How many came to a stage of a funnel, and how many passed it."""

    name: str
    came: int
    passed: int


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A stage where it stands: the light bar is what came, the dark one what passed."""

    stage: Stage
    text: int
    track: int
    came: str
    passed: str


@dataclass(frozen=True, kw_only=True)
class Funnel:
    """Stages, one below the other, as shares of what came to the first."""

    bars: tuple[Bar, ...]
    height: int


@dataclass(frozen=True, kw_only=True)
class Column:
    """A bin of a histogram: all of it, and the part that was kept, from the bottom up in pixels."""

    n: int
    kept: int
    left: str
    width: str
    high: float
    kept_high: float


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Bins of equal width between two values."""

    columns: tuple[Column, ...]
    low: str
    high: str
    floor: int
    height: int


def percent(share: float) -> str:
    """A length of SVG."""
    return f"{share:.2f}%"


def dot_plot(dots: Sequence[Dot], scale: Scale, labels: dict[float, str], origin: float | None = None) -> DotPlot:
    """Dots in the order given. `labels`: the axis, by value."""
    marks = tuple(
        Mark(
            dot=dot,
            text=ROW * row + TEXT,
            track=ROW * row + TRACK,
            at=scale.at(dot.value),
            low=scale.at(dot.low),
            high=scale.at(dot.high),
        )
        for row, dot in enumerate(dots)
    )
    return DotPlot(
        marks=marks,
        ticks=tuple(scale.tick(value, label) for value, label in labels.items()),
        origin=None if origin is None else scale.at(origin),
        floor=ROW * len(marks),
        height=ROW * len(marks) + AXIS,
    )


def scale_around(values: Sequence[float], centre: float = 0.0) -> Scale:
    """From the least to the greatest of these, `centre` among them; never so narrow that nothing can be told apart."""
    low, high = min([*values, centre]), max([*values, centre])
    step = _round_step(max(high - low, 0.5) / ABOUT)
    return Scale(low=min(low, centre - step), high=max(high, centre + step))


def funnel(stages: Sequence[Stage]) -> Funnel:
    """Stages in the order given."""
    most = max([1, *(one.came for one in stages)])
    bars = tuple(
        Bar(
            stage=one,
            text=ROW * row + TEXT,
            track=ROW * row + TRACK,
            came=percent(100 * one.came / most),
            passed=percent(100 * one.passed / most),
        )
        for row, one in enumerate(stages)
    )
    return Funnel(bars=bars, height=ROW * len(bars))


def histogram(bins: Sequence[tuple[int, int]], low: float, high: float) -> Histogram:
    """`bins`: how many there are, and how many of them were kept."""
    tallest, width = max([1, *(n for n, _ in bins)]), 100 / max(1, len(bins))
    columns = tuple(
        Column(
            n=n,
            kept=kept,
            left=percent(width * place),
            width=percent(0.9 * width),
            high=round(BINS_HIGH * n / tallest, 1),
            kept_high=round(BINS_HIGH * kept / tallest, 1),
        )
        for place, (n, kept) in enumerate(bins)
    )
    return Histogram(columns=columns, low=_figure(low), high=_figure(high), floor=BINS_HIGH, height=BINS_HIGH + AXIS)


def _figure(value: float) -> str:
    return f"{value:.3g}".replace("-", "\N{MINUS SIGN}")


def _round_step(about: float) -> float:
    """1, 2 or 5 times a power of ten, no less than `about`."""
    power = 10.0 ** math.floor(math.log10(about))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= about * (1 - 1e-9))
