"""The leaderboard: per capability, which models win, how sure that is, and what they cost.

Strengths are Bradley-Terry's in log odds, from verdicts and preferences with the weights that the selectors give them
(`scheduler.selectors.history`): 0 is the average of the board's models, and a model 1 stronger than another beats it 73
times in 100. Their intervals are those of the distance from that average: how strong all of a board's models are
together is nothing that games between them can tell.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from db.leaderboard import Games, ModelFigures, games_between_models, known_capabilities, model_figures
from scheduler.selectors.history import WEIGHTS
from scheduler.selectors.strength import Strengths, cholesky, fit_strengths, solve_lower

LATEST = 10_000  # verdicts, and preferences, per capability
Z95 = 1.959964  # standard deviations to either side that hold 95 % of a normal distribution

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One model of a capability. Intervals are of 95 %; a rate is None where nothing was counted."""

    model: str
    strength: float | None  # None: it never met another model
    strength_interval: Interval | None
    tried: int
    done: int
    judged: int
    wins: int
    win_rate: float | None
    win_rate_interval: Interval | None
    preferred: int  # preferences for it
    compared: int  # preferences in which it was one of the two
    failure_rate: float | None
    cached_share: float | None
    median_seconds: float | None
    p95_seconds: float | None
    mean_output_tokens: float | None


@dataclass(frozen=True, kw_only=True)
class Board:
    """The models of a capability, the strongest first; those that met no other come last."""

    capability: str
    standings: tuple[Standing, ...]


def leaderboard(
    connection: Connection, capability: str | None = None, *, since: float | None = None, latest: int = LATEST
) -> list[Board]:
    """One capability, or all of which something is known; of the last `since` seconds, at most the `latest` verdicts.

    Two statements per capability. A capability of which nothing is known has no board.
    """
    names = known_capabilities(connection) if capability is None else [capability]
    boards = [
        board_of(
            name,
            model_figures(connection, name, since, latest),
            games_between_models(connection, name, since, latest),
        )
        for name in names
    ]
    return [board for board in boards if board.standings]


def board_of(capability: str, figures: Sequence[ModelFigures], games: Sequence[Games]) -> Board:
    """The board that follows from what models did and who beat whom."""
    wins: dict[tuple[str, str], float] = defaultdict(float)
    preferred: dict[str, int] = defaultdict(int)
    compared: dict[str, int] = defaultdict(int)
    for game in games:
        wins[game.better, game.worse] += game.weight * WEIGHTS.get(game.origin, 1.0)
        if game.origin != "verdict":
            preferred[game.better] += game.count
            compared[game.better] += game.count
            compared[game.worse] += game.count
    strengths = fit_strengths(wins)
    rated = _rated(strengths)
    known = {one.model: one for one in figures}
    standings = [
        _standing(
            known.get(model) or _nothing_done(model),
            rated.get(model),
            preferred=preferred[model],
            compared=compared[model],
        )
        for model in sorted({*known, *rated})
    ]
    standings.sort(key=lambda one: (one.strength is None, -(one.strength or 0.0), one.model))
    return Board(capability=capability, standings=tuple(standings))


def _rated(strengths: Strengths) -> dict[str, tuple[float, float]]:
    """Distance of each model from the average of all, and the standard deviation of that distance."""
    size = len(strengths.names)
    average = sum(strengths.means) / size if size else 0.0
    root = cholesky(strengths.precision)
    found = {}
    for place, (name, mean) in enumerate(zip(strengths.names, strengths.means, strict=True)):
        apart = [(1.0 if place == other else 0.0) - 1.0 / size for other in range(size)]
        found[name] = mean - average, math.hypot(*solve_lower(root, apart))
    return found


def _nothing_done(model: str) -> ModelFigures:
    return ModelFigures(
        model=model, tried=0, done=0, failed=0, cached=0, judged=0, wins=0, median_seconds=None, p95_seconds=None,
        mean_output_tokens=None,
    )  # fmt: skip


def _standing(
    figures: ModelFigures, strength: tuple[float, float] | None, *, preferred: int, compared: int
) -> Standing:
    return Standing(
        model=figures.model,
        strength=None if strength is None else strength[0],
        strength_interval=None if strength is None else _around(*strength),
        tried=figures.tried,
        done=figures.done,
        judged=figures.judged,
        wins=figures.wins,
        win_rate=_share(figures.wins, figures.judged),
        win_rate_interval=wilson(figures.wins, figures.judged),
        preferred=preferred,
        compared=compared,
        failure_rate=_share(figures.failed, figures.tried),
        cached_share=_share(figures.cached, figures.done),
        median_seconds=figures.median_seconds,
        p95_seconds=figures.p95_seconds,
        mean_output_tokens=figures.mean_output_tokens,
    )


def _around(mean: float, sd: float) -> Interval:
    return mean - Z95 * sd, mean + Z95 * sd


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def wilson(successes: int, trials: int) -> Interval | None:
    """Wilson's 95 % interval of a share: right also near 0 and 1, and where little was counted."""
    if not trials:
        return None
    share, z2 = successes / trials, Z95**2
    centre = share + z2 / (2 * trials)
    half = Z95 * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    whole = 1 + z2 / trials
    return max(0.0, (centre - half) / whole), min(1.0, (centre + half) / whole)
