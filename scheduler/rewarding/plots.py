"""How a training went, as SVG: a thin line per fold, a thick one for the model that is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import escape

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 480, 300, 52, 40, 34


@dataclass(frozen=True, kw_only=True)
class Line:
    """Values per epoch. `strong` lines are drawn last and thick."""

    label: str
    values: tuple[float, ...]
    colour: str = "#4878a8"
    strong: bool = False


def lines(title: str, unit: str, drawn: Sequence[Line]) -> str:
    """A plot of values by epoch, with a legend of its labels."""
    values = [value for line in drawn for value in line.values] or [0.0]
    low, high = min(values), max(values)
    space = 0.06 * ((high - low) or 1.0)
    low, high = low - space, high + space
    most = max(2, *(len(line.values) for line in drawn)) if drawn else 2

    def x(epoch: float) -> float:
        return LEFT + (epoch - 1) / (most - 1) * (WIDTH - LEFT - 16)

    def y(value: float) -> float:
        return TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    frame = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="11"><title>{escape(title)}</title><rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
        f'<text x="{LEFT}" y="16" font-size="13">{escape(title)}</text>'
    )
    out = [frame]
    for step in range(5):
        value = low + (high - low) * step / 4
        out.append(
            f'<line x1="{LEFT}" y1="{y(value):.1f}" x2="{WIDTH - 16}" y2="{y(value):.1f}" stroke="#ddd"/>'
            f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.3f}</text>'
        )
    out += [
        f'<text x="{x(epoch):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{epoch}</text>'
        for epoch in range(1, most + 1, max(1, most // 8))
    ]
    out.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 6}" text-anchor="middle">epoch; {escape(unit)}</text>')
    for line in sorted(drawn, key=lambda line: line.strong):
        points = [(x(epoch), y(value)) for epoch, value in enumerate(line.values, 1)]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        thick = "2.5" if line.strong else "1"
        out.append(f'<polyline points="{path}" fill="none" stroke="{escape(line.colour)}" stroke-width="{thick}"/>')
        out += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.5" fill="{escape(line.colour)}"/>' for a, b in points]
    for place, (label, colour) in enumerate(dict.fromkeys((line.label, line.colour) for line in drawn)):
        left = LEFT + 140 * place
        out.append(
            f'<circle cx="{left + 4}" cy="{TOP - 8}" r="4" fill="{escape(colour)}"/>'
            f'<text x="{left + 12}" y="{TOP - 4}">{escape(label)}</text>'
        )
    return "".join(out) + "</svg>\n"
