"""Figures over groups: means, their errors, and bootstrap intervals that draw whole groups."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

RESAMPLES = 2000


def mean(values: Sequence[float]) -> float:
    """The mean; 0 of nothing."""
    return sum(values) / len(values) if values else 0.0


def ratio(above: float, below: float) -> float | None:
    """A quotient; None where nothing stands below."""
    return above / below if below > 1e-12 else None


def counted(values: Sequence[int | None]) -> int | None:
    """The sum; None where somebody did not count."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def paired_interval(differences: Sequence[float], seed: int = 1) -> tuple[float, float]:
    """95 % bootstrap interval of a mean of differences between two arms on the same rows."""
    dice = random.Random(seed)  # noqa: S311 - a fixed resampling, not a secret
    return _middle([mean(dice.choices(differences, k=len(differences))) for _ in range(RESAMPLES)])


def group_interval(
    sums: Mapping[str, tuple[float, float]], seed: int = 1, figure: Callable[[float, float], float | None] = ratio
) -> tuple[float, float] | None:
    """95 % bootstrap interval of a quotient of two sums over groups; whole groups are drawn.

    `sums` has both sums per group. None where a resample has nothing below the line.
    """
    dice = random.Random(seed)  # noqa: S311 - a fixed resampling, not a secret
    values = list(sums.values())
    found = []
    for _ in range(RESAMPLES):
        drawn = dice.choices(values, k=len(values)) if values else []
        one = figure(sum(above for above, _ in drawn), sum(below for _, below in drawn))
        if one is None:
            continue
        found.append(one)
    return _middle(found) if len(found) > 0.9 * RESAMPLES else None


def by_group(groups: Sequence[str], above: Sequence[float], below: Sequence[float]) -> dict[str, tuple[float, float]]:
    """Both sums per group."""
    out: dict[str, tuple[float, float]] = {}
    for group, one, other in zip(groups, above, below, strict=True):
        first, second = out.get(group, (0.0, 0.0))
        out[group] = first + one, second + other
    return out


def standard_error(groups: Sequence[str], values: Sequence[float]) -> float:
    """Of a mean over rows whose groups are independent and whose rows within a group may not be."""
    centre, count = mean(values), len(values)
    sums = by_group(groups, [value - centre for value in values], [1.0] * count)
    if len(sums) < 2:
        return 0.0
    return float((sum(off * off for off, _ in sums.values()) * len(sums) / (len(sums) - 1)) ** 0.5 / count)


def _middle(values: Sequence[float]) -> tuple[float, float]:
    ordered = sorted(values)
    return ordered[int(0.025 * len(ordered))], ordered[max(0, int(0.975 * len(ordered)) - 1)]
