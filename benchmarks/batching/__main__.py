"""`python -m benchmarks.batching`: what the whole queue leaves of a model's own speed.

Items per second through the queue (bulk submission, scheduler, one model worker, the verdict on an only candidate,
until the last result is stored) against the same model called directly in one process, at its best batch size and with
one thread. Loading is left out of both; both see the same inputs, in turns: the ratio is the median of the turns' own.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.batching.direct import Direct
from benchmarks.batching.inputs import make_samples
from benchmarks.batching.queued import Queued
from benchmarks.batching.registry import TRIALS, entry, registry_text
from benchmarks.batching.samples import write_samples
from benchmarks.harness import Figures, Options, main, medians, say
from db.settings import load_settings
from worker.weights import fetch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.batching.direct import Took

TARGET = 0.9
UNDISTURBED = 0.95  # of a core for the direct calls: with less, somebody else computes on this machine
LEAST_MESSAGES = 2  # of a run: with fewer the queue has nothing to overlap


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", choices=TRIALS, default=list(TRIALS), help="what to measure (all)")


def measure(options: Options) -> dict[str, Figures]:
    """`{model: {direct_items_per_s, queue_items_per_s, ratio, direct_batch, ...}}`."""
    figures = {}
    for model in options.given.models:
        with tempfile.TemporaryDirectory(prefix="bakeoff-batching-") as folder:
            figures[model] = _measure(model, options, Path(folder))
    return figures


def _measure(model: str, options: Options, folder: Path) -> Figures:
    sizes, wanted = TRIALS[model].sizes, TRIALS[model].seconds
    cache = load_settings().cache
    any_entry = entry(model, max(sizes))
    fetch(any_entry, cache)
    say(f"{model}: trying batches of {', '.join(map(str, sizes))}")
    file = folder / "direct.toml"
    file.write_text(registry_text(model, max(sizes)))
    with Direct(file, model, cache) as direct:
        rates = _sweep(direct, any_entry.capability, sizes, folder, cache)
        batch = max(rates, key=lambda size: rates[size])
        count = _count(rates[batch] * wanted, batch)
        samples = make_samples(any_entry.capability, folder, count=count, cache=cache)
        half = count // batch // 2 * batch
        first = write_samples(samples[:half], folder / "first.json")
        second = write_samples(samples[half:], folder / "second.json")
        with Queued(folder, registry_text(model, batch), model, any_entry.capability, cache, wave=batch) as queued:
            queued.run(samples[:batch])  # warms up
            runs = []
            for number in range(options.runs):
                # Half before and half after: a machine that gets slower or faster meanwhile does so for both.
                run = _run(direct.call(first, batch), queued.run(samples), direct.call(second, batch), count)
                say(f"{model}: run {number + 1} of {options.runs}, {run['ratio']:.3f} of direct{_doubt(run)}")
                runs.append(run)
    return {
        **medians(runs),
        "direct_batch": batch,
        "items": count,
        "sweep": {str(size): rate for size, rate in rates.items()},
    }


def _sweep(direct: Direct, capability: str, sizes: Sequence[int], folder: Path, cache: Path) -> dict[int, float]:
    """Items per second of direct calls by batch size, over the same inputs."""
    samples = make_samples(capability, folder, count=max(sizes), cache=cache)
    file = write_samples(samples, folder / "sweep.json")
    direct.call(file, max(sizes))  # warms up
    return {size: len(samples) / direct.call(file, size).seconds for size in sizes}


def _count(wanted: float, batch: int) -> int:
    """Inputs of a run: whole messages."""
    return batch * max(LEAST_MESSAGES, math.ceil(wanted / batch))


def _run(first: Took, queue: Mapping[str, float], second: Took, count: int) -> Figures:
    """One run. What the ratio is made of: `model_busy`, the share of the queue's time in which the model ran, and
    `model_slowdown`, how much longer it ran there than in direct calls. `direct_cores` is 1 on a machine of our own."""
    direct = first.seconds + second.seconds
    return {
        "direct_items_per_s": count / direct,
        "queue_items_per_s": count / queue["seconds"],
        "ratio": direct / queue["seconds"],
        "model_busy": queue["model_seconds"] / queue["seconds"],
        "model_slowdown": queue["model_seconds"] / direct,
        "messages": queue["messages"],
        "direct_cores": (first.cpu_seconds + second.cpu_seconds) / direct,
    }


def _doubt(run: Figures) -> str:
    disturbed = run["direct_cores"] < UNDISTURBED
    return f"; disturbed: the direct calls had {run['direct_cores']:.2f} of a core" if disturbed else ""


def draw(figures: Mapping[str, Figures], plot: Any) -> None:
    """Bars per model: the queue's share of direct, and the line that it must reach."""
    axes = plot.subplots()
    names = list(figures)
    bars = axes.bar(names, [figures[name]["ratio"] for name in names], width=0.5)
    axes.bar_label(
        bars,
        [
            f"{figures[name]['queue_items_per_s']:.3g} of {figures[name]['direct_items_per_s']:.3g} items/s\n"
            f"batches of {figures[name]['direct_batch']}"
            for name in names
        ],
        label_type="center",
        color="white",
    )
    axes.axhline(1.0, color="black", linewidth=1)
    axes.axhline(TARGET, color="tab:red", linestyle="--", linewidth=1, label=f"must reach {TARGET:g}")
    axes.set_ylim(0, 1.15)
    axes.set_ylabel("queue / direct")
    axes.set_title("The whole queue against the same model called directly, one thread")
    axes.legend(loc="upper right")


if __name__ == "__main__":
    sys.exit(main("batching", __doc__, measure, draw, arguments=_arguments))
