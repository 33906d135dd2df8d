"""The leaderboard in a browser: per capability strengths and win rates as plots, figures, who beats whom, judges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from fastapi import APIRouter, Response

from db.engine import transaction
from db.errors import InvalidRequest
from db.figures import judge_agreement
from db.leaderboard import Games, games_between_models, known_capabilities, model_figures
from scheduler.api.pages.base import Page, Reading, page
from scheduler.api.pages.plots import Dot, DotPlot, Scale, dot_plot, scale_around
from scheduler.api.pages.words import number
from scheduler.api.services import Shared
from scheduler.leaderboard import LATEST, Board, Interval, Standing, board_of, wilson
from worker.cleaning import clean_text

if TYPE_CHECKING:
    from sqlalchemy import Connection

router = APIRouter(prefix="/leaderboard", route_class=Page, include_in_schema=False)

MOST_DAYS = 36_500.0
SINCE = {"": "the beginning", "1": "yesterday", "7": "a week ago", "30": "a month ago", "90": "three months ago"}
SHARES = Scale(low=0.0, high=1.0)
QUARTERS = {0.0: "0 %", 0.25: "25 %", 0.5: "50 %", 0.75: "75 %", 1.0: "100 %"}


@dataclass(frozen=True, kw_only=True)
class Meeting:
    """How often one model was put before another, of how often either was put before the other."""

    won: int
    met: int

    @property
    def share(self) -> float | None:
        """None where they never met."""
        return self.won / self.met if self.met else None


@dataclass(frozen=True, kw_only=True)
class Judged:
    """How often people agreed with a judge about two outputs that both have compared."""

    judge: str
    agreed: int
    compared: int
    share: float
    interval: Interval


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What the page says about a capability."""

    board: Board
    strengths: DotPlot | None
    rates: DotPlot | None
    rivals: tuple[tuple[str, tuple[Meeting | None, ...]], ...]  # None: against itself
    judges: tuple[Judged, ...]


@router.get("")
def show_leaderboard(visitor: Reading, shared: Shared, capability: str = "", days: str = "") -> Response:
    """Every capability that something is known of, or one; of what ended in the last days, or ever."""
    chosen, since = clean_text(capability).strip(), _days(days)
    with transaction(shared.engine) as connection:
        known = known_capabilities(connection)
        boards = list(_boards(connection, [chosen] if chosen else known, since))
    kept = {"capability": chosen, "days": days.strip()}
    said = {name: value for name, value in kept.items() if value}
    return page(
        "leaderboard.html.j2",
        visitor,
        boards=boards,
        known=known if not chosen or chosen in known else [*known, chosen],
        strength_of=strength_of,
        kept=kept,
        since=SINCE if kept["days"] in SINCE else {**SINCE, kept["days"]: f"{kept['days']} days ago"},
        api="/v1/leaderboard" + ("?" + urlencode(said, safe="/") if said else ""),
    )


def _days(said: str) -> float | None:
    """Seconds. Raises `InvalidRequest`."""
    if not said.strip():
        return None
    try:
        days = float(said)
    except ValueError:
        days = 0.0
    if not 0 < days <= MOST_DAYS:
        raise InvalidRequest(f"days = {said[:40]!r} is no number of days above 0 and up to {MOST_DAYS:g}.")
    return days * 86_400


def _boards(connection: Connection, capabilities: Sequence[str], since: float | None) -> Iterator[Shown]:
    for capability in capabilities:
        games = games_between_models(connection, capability, since, LATEST)
        board = board_of(capability, model_figures(connection, capability, since, LATEST), games)
        if board.standings:
            yield Shown(
                board=board,
                strengths=strength_plot(board),
                rates=rate_plot(board),
                rivals=rivals(board, games),
                judges=tuple(_judges(connection, capability)),
            )


def strength_plot(board: Board) -> DotPlot | None:
    """The models that met another, as the board has them; None where none did."""
    dots = [
        Dot(name=one.model, said=strength_of(one), value=one.strength, low=interval[0], high=interval[1])
        for one in board.standings
        if one.strength is not None and (interval := one.strength_interval) is not None
    ]
    if not dots:
        return None
    scale = scale_around([end for dot in dots for end in (dot.low, dot.high)])
    return dot_plot(dots, scale, {tick: _signed(tick, 1) for tick in scale.ticks()}, origin=0.0)


def rate_plot(board: Board) -> DotPlot | None:
    """The models that a judge compared with others, as the board has them; None where it compared none."""
    dots = [
        Dot(name=one.model, said=rate_of(one), value=one.win_rate, low=interval[0], high=interval[1])
        for one in board.standings
        if one.win_rate is not None and (interval := one.win_rate_interval) is not None
    ]
    return dot_plot(dots, SHARES, QUARTERS) if dots else None


def strength_of(one: Standing) -> str:
    """`+0.84 ± 0.21`; nothing for a model that met no other."""
    if one.strength is None or one.strength_interval is None:
        return ""
    return f"{_signed(one.strength, 2)} ± {number(one.strength_interval[1] - one.strength, 2)}"


def rate_of(one: Standing) -> str:
    """`62 % of 40`; nothing for a model that no judge compared."""
    return "" if one.win_rate is None else f"{100 * one.win_rate:.0f} % of {one.judged:,}"


def rivals(board: Board, games: Sequence[Games]) -> tuple[tuple[str, tuple[Meeting | None, ...]], ...]:
    """Who was put before whom how often, by verdicts and preferences; models in the board's order."""
    won: Counter[tuple[str, str]] = Counter()
    for game in games:
        won[game.better, game.worse] += game.count
    models = [one.model for one in board.standings if one.strength is not None]
    return tuple(
        (
            model,
            tuple(
                None if other == model else Meeting(won=won[model, other], met=won[model, other] + won[other, model])
                for other in models
            ),
        )
        for model in models
    )


def _judges(connection: Connection, capability: str) -> Iterator[Judged]:
    for one in sorted(judge_agreement(connection, [capability]), key=lambda one: (-one.compared, one.judge)):
        if (interval := wilson(one.agreed, one.compared)) is not None:
            share = one.agreed / one.compared
            yield Judged(judge=one.judge, agreed=one.agreed, compared=one.compared, share=share, interval=interval)


def _signed(value: float, digits: int) -> str:
    said = number(value, digits)
    return f"+{said}" if value > 0 else said
