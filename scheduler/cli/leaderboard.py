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
    from scheduler.leaderboard import Board, Standing


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

    Strength is Bradley-Terry's in log odds: 0 is the average of the board, 1 more wins 73 times in 100. A win counts
    for every model that said what the winner said; verdicts by fallback, and of a model alone, count for nobody. ±, and
    what stands in brackets, are intervals of 95 %; times are per call.
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
    """A table of the columns in which something stands."""
    console.print(harmless(board.capability), style="bold")
    rows = [_cells(one) for one in board.standings]
    shown = [name for name in rows[0] if any(row[name] for row in rows)]
    out = table(*shown, wrap=("strength", "wins", "preferred"))
    for row in rows:
        out.add_row(*(row[name] for name in shown))
    console.print(out)
    console.print()


def _cells(one: Standing) -> dict[str, str]:
    return {
        "model": harmless(one.model),
        "strength": _strength(one),
        "wins": _wins(one),
        "preferred": f"{one.preferred} of {one.compared}" if one.compared else "",
        "tried": str(one.tried) if one.tried else "",
        "failed": _percent(one.failure_rate),
        "cached": _percent(one.cached_share),
        "median": seconds(one.median_seconds),
        "p95": seconds(one.p95_seconds),
        "tokens": "" if one.mean_output_tokens is None else f"{one.mean_output_tokens:.0f}",
    }


def _strength(one: Standing) -> str:
    if one.strength is None or one.strength_interval is None:
        return ""
    return f"{one.strength:+.2f} ±{one.strength_interval[1] - one.strength:.2f}"


def _wins(one: Standing) -> str:
    if one.win_rate is None or one.win_rate_interval is None:
        return ""
    low, high = one.win_rate_interval
    return f"{one.win_rate:.0%} ({100 * low:.0f} to {100 * high:.0f}) of {one.judged}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"
