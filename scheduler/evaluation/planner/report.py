"""A planner's figures on a labelled file and on generated requests, beside those of retrieval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from db.registry import PlannerEntry
from scheduler.evaluation.planner.generated import TOOLS, generated
from scheduler.evaluation.planner.metrics import difference, metrics_of
from scheduler.evaluation.planner.rows import Halves, Row, halves, sample
from scheduler.evaluation.planner.running import WRITTEN, Run, by_type, run_planner
from worker.planners.similarity import encoder_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from db.plan import Tool
    from worker.backends import Backend

SAMPLE = 60  # requests that a planner which asks a language model is tested on
GENERATED_SAMPLE = 30  # generated requests of such a planner
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
    usual = GENERATED_SAMPLE if bench.entry.method in WRITTEN else GENERATED
    count = generated_count if generated_count is not None else min(usual, bench.limit or usual)
    if count:
        report["generated"] = _measured(bench, generated(2 * count), TOOLS)
    return report


def _measured(bench: Bench, rows: Sequence[Row], tools: Sequence[Tool]) -> dict[str, Any]:
    split = halves(rows, encoder_of(bench.embedder, [row.request for row in rows]))
    test = sample(split.test, bench.most)
    run, theirs = _beside_retrieval(bench, split.train, test, tools)
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
    if theirs is not None:
        report["retrieval"] = metrics_of(theirs.marks)
        report["minus_retrieval"] = difference(run.marks, theirs.marks)
    if bench.most is None:
        report["both_halves"] = _both_halves(bench, split, run, theirs, tools)
    return report


def _both_halves(bench: Bench, split: Halves, run: Run, theirs: Run | None, tools: Sequence[Tool]) -> dict[str, Any]:
    """Every row as a test row, by the plans of the half that it is not in: twice the support for the same interval."""
    back = split.turned
    again, again_theirs = _beside_retrieval(bench, back.train, back.test, tools)
    marks = [*run.marks, *again.marks]
    report: dict[str, Any] = {**metrics_of(marks), "near_duplicates_removed": split.removed + back.removed}
    if theirs is not None and again_theirs is not None:
        other = [*theirs.marks, *again_theirs.marks]
        report["retrieval"] = metrics_of(other)
        report["minus_retrieval"] = difference(marks, other)
    return report


def _beside_retrieval(
    bench: Bench, train: Sequence[Row], test: Sequence[Row], tools: Sequence[Tool]
) -> tuple[Run, Run | None]:
    """The planner's run, and that of `retrieval` on the same requests where the planner is another."""

    def run(entry: PlannerEntry, model: Backend | None) -> Run:
        return run_planner(
            entry,
            train=train,
            test=test,
            tools=tools,
            model=model,
            embedder=bench.embedder,
            progress=bench.progress,
        )

    ours = run(bench.entry, bench.model)
    return ours, None if bench.entry.method == BASELINE.method else run(BASELINE, None)
