"""`python -m benchmarks.overhead`: tasks per second and CPU per task, ours and what people use today.

Everybody does the same: a request of 200 characters, three no-op models on queues of their own with a process each, a
judge on a fourth, finished. All run on the same Postgres and Redis, one after the other, in another order each run.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from benchmarks.harness import Figures, Options, main, medians, say
from benchmarks.overhead.environment import PEERS, Peer, peers_python
from benchmarks.overhead.ours import USUAL_WAVE, WAVES
from benchmarks.overhead.run import Bench, bench, our_name, peers_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping

OURS = "ours"
SYSTEMS = (OURS, *(name for peer in PEERS for name in peer.systems))
COLOURS = {
    "workers": "#4c72b0",
    "scheduler": "#dd8452",
    "redis": "#c44e52",
    "postgres": "#55a868",
    "submitter": "#8172b3",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark adds."""
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one measurement (default: %(default)g)")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS, help="measure these only")


def measure(options: Options) -> dict[str, Figures]:
    """Every system, once per run."""
    wanted = set(options.given.systems)
    found: dict[str, list[Figures]] = {}
    if wanted != {OURS}:
        peers_python()  # where it cannot be made, say so before anything is measured
    with bench() as at:
        turns = _turns(at, wanted, options.given.seconds)
        for run in range(options.runs):
            # Back and forth, so that what drifts on the machine is shared.
            for turn in turns if run % 2 == 0 else reversed(turns):
                for name, figures in turn():
                    found.setdefault(name, []).append(figures)
                    _say(run, name, figures)
    of_all = {name: medians(runs) for name, runs in found.items()}
    usual = {OURS: of_all[our_name(USUAL_WAVE)]} if OURS in wanted else {}
    return usual | of_all


def _turns(at: Bench, wanted: set[str], seconds: float) -> list[Callable[[], Iterator[tuple[str, Figures]]]]:
    def ours() -> Iterator[tuple[str, Figures]]:
        with at.our_workers():
            for wave in WAVES:
                with at.our_wave(wave) as running:
                    yield running.name, at.measure(running, seconds, idle=wave == USUAL_WAVE)

    def of(peer: Peer) -> Callable[[], Iterator[tuple[str, Figures]]]:
        def turn() -> Iterator[tuple[str, Figures]]:
            with at.peer(peer) as systems:
                for name, running in systems.items():
                    if name in wanted:
                        yield name, at.measure(running, seconds, idle=name not in peer.backlog_only)

        return turn

    return [*([ours] if OURS in wanted else []), *(of(peer) for peer in peers_of(wanted))]


def _say(run: int, name: str, figures: Figures) -> None:
    idle = f", idle p50 {figures['idle_p50_ms']:.1f} ms" if "idle_p50_ms" in figures else ""
    say(
        f"run {run + 1} {name:>16}: {figures['tasks_per_s']:7.0f} tasks/s, {figures['cpu_ms_per_task']:6.2f} ms of CPU "
        f"per task, {figures['submit_per_s']:7.0f} submitted/s{idle} ({figures['tasks']} tasks)"
    )


def draw(figures: Mapping[str, Figures], plot: Any) -> None:
    """Tasks per second, and CPU per task by who spends it."""
    shown = [name for name in figures if name != OURS]
    speed, cost = plot.subplots(1, 2)
    colours = [COLOURS["scheduler"] if name.startswith(OURS) else COLOURS["workers"] for name in shown]
    bars = speed.barh(shown, [figures[name]["tasks_per_s"] for name in shown], color=colours)
    speed.bar_label(bars, fmt="%.0f", padding=3)
    speed.margins(x=0.15)
    speed.set_xlabel("tasks per second, of a backlog")
    left = [0.0] * len(shown)
    for part, colour in COLOURS.items():
        values = [figures[name]["cpu_ms"].get(part, 0.0) for name in shown]
        cost.barh(shown, values, left=left, color=colour, label=part)
        left = [before + value for before, value in zip(left, values, strict=True)]
    cost.set_xlabel("ms of CPU per task")
    cost.legend(fontsize="small")
    for axes in (speed, cost):
        axes.invert_yaxis()


if __name__ == "__main__":
    began = time.monotonic()
    code = main("overhead", __doc__, measure, draw, arguments=arguments, size=(11.0, 5.0))
    say(f"{time.monotonic() - began:.0f} s")
    sys.exit(code)
