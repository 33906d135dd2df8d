"""The leaderboard as a picture: strengths with their intervals, a panel per capability."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from db.errors import BakeoffError, UsageError
from scheduler.leaderboard import Board, Standing

FORMATS = ("png", "svg", "pdf")


def save_plot(boards: Sequence[Board], file: Path) -> None:
    """Draw the strengths to a file. Raises `UsageError` for a name that says no format, or no matplotlib."""
    if file.suffix.lstrip(".").lower() not in FORMATS:
        raise UsageError(f"--plot {file}: the name must end in one of .{', .'.join(FORMATS)}.")
    try:
        file.write_bytes(draw(boards, file.suffix.lstrip(".").lower()))
    except OSError as error:
        raise BakeoffError(f"Cannot write {file}: {error.strerror}.") from None


def draw(boards: Sequence[Board], form: str) -> bytes:
    """The picture as a file's bytes. Raises `UsageError` where there is no matplotlib, or nothing to draw."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - heavy, optional, and no part of any other command
    except ImportError:
        raise UsageError("A plot needs matplotlib, which is not installed: pip install 'bakeoff[demo]'.") from None
    panels = [(board.capability, rated) for board in boards if (rated := _rated(board))]
    if not panels:
        raise UsageError("There is nothing to plot: no model has met another one yet.")
    heights = [len(rated) + 1.5 for _, rated in panels]
    figure = Figure(figsize=(8, max(2.0, 0.32 * sum(heights))), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights}, sharex=True)
    for (capability, rated), axis in zip(panels, axes[:, 0], strict=True):
        places = range(len(rated))
        means = [mean for _, mean, _, _ in rated]
        reach = [[mean - low for _, mean, low, _ in rated], [high - mean for _, mean, _, high in rated]]
        axis.errorbar(means, places, xerr=reach, fmt="o", capsize=3, color="tab:blue", ecolor="tab:gray")
        axis.axvline(0, color="lightgray", linewidth=1, zorder=0)
        axis.set_yticks(places, [_plain(model) for model, *_ in rated])
        axis.set_ylim(len(rated) - 0.5, -0.5)  # the strongest on top
        axis.set_title(_plain(capability), loc="left", fontsize=10)
    axes[-1, 0].set_xlabel("strength in log odds, with 95 % interval; 0 is the average of the board")
    out = io.BytesIO()
    figure.savefig(out, format=form, dpi=150)
    return out.getvalue()


def _rated(board: Board) -> list[tuple[str, float, float, float]]:
    return [found for one in board.standings if (found := _bar(one)) is not None]


def _bar(one: Standing) -> tuple[str, float, float, float] | None:
    if one.strength is None or one.strength_interval is None:
        return None
    return one.model, one.strength, *one.strength_interval


def _plain(name: str) -> str:
    """A name in which `$` begins no formula."""
    return name.replace("$", r"\$")
