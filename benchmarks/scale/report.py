"""How the figures compare: each size with the smallest, and each backlog with the same size without one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.harness import say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.harness import Figures

ALLOWED = 1.2  # times worse than at the smallest size

#: Figure, its unit, and whether more is better.
SHOWN = (
    ("submit_per_s", "tasks/s", True),
    ("submit_one_ms", "ms", False),
    ("poll_p99_ms", "ms", False),
    ("page_p99_ms", "ms", False),
    ("dispatch_per_s", "subtasks/s", True),
    ("reconcile_ms", "ms", False),
    ("scheduler_rss_mb", "MB", False),
)


def backlog_name(tasks: int) -> str:
    """Key of the figures with so many open tasks: `backlog_100k`."""
    return f"backlog_{tasks // 1000}k" if tasks >= 1000 else f"backlog_{tasks}"


def times_worse(figures: Figures, than: Figures) -> dict[str, float]:
    """How much worse each figure is: 1.0 is as good, 2.0 twice as slow."""
    return {
        name: than[name] / figures[name] if more_is_better else figures[name] / than[name]
        for name, _, more_is_better in SHOWN
    }


def compare(figures: dict[str, Figures], sizes: Sequence[int]) -> None:
    """Add `times_worse` than at the smallest size to each entry, and say what is over `ALLOWED` at the largest."""
    smallest, largest = figures[str(sizes[0])], str(sizes[-1])
    for entry in figures.values():
        entry["times_worse"] = times_worse(entry, smallest)
    over = {name: times for name, times in figures[largest]["times_worse"].items() if times > ALLOWED}
    for name, times in over.items():
        say(f"{name} with {sizes[-1]:,} stored tasks is {times:.2f} times worse than with {sizes[0]:,}")
    if not over:
        say(f"With {sizes[-1]:,} stored tasks nothing is over {ALLOWED:g} times worse than with {sizes[0]:,}")


def draw(figures: Mapping[str, Figures], plot: Any) -> None:
    """A panel per figure: over the stored tasks, without and with a backlog of a tenth of them."""
    quiet = {int(name): entry for name, entry in figures.items() if name.isdigit()}
    loaded = [entry for name, entry in figures.items() if name.startswith("backlog")]
    sizes = sorted(quiet)
    panels = plot.subplots(2, 4)
    for panel, (name, unit, _) in zip(panels.flat, SHOWN, strict=False):
        panel.plot(sizes, [quiet[size][name] for size in sizes], marker="o", label="nothing waits")
        panel.plot(sizes, [entry[name] for entry in loaded], marker="s", linestyle="--", label="backlog of a tenth")
        panel.set(xscale="log", title=name, ylabel=unit, xlabel="stored tasks")
        panel.set_ylim(0, 1.15 * max(entry[name] for entry in figures.values()))
        panel.grid(visible=True, alpha=0.3)
    last = panels.flat[len(SHOWN)]
    last.axis("off")
    last.legend(*panels.flat[0].get_legend_handles_labels(), loc="center")
