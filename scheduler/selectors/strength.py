"""Bradley-Terry strengths with their uncertainty, from who won against whom. Pure Python: for tens of models.

The chance that a beats b is 1 / (1 + exp(b - a)). A strength has a normal prior around 0, so that a model of few games
stays near the others and one of none is the prior itself. What is kept of the posterior is its peak and its curvature
there (Laplace): means, standard deviations, and draws that know how the strengths depend on each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from random import Random

PRIOR_SD = 1.5  # in log odds: 95 % of models between 1 : 19 and 19 : 1 against an average one
STEPS = 50
CLOSE = 1e-6

Matrix = list[list[float]]


@dataclass(frozen=True, kw_only=True)
class Strengths:
    """Strength per model that has played: `means`, and the posterior's precision matrix in the order of `names`."""

    names: tuple[str, ...] = ()
    means: tuple[float, ...] = ()
    precision: Matrix = field(default_factory=list)
    games: Mapping[str, float] = field(default_factory=dict)  # weight of the games that each has played

    @cached_property
    def _root(self) -> Matrix:
        return cholesky(self.precision)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.names)}

    @cached_property
    def sds(self) -> tuple[float, ...]:
        """Standard deviation of each strength, in the order of `names`."""
        size = len(self.names)
        return tuple(
            math.sqrt(sum(value * value for value in solve_lower(self._root, _unit(size, place))))
            for place in range(size)
        )

    def of(self, name: str) -> tuple[float, float]:
        """Mean and standard deviation of a model's strength; the prior's where it never played."""
        place = self._places.get(name)
        return (0.0, PRIOR_SD) if place is None else (self.means[place], self.sds[place])

    def draw(self, names: Sequence[str], random: Random) -> dict[str, float]:
        """One draw of the strengths of these models from the posterior."""
        noise = [random.gauss(0.0, 1.0) for _ in self.names]
        together = solve_upper(self._root, noise)
        drawn = {name: mean + off for name, mean, off in zip(self.names, self.means, together, strict=True)}
        return {name: drawn[name] if name in drawn else random.gauss(0.0, PRIOR_SD) for name in names}


def fit_strengths(wins: Mapping[tuple[str, str], float]) -> Strengths:
    """Strengths from the weight of games by (winner, loser). Newton's method; the posterior has one peak."""
    names = tuple(sorted({name for pair in wins for name in pair}))
    places = {name: place for place, name in enumerate(names)}
    games = [(places[a], places[b], weight) for (a, b), weight in sorted(wins.items()) if a != b and weight > 0]
    means = [0.0] * len(names)
    for _ in range(STEPS):
        slope, precision = _derivatives(means, games)
        root = cholesky(precision)
        step = solve_upper(root, solve_lower(root, slope))
        longest = max(map(abs, step), default=0.0)
        scale = min(1.0, 2.0 / longest) if longest else 1.0  # a full step can overshoot far from the peak
        means = [mean + scale * move for mean, move in zip(means, step, strict=True)]
        if longest < CLOSE:
            break
    played = dict.fromkeys(names, 0.0)
    for a, b, weight in games:
        played[names[a]] += weight
        played[names[b]] += weight
    return Strengths(names=names, means=tuple(means), precision=_derivatives(means, games)[1], games=played)


def games_of(ranking: Sequence[Sequence[str]], weight: float = 1.0) -> dict[tuple[str, str], float]:
    """Games of one ranking, best first, as groups of equals: every model against those in later groups.

    Pairs of one ranking do not speak independently: together they weigh as much as the n - 1 neighbours do.
    """
    size = sum(map(len, ranking))
    each = 2.0 * weight / size if size else 0.0
    return {
        (winner, loser): each
        for place, group in enumerate(ranking)
        for winner in group
        for later in ranking[place + 1 :]
        for loser in later
    }


def _derivatives(means: Sequence[float], games: Sequence[tuple[int, int, float]]) -> tuple[list[float], Matrix]:
    prior = 1.0 / PRIOR_SD**2
    slope = [-prior * mean for mean in means]
    precision = [[prior if row == column else 0.0 for column in range(len(means))] for row in range(len(means))]
    for winner, loser, weight in games:
        upset = 1.0 / (1.0 + math.exp(min(700.0, means[winner] - means[loser])))
        slope[winner] += weight * upset
        slope[loser] -= weight * upset
        bend = weight * upset * (1.0 - upset)
        precision[winner][winner] += bend
        precision[loser][loser] += bend
        precision[winner][loser] -= bend
        precision[loser][winner] -= bend
    return slope, precision


def cholesky(matrix: Matrix) -> Matrix:
    """The lower triangle L with L Lᵀ = matrix, which is symmetric and positive definite."""
    root: Matrix = []
    for place, row in enumerate(matrix):
        found: list[float] = []
        for column in range(place):
            other = root[column]
            rest = row[column] - sum(map(float.__mul__, found, other))
            found.append(rest / other[column])
        found.append(math.sqrt(row[place] - sum(value * value for value in found)))
        root.append(found)
    return root


def solve_lower(root: Matrix, right: Sequence[float]) -> list[float]:
    """x with L x = right."""
    found: list[float] = []
    for row, value in zip(root, right, strict=True):
        found.append((value - sum(map(float.__mul__, found, row))) / row[len(found)])
    return found


def solve_upper(root: Matrix, right: Sequence[float]) -> list[float]:
    """x with Lᵀ x = right."""
    rest = list(right)
    for place in range(len(root) - 1, -1, -1):
        rest[place] /= root[place][place]
        for column in range(place):
            rest[column] -= root[place][column] * rest[place]
    return rest


def _unit(size: int, place: int) -> list[float]:
    return [1.0 if place == other else 0.0 for other in range(size)]
