"""Plots as SVG that lies in the page: no script, no font, the page's own colours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH, LABELS, VALUES, ROW, TOP = 640, 190, 60, 22, 8
SIDE, EDGE = 300, 34  # of a square plot, and its margin
NEAR = 0.06  # of the range, left free at both ends


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A figure with its interval. `tone` is a class of the page's style sheet: `plain`, `own`, `best`, `bad`."""

    label: str
    value: float
    interval: tuple[float, float] | None = None
    tone: str = "plain"


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Points (how sure, how often right, how many)."""

    label: str
    points: tuple[tuple[float, float, int], ...]


def dots(rows: Sequence[Dot], title: str, *, mark: float | None = None, low: float | None = None,
         high: float | None = None) -> Markup:  # fmt: skip
    """Figures under each other on one axis; `mark` draws a line, `low` and `high` fix the ends of the axis."""
    ends = [end for row in rows for end in (*(row.interval or ()), row.value)] + ([] if mark is None else [mark])
    low, high = min(ends) if low is None else low, max(ends) if high is None else high
    space = NEAR * ((high - low) or 1.0)
    low, high = low - space, high + space

    def x(value: float) -> float:
        share = (min(max(value, low), high) - low) / (high - low)
        return LABELS + share * (WIDTH - LABELS - VALUES)

    height = TOP + ROW * len(rows) + 26
    out = [_begin(WIDTH, height, title)]
    bottom = TOP + ROW * len(rows)
    for value in (low + space, (low + high) / 2, high - space):
        out.append(_line(x(value), TOP, x(value), bottom, "grid"))
        out.append(_text(x(value), bottom + 16, _number(value), "axis", "middle"))
    if mark is not None:
        out.append(_line(x(mark), TOP, x(mark), bottom, "mark"))
    for place, row in enumerate(rows):
        y = TOP + ROW * (place + 0.5)
        out.append(_text(LABELS - 10, y + 4, row.label, "label", "end"))
        if row.interval is not None:
            out.append(_line(x(row.interval[0]), y, x(row.interval[1]), y, f"reach {row.tone}"))
        out.append(f'<circle cx="{x(row.value):.1f}" cy="{y:.1f}" r="5" class="dot {escape(row.tone)}"/>')
        out.append(_text(WIDTH - VALUES + 12, y + 4, _number(row.value), "value", "start"))
    return Markup("".join(out) + "</svg>")  # noqa: S704 - every text in it is escaped


def reliability(curves: Sequence[Curve], title: str) -> Markup:
    """How often a judge is right where it is so sure; the diagonal is what it should be."""

    def x(value: float) -> float:
        return EDGE + (min(max(value, 0.5), 1.0) - 0.5) * 2 * (SIDE - 2 * EDGE)

    def y(value: float) -> float:
        return SIDE - EDGE - min(max(value, 0.0), 1.0) * (SIDE - 2 * EDGE)

    height = SIDE + 18 * len(curves)
    out = [_begin(SIDE, height, title)]
    for value in (0.5, 0.75, 1.0):
        out += [
            _line(x(value), y(0), x(value), y(1), "grid"),
            _text(x(value), y(0) + 15, f"{value:g}", "axis", "middle"),
        ]
    for value in (0.0, 0.5, 1.0):
        out += [
            _line(x(0.5), y(value), x(1), y(value), "grid"),
            _text(x(0.5) - 6, y(value) + 4, f"{value:g}", "axis", "end"),
        ]
    out.append(_line(x(0.5), y(0.5), x(1), y(1), "mark"))
    for place, curve in enumerate(curves):
        path = " ".join(f"{x(sure):.1f},{y(right):.1f}" for sure, right, _ in curve.points)
        out.append(f'<polyline points="{path}" class="curve c{place % 4}"/>')
        for sure, right, count in curve.points:
            size = 2.5 + min(6.0, count**0.5 / 4)
            out.append(f'<circle cx="{x(sure):.1f}" cy="{y(right):.1f}" r="{size:.1f}" class="dot c{place % 4}"/>')
        line = SIDE + 18 * place + 6
        out.append(f'<circle cx="{EDGE}" cy="{line - 4}" r="5" class="dot c{place % 4}"/>')
        out.append(_text(EDGE + 12, line, curve.label, "label", "start"))
    return Markup("".join(out) + "</svg>")  # noqa: S704 - every text in it is escaped


def _begin(width: int, height: int, title: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" style="max-width:{width}px" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>"
    )


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{escape(kind)}"/>'


def _text(x: float, y: float, said: str, kind: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{escape(kind)}" text-anchor="{anchor}">{escape(said)}</text>'


def _number(value: float) -> str:
    return f"{value:.3f}"
