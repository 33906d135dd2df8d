"""A planner's figures on a labelled file and on generated requests, beside those of retrieval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from db.registry import PlannerEntry
from scheduler.evaluation.planner.generated import TOOLS, generated
from scheduler.evaluation.planner.metrics import difference, metrics_of
from scheduler.evaluation.planner.rows import Row, halves, sample
from scheduler.evaluation.planner.running import WRITTEN, by_type, run_planner
from worker.planners.similarity import encoder_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from db.plan import Tool
    from worker.backends import Backend

SAMPLE = 60  # requests that a planner which asks a language model is tested on
GENERATED = 240  # generated requests tested on, a third of each type; as many again are there to look up
BASELINE = PlannerEntry(name="retrieval", method="retrieval")


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What is measured, and with what. `limit`: test requests at most; None: all, or `SAMPLE` where a model writes."""

    entry: PlannerEntry
    model: Backend | None
    embedder: Backend | None
    limit: int | None = None
    progress: Callable[[int, int], None] = lambda *_: None

    @property
    def most(self) -> int | None:
        """Test requests at most."""
        if self.limit is not None:
            return self.limit
        return SAMPLE if self.entry.method in WRITTEN else None


def evaluated(
    bench: Bench, rows: Sequence[Row], tools: Sequence[Tool], *, generated_count: int | None
) -> dict[str, Any]:
    """Figures on a file's rows, and on generated requests where asked for."""
    report: dict[str, Any] = {
        "planner": bench.entry.name,
        "method": bench.entry.method,
        "model": None if bench.model is None else bench.model.model.name,
        "embedder": None if bench.embedder is None else bench.embedder.model.name,
        **_measured(bench, rows, tools),
    }
    count = generated_count if generated_count is not None else min(GENERATED, bench.most or GENERATED)
    if count:
        report["generated"] = _measured(bench, generated(2 * count), TOOLS)
    return report


def _measured(bench: Bench, rows: Sequence[Row], tools: Sequence[Tool]) -> dict[str, Any]:
    encoder = encoder_of(bench.embedder, [row.request for row in rows])
    split = halves(rows, encoder)
    test = sample(split.test, bench.most)
    run = run_planner(
        bench.entry,
        train=split.train,
        test=test,
        tools=tools,
        model=bench.model,
        embedder=bench.embedder,
        progress=bench.progress,
    )
    report: dict[str, Any] = {
        **metrics_of(run.marks),
        "train": len(split.train),
        "near_duplicates_removed": split.removed,
        "seconds_per_request": run.seconds / len(test) if test else None,
        "repaired": run.repaired / len(test) if test else None,
        "short_list_recall": run.short_list_recall,
        "why_unparseable": run.reasons,
        "types": {kind: metrics_of(marks) for kind, marks in sorted(by_type(test, run.marks).items())},
    }
    if bench.entry.method != BASELINE.method:
        theirs = run_planner(BASELINE, train=split.train, test=test, tools=tools, model=None, embedder=bench.embedder)
        report["retrieval"] = metrics_of(theirs.marks)
        report["minus_retrieval"] = difference(run.marks, theirs.marks)
    return report
