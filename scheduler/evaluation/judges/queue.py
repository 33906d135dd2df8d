"""Judges measured where they work: stored answers replayed through the real queue, verdicts read from Postgres.

What a judge learns it learns as in the direct run, and its weights are written where the worker's judge reads them. The
judge's worker is the one of production: it keeps no replies and counts no calls, so a language model is asked anew.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from db.errors import WaitTimeout
from db.registry import read_registry
from scheduler.evaluation.judges.bench import Asked, needs_turning
from scheduler.evaluation.judges.cases import is_pair
from scheduler.evaluation.judges.staging import PROFILE, WAVE, Stage, judges_named
from scheduler.evaluation.running import JUDGE, System
from worker.judges import Decision
from worker.judges.artifact import write_artifact
from worker.judges.jury import Jury

if TYPE_CHECKING:
    from collections.abc import Sequence

    from db.registry import JudgeEntry
    from db.settings import Settings
    from scheduler.evaluation.judges.bench import Bench, Sitting
    from scheduler.evaluation.judges.cases import Split
    from scheduler.evaluation.judges.staging import Staged

MODELS = "models"
READY_WITHIN = 300.0  # seconds; a judge's weights are loaded on a machine that others may use too
PATIENCE = 7200.0  # seconds for one round of verdicts, where no --seconds bound it
SHORTEST = 1.0
UNJUDGED = frozenset({"only_candidate", "only_passing", "fallback"})
OWN = {
    "BAKEOFF_MAX_CANDIDATES": "16",
    "BAKEOFF_WAVE_SIZE": str(WAVE),
    "HF_HUB_OFFLINE": "1",
}

_VERDICTS = """
SELECT s.task_id, v.ranking, v.scores, v.reason, v.method, v.judge_model, v.prompt_version, v.orders, v.confidence,
       (SELECT jsonb_object_agg(c.id, c.model) FROM candidate AS c WHERE c.subtask_id = s.id) AS models
FROM subtask AS s JOIN verdict AS v ON v.subtask_id = s.id WHERE s.task_id = ANY(CAST(:tasks AS uuid[]))
"""
_FAILED = "SELECT id, error FROM task WHERE id = ANY(CAST(:tasks AS uuid[])) AND status = 'failed'"


@dataclass(frozen=True, kw_only=True)
class _Queued:
    """A case on the stage; of a pair also with its ranks turned round."""

    sitting: Sitting
    straight: Staged
    turned: Staged | None


def run_queued(settings: Settings, bench: Bench, parts: Sequence[Split]) -> list[Asked]:
    """Have every row to report judged by a worker; returns those that were. Raises `UsageError`, `BakeoffError`."""
    sittings = list(bench.sittings(parts))
    with tempfile.TemporaryDirectory(prefix="bakeoff-judges-") as name:
        folder = Path(name)
        judges = judges_named([_taught_entry(one, folder / f"weights-{n}") for n, one in enumerate(sittings, 1)])
        stage = Stage(bench.kind)
        queued = [
            _Queued(
                sitting=sitting,
                straight=stage.put(case, judge),
                turned=stage.put(bench.turned(case), judge) if is_pair(case.row) else None,
            )
            for sitting, judge in zip(sittings, judges, strict=True)
            for case in sitting.cases
        ]
        if not queued:
            return []
        answers = folder / "answers.jsonl"
        stage.write(answers)
        system = System(
            folder,
            stage.registry(answers, judges, read_registry(settings.registry_file)),
            OWN | {"BAKEOFF_CACHE": str(settings.cache)},
            profile=PROFILE,
            workers={MODELS: stage.models, JUDGE: ("--judge",)},
            ready_within=READY_WITHIN,
        )
        with system:
            return _asked(system, bench, queued)


def _asked(system: System, bench: Bench, queued: Sequence[_Queued]) -> list[Asked]:
    """What was decided of each case; of those that need it, also with the ranks turned round."""
    straight = _decided(system, bench, [one.straight for one in queued])
    unsure = [
        one.turned for one, found in zip(queued, straight, strict=True)
        if one.turned is not None and found is not None and needs_turning(one.straight.case, _judged(found))
    ]  # fmt: skip
    turned = dict(zip(map(id, unsure), _decided(system, bench, unsure), strict=True))
    return [
        Asked(
            case=one.straight.case,
            decision=_judged(found),
            calls=None,
            learned_from=one.sitting.learned_from,
            swapped=_judged(turned.get(id(one.turned))),
        )
        for one, found in zip(queued, straight, strict=True)
        if found is not None
    ]


def _decided(system: System, bench: Bench, staged: Sequence[Staged]) -> list[Decision | None]:
    """Submit, wait, and read the verdicts; None where there is none when the seconds are over, or the task failed."""
    if not staged:
        return []
    ids = system.submit([one.task for one in staged])
    left = PATIENCE if bench.seconds is None else max(SHORTEST, bench.seconds - (time.monotonic() - bench.started))
    with contextlib.suppress(WaitTimeout):
        system.wait(ids, left, lambda *_: None)
    found = {row.task_id: row for row in system.cluster.query(_VERDICTS, tasks=ids)}
    for row in system.cluster.query(_FAILED, tasks=ids):
        bench.failed(f"task {row.id}: {row.error}")
    decided = [_decision(found[task], one) if task in found else None for task, one in zip(ids, staged, strict=True)]
    for decision in decided:
        if decision is not None and decision.method in UNJUDGED:
            bench.failed(decision.reason)
    return decided


def _decision(row: Any, staged: Staged) -> Decision:
    """A stored verdict about candidates as the decision about a case's answers. An answer that failed is the last."""
    answers = {UUID(candidate): staged.answers[model] for candidate, model in row.models.items()}
    ranking = [answers[UUID(candidate)] for candidate in row.ranking]
    return Decision(
        ranking=(*ranking, *(answer for answer in staged.answers.values() if answer not in ranking)),
        scores={answers[UUID(candidate)]: score for candidate, score in row.scores.items()},
        reason=row.reason,
        method=row.method,
        model=row.judge_model,
        prompt_version=row.prompt_version,
        orders=row.orders,
        confidence=row.confidence,
    )


def _judged(found: Decision | None) -> Decision | None:
    """The decision, where a judge made it."""
    return None if found is None or found.method in UNJUDGED else found


def _taught_entry(sitting: Sitting, folder: Path) -> JudgeEntry:
    """The registry's entry of a judge as it sits: what it has learned is written where its worker finds it."""
    judge, entry = sitting.judge, sitting.judge.entry
    if not isinstance(judge, Jury) or not judge.artifact.capabilities:
        return entry
    write_artifact(folder, judge.artifact)
    return entry.model_copy(update={"params": entry.params | {"artifact": str(folder)}})
