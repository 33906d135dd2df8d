"""`python -m benchmarks.latency`: on an idle system, from submission to the stored verdict.

Ours against (a) a bare Celery chord and (b) the same with a row for each step, with the code and the servers of
`benchmarks.overhead`. All processes of all three live for the whole time; single tasks go to one after the other, and a
system counts as finished when its submitter, which looks every 2 ms, sees so.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

from benchmarks.harness import Figures, Options, main, medians, percentile, say
from benchmarks.overhead.run import bench, peers_of

if TYPE_CHECKING:
    from collections.abc import Mapping

SYSTEMS = ("ours", "celery_chord", "celery_chord_sql")
ROUNDS = 4  # turns of each system in a run, so that what disturbs the machine disturbs all
SINGLES = 15  # tasks per turn


def measure(options: Options) -> dict[str, Figures]:
    """Every system in turn."""
    found: dict[str, list[Figures]] = {name: [] for name in SYSTEMS}
    with contextlib.ExitStack() as stack:
        at = stack.enter_context(bench())
        (celery,) = peers_of({"celery_chord"})
        running = dict(stack.enter_context(at.peer(celery)))
        stack.enter_context(at.our_workers())
        running["ours"] = stack.enter_context(at.our_wave())
        for system in running.values():
            system.warm_up()
        for run in range(options.runs):
            times: dict[str, list[float]] = {name: [] for name in SYSTEMS}
            for _ in range(ROUNDS):
                for name in SYSTEMS:
                    times[name] += running[name].singles(SINGLES)
            for name, values in times.items():
                found[name].append({"p50_ms": percentile(values, 0.5), "p95_ms": percentile(values, 0.95)})
                say(f"run {run + 1} {name:>16}: p50 {found[name][-1]['p50_ms']:6.1f} ms")
    return {name: medians(runs) for name, runs in found.items()}


def draw(figures: Mapping[str, Figures], plot: Any) -> None:
    """p50 and p95 side by side."""
    axes = plot.subplots()
    places = range(len(figures))
    for offset, key, colour in ((-0.2, "p50_ms", "#4c72b0"), (0.2, "p95_ms", "#dd8452")):
        values = [entry[key] for entry in figures.values()]
        bars = axes.bar([place + offset for place in places], values, 0.4, label=key.removesuffix("_ms"), color=colour)
        axes.bar_label(bars, fmt="%.1f")
    axes.set_xticks(list(places), list(figures))
    axes.set_ylabel("ms from submission to the verdict, idle system")
    axes.legend()


if __name__ == "__main__":
    sys.exit(main("latency", __doc__, measure, draw, size=(6.5, 4.0)))
