"""`bakeoff leaderboard`: which models win, how sure that is, and what they cost."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from db.engine import engine_of, transaction
from db.settings import load_settings
from scheduler.cli.output import console, harmless, print_json, seconds, table
from scheduler.cli.times import seconds_of

if TYPE_CHECKING:
    from scheduler.leaderboard import Board, Interval, Standing


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("leaderboard")(leaderboard_command)


def leaderboard_command(
    capability: Annotated[
        str | None, typer.Option("--capability", "-c", help="This one only, e.g. image-to-text/ocr.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="What finished in this time only, such as 30d.")] = None,
    latest: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Verdicts, and preferences, per capability, at most.")
    ] = 10_000,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the strengths to this file (.png, .svg, .pdf); needs matplotlib.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """The models of each capability, the strongest first, from the latest verdicts and preferences.

    Strength is Bradley-Terry's in log odds: 0 is an average model, 1 more wins 73 times in 100. A win counts for every
    model that said what the winner said; verdicts by fallback, and of a model alone, count for nobody. Intervals: 95 %.
    """
    from scheduler.leaderboard import leaderboard

    settings = load_settings()
    age = seconds_of("--since", since) if since else None
    with transaction(engine_of(settings.dsn, "cli")) as connection:
        boards = leaderboard(connection, capability, since=age, latest=latest)
    if plot is not None:
        from scheduler.leaderboard.plot import save_plot

        save_plot(boards, plot)
    if as_json:
        print_json([asdict(board) for board in boards])
        return
    for board in boards:
        _print(board)
    if not boards:
        console.print("Nothing is known yet; `bakeoff submit` asks models, `bakeoff prefer` says who was better.")


def _print(board: Board) -> None:
    console.print(harmless(board.capability), style="bold")
    out = table(
        "model", "strength", "win rate", "won", "preferred", "tried", "failed", "cached", "median", "p95", "tokens",
        wrap=("strength", "win rate"),
    )  # fmt: skip
    for one in board.standings:
        out.add_row(harmless(one.model), *_cells(one))
    console.print(out)
    console.print()


def _cells(one: Standing) -> list[str]:
    return [
        _with_interval(one.strength, one.strength_interval, "+.2f"),
        _with_interval(one.win_rate, one.win_rate_interval, ".0%"),
        f"{one.wins} of {one.judged}" if one.judged else "",
        f"{one.preferred} of {one.compared}" if one.compared else "",
        str(one.tried),
        _percent(one.failure_rate),
        _percent(one.cached_share),
        seconds(one.median_seconds),
        seconds(one.p95_seconds),
        "" if one.mean_output_tokens is None else f"{one.mean_output_tokens:.0f}",
    ]


def _with_interval(value: float | None, interval: Interval | None, form: str) -> str:
    if value is None or interval is None:
        return ""
    return f"{value:{form}} ({interval[0]:{form}} to {interval[1]:{form}})"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"
