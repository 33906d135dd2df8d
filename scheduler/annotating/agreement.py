"""Krippendorff's alpha for numbers: do two people who score the same item mean the same?

K. Krippendorff, *Computing Krippendorff's Alpha-Reliability* (2011), section E, with the interval metric
(c - k)^2: alpha = 1 - D_o / D_e over all values that can be paired, which are those of units with two values and more.
1 is agreement throughout, 0 what chance would give, below 0 is disagreement by system. As the squared differences of
all pairs of n numbers add up to 2 (n sum x^2 - (sum x)^2), a unit is four numbers, and so is any sum of units.

The interval is a percentile bootstrap over whole groups: items of one group share their input, and so their errors.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

RESAMPLES = 2000
LEAST = 5  # groups: fewer give no interval worth its name

#: Of values that can be paired: how many, their sum, the sum of squares, and of differences within units.
Sums = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Alpha over `units` that two people and more scored; None where nothing can be said."""

    alpha: float | None
    interval: tuple[float, float] | None
    units: int


def interval_alpha(units: Iterable[Sequence[float]]) -> float | None:
    """Alpha of units, each the values that its observers gave; units with fewer than two are passed over."""
    return _alpha(*_added(_sums(unit) for unit in units if len(unit) > 1))


def agreement(groups: Mapping[str, Sequence[Sequence[float]]], seed: int = 1) -> Agreement:
    """Alpha of the units of all groups, with a 95 % interval over groups."""
    pairable = [pairs for units in groups.values() if (pairs := [unit for unit in units if len(unit) > 1])]
    sums = [_added(map(_sums, units)) for units in pairable]
    alpha, count = _alpha(*_added(sums)), sum(map(len, pairable))
    if alpha is None or len(sums) < LEAST:
        return Agreement(alpha=alpha, interval=None, units=count)
    dice = random.Random(seed)  # noqa: S311 - a fixed resampling, not a secret
    drawn = (_alpha(*_added(dice.choices(sums, k=len(sums)))) for _ in range(RESAMPLES))
    found = sorted(one for one in drawn if one is not None)
    ends = found[int(0.025 * len(found))], found[int(0.975 * (len(found) - 1))]
    return Agreement(alpha=alpha, interval=ends, units=count)


def _sums(unit: Sequence[float]) -> Sums:
    count, total, squares = len(unit), sum(unit), sum(value * value for value in unit)
    return count, total, squares, 2 * (count * squares - total * total) / (count - 1)


def _added(sums: Iterable[Sums]) -> Sums:
    count, total, squares, within = (sum(column) for column in zip((0, 0, 0, 0), *sums, strict=True))
    return count, total, squares, within


def _alpha(count: float, total: float, squares: float, within: float) -> float | None:
    """None where all values are the same: then there is nothing to agree about."""
    between = 2 * (count * squares - total * total)
    if count < 2 or between <= 1e-9 * count * squares:
        return None
    return 1 - (count - 1) * within / between
