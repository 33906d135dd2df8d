"""`python -m benchmarks.load`: 50 clients of the API at one request a second each, then more until it is too slow.

Eight polls to one submission, an open loop, models that answer at once. Everything shares the machine: clients, API,
scheduler, workers, Postgres, Redis. Nothing may answer 5xx, get lost, or be refused without a time to come again, and
the slowest hundredth of the polls takes less than ten times what the median poll takes on an idle system. The rate then
grows by half until that hundredth takes more than 250 ms: the last rate that was under it is the saturation rate.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import Figures, Options, main, medians, percentile, say
from benchmarks.load.clients import CAPABILITY, Clients, Tally, broken_promises
from db.states import TaskState
from scheduler.local.cluster import Cluster

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

CLIENTS = 50
IDLE = 5.0  # seconds of polling alone
STEP = 20.0  # seconds at each rate above the first
GROWTH = 1.5
MOST = 2000.0  # requests per second, where the clients themselves are the limit
SLOW = 0.25  # seconds: what the slowest hundredth of the polls may take
TIMES_IDLE = 10.0  # of the idle median, at one request per client and second
PATIENCE = 120.0  # seconds for the tasks of a rate to be done

MODELS = ("alpha", "beta", "gamma")
REGISTRY = """
[profiles.demo]
models = ["alpha", "beta", "gamma"]

[capabilities.text-generation]
input = "text"
instruction = "Answer the request."
judge = "longest"

[judges.longest]
method = "scripted"
""" + "".join(
    f"""
[models.{name}]
capability = "{CAPABILITY}"
backend = "scripted"
memory_mb = 64
max_batch = 32
cache = false
params = {{ answer = "{name} answers: {{text}}" }}
"""
    for name in MODELS
)


class Bench:
    """An installation that runs, and clients of its API."""

    def __init__(self, cluster: Cluster, clients: int) -> None:
        """Start servers, scheduler, judge, a worker per model, and one process of the API."""
        self.cluster = cluster
        cluster.start_servers()
        cluster.add("scheduler", "scheduler")
        cluster.add("judge", "worker", "--judge")
        for name in MODELS:
            cluster.add(name, "worker", name)
        cluster.wait_ready()
        self._clients = Clients(cluster.add_api(), clients)

    def idle(self) -> Tally:
        """One client, one finished task."""
        return self._clients.poll_alone(IDLE)

    def at(self, rate: float, seconds: float) -> tuple[Tally, list[str]]:
        """What the clients saw at this rate, and which promises that breaks."""
        tally = self._clients.send(rate, seconds)
        return tally, broken_promises(tally, self._unfinished(tally.accepted))

    def _unfinished(self, tasks: list[str]) -> list[str]:
        """Those that are not done in time."""
        deadline = time.monotonic() + PATIENCE
        while True:
            open_ones = self.cluster.query(
                "SELECT id FROM task WHERE id = ANY(CAST(:ids AS uuid[])) AND status <> :done",
                ids=tasks, done=TaskState.DONE,
            )  # fmt: skip
            if not open_ones or time.monotonic() > deadline:
                return [str(row.id) for row in open_ones]
            time.sleep(0.1)


def measure(options: Options) -> dict[str, Figures]:
    """By rate, and `idle` and `saturation`; `broken` of a rate holds the promises that it broke, in sentences."""
    with tempfile.TemporaryDirectory(prefix="bakeoff-load-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # Postgres runs as somebody else where we are root
        cluster = Cluster(folder, REGISTRY, {"BAKEOFF_API_RATE": "0"})
        try:
            bench = Bench(cluster, options.given.clients)
            first = float(options.given.clients)
            runs = [_all_rates(bench, first, options.given.seconds) for _ in range(options.runs)]
        finally:
            cluster.stop()
    names = dict.fromkeys(name for run in runs for name in run)
    return {name: medians([run[name] for run in runs if name in run]) for name in names}


def _all_rates(bench: Bench, first: float, seconds: float) -> dict[str, Figures]:
    bench.idle()  # warms up
    idle = _figures(bench.idle())
    say(f"idle: poll p50 {idle['poll_p50_ms']:.1f} ms")
    found: dict[str, Figures] = {"idle": idle}
    rate, held = first, 0.0
    while rate <= MOST:
        tally, broken = bench.at(rate, seconds if rate == first else STEP)
        figures = found[f"{rate:.0f}/s"] = {"rate": rate, **_figures(tally), "broken": list(broken)}
        if rate == first:
            figures["times_idle"] = figures["poll_p99_ms"] / idle["poll_p50_ms"]
            if figures["times_idle"] > TIMES_IDLE:
                figures["broken"].append(f"p99 of the polls is {figures['times_idle']:.1f} times the idle median.")
        times = ", ".join(f"p{share} {figures[f'poll_p{share}_ms']:.1f} ms" for share in (50, 99))
        say(f"{rate:.0f}/s: poll {times} {' '.join(figures['broken'])}")
        if broken or figures["poll_p99_ms"] > SLOW * 1000:
            break
        rate, held = rate * GROWTH, rate
    return {**found, "saturation": {"rate": held, "first_too_slow": rate}}


def _figures(tally: Tally) -> Figures:
    times = {"poll": tally.polls, "submit": tally.submits}
    return {
        **{
            f"{name}_p{share:.0f}_ms": percentile(seconds, share / 100) * 1000
            for name, seconds in times.items()
            for share in (50, 99)
            if seconds
        },
        "answers": sum(tally.statuses.values()),
        "refused": tally.statuses[429] + tally.statuses[503],
        "accepted": len(tally.accepted),
    }


def draw(figures: Mapping[str, Figures], plot: Any) -> None:
    """p50 and p99 of polls and submissions over the rate."""
    axes = plot.subplots()
    shown = [entry for name, entry in figures.items() if name.endswith("/s")]
    for name, colour in (("poll", "#4c72b0"), ("submit", "#dd8452")):
        for share, style in ((50, "o--"), (99, "o-")):
            values = [entry[f"{name}_p{share}_ms"] for entry in shown]
            axes.plot([entry["rate"] for entry in shown], values, style, color=colour, label=f"{name} p{share}")
    axes.axhline(SLOW * 1000, color="tab:red", label="too slow")
    axes.set(xlabel="requests per second", ylabel="ms", yscale="log", xlim=0)
    axes.legend()


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clients", type=int, default=CLIENTS, help="clients, one request a second each (%(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="at that rate (%(default)g)")


if __name__ == "__main__":
    sys.exit(main("load", __doc__, measure, draw, arguments=_arguments, size=(6.5, 4.0)))
