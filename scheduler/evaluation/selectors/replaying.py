"""A system that replays a set: servers, a scheduler, one process that holds every model, and a judge that comes last.

A scheduler reads again every minute what judges decided. The judge therefore starts only when everything that was asked
has been chosen and answered: no answer to a test row teaches the choice for another, and a run can be repeated.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

from db.engine import engine_of, transaction
from db.errors import BakeoffError, WaitTimeout
from db.verdicts import claim_judging, load_to_judge, store_verdicts
from scheduler.evaluation.running import JUDGE, SCHEDULER, System
from scheduler.evaluation.selectors.arms import CAPABILITY
from scheduler.selectors import Histories

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from uuid import UUID

    from sqlalchemy import Engine

    from db.registry import ModelEntry
    from db.verdicts import ToJudge, VerdictRow
    from scheduler.evaluation.running import Progress
    from scheduler.selectors import History
    from scheduler.submit import NewTask

PROFILE = "replay"
MODELS = "models"
PATIENCE = 1800.0  # seconds for one round of tasks
LOOK_SECONDS = 0.2
LEASE_SECONDS = 60.0
WAVE = 64
OWN = {
    "BAKEOFF_MAX_CANDIDATES": "16",
    "BAKEOFF_WAVE_SIZE": str(WAVE),
    "BAKEOFF_JUDGE_WINDOW": "10000",  # nothing waits for the judge that comes last
    "BAKEOFF_JUDGE_GRACE": "3600",  # and nobody sends again what waits for it
}

_UNANSWERED = """
SELECT count(*) AS unanswered FROM task AS t
WHERE t.id = ANY(CAST(:tasks AS uuid[])) AND t.finished_at IS NULL AND NOT EXISTS (
    SELECT FROM subtask AS s WHERE s.task_id = t.id AND EXISTS (SELECT FROM candidate AS c WHERE c.subtask_id = s.id)
    AND NOT EXISTS (SELECT FROM candidate AS c WHERE c.subtask_id = s.id AND c.finished_at IS NULL))
"""
_ANSWERS = """
SELECT s.task_id, s.id, w.model AS winner, coalesce(v.fallback, false) AS fallback,
       jsonb_agg(jsonb_build_array(c.model, c.proposed_by, c.cached, c.status) ORDER BY c.rank) AS candidates
FROM subtask AS s JOIN candidate AS c ON c.subtask_id = s.id
LEFT JOIN verdict AS v ON v.subtask_id = s.id LEFT JOIN candidate AS w ON w.id = v.winner_id
WHERE s.task_id = ANY(CAST(:tasks AS uuid[])) GROUP BY s.id, v.id, w.id
"""
_SUBTASKS = "SELECT id FROM subtask WHERE task_id = ANY(CAST(:tasks AS uuid[]))"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model that was chosen: the selectors that proposed it, whether a stored output answered, how it ended."""

    model: str
    proposed_by: tuple[str, ...]
    cached: bool
    status: str


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What became of a task of one subtask: its candidates by rank, and the verdict's winner (None: there is none)."""

    subtask: UUID
    candidates: tuple[Candidate, ...]
    winner: str | None
    fallback: bool


def registry_text(file: Path, entries: Sequence[ModelEntry], names: Mapping[str, str], method: str) -> str:
    """A registry of these models, each with the outputs that the file has under its name there."""
    quoted = json.dumps  # a JSON string is a TOML string
    lines = [
        f"[profiles.{PROFILE}]",
        f"models = {quoted([entry.name for entry in entries])}",
        f"[capabilities.{quoted(CAPABILITY)}]",
        'input = "text"',
        'instruction = "Answer the request."',
        f'judge = "{JUDGE}"',
        'selectors = ["track_record"]',  # so that the history is there at the first look
        f"[judges.{JUDGE}]",
        f"method = {quoted(method)}",
    ]
    for entry in entries:
        lines += [
            f"[models.{quoted(entry.name)}]",
            f"capability = {quoted(CAPABILITY)}",
            'backend = "replay"',
            f"priority = {entry.priority}",
            f"metadata.scores = {{ {', '.join(f'{key} = {score}' for key, score in _scores(entry).items())} }}",
            "deterministic = true",
            f"max_batch = {WAVE}",
            "window = 16",
            "memory_mb = 16",
            f"params = {{ file = {quoted(str(file.resolve()))}, model = {quoted(names[entry.name])} }}",
        ]
    return "\n".join(lines) + "\n"


def _scores(entry: ModelEntry) -> Mapping[str, int]:
    scores: Mapping[str, int] = entry.metadata.get("scores", {})
    return scores


class Replaying(System):
    """The running system without its judge, which comes and goes."""

    def __init__(self, folder: Path, registry: str, models: Sequence[str]) -> None:
        super().__init__(folder, registry, OWN, profile=PROFILE, workers={MODELS: models})

    @property
    def _engine(self) -> Engine:
        return engine_of(self.settings.dsn, "benchmark")

    def ask(self, tasks: Sequence[NewTask], progress: Progress) -> list[UUID]:
        """Submit tasks; returns their ids when every candidate has ended. Raises `WaitTimeout`."""
        ids = self.submit(tasks)
        deadline = time.monotonic() + PATIENCE
        while True:
            self.cluster.supervise()
            (row,) = self.cluster.query(_UNANSWERED, tasks=ids)
            progress(len(ids) - row.unanswered, len(ids))
            if not row.unanswered:
                return ids
            if time.monotonic() > deadline:
                raise WaitTimeout(f"{row.unanswered} of {len(ids)} tasks were not answered within {PATIENCE:g} s.")
            time.sleep(LOOK_SECONDS)

    def judge(self, tasks: Sequence[UUID], progress: Progress) -> None:
        """Let the judge decide what was answered; it is there for as long as that takes."""
        self.add_worker(JUDGE, "--judge")
        self.wait(tasks, PATIENCE, progress)
        self.stop_member(JUDGE)

    def decide(self, tasks: Sequence[UUID], verdict: Callable[[ToJudge], VerdictRow]) -> int:
        """Store verdicts as a judge does, without one: claimed, and given under the claim. Returns how many."""
        ids = [row.id for row in self.cluster.query(_SUBTASKS, tasks=list(tasks))]
        with transaction(self._engine) as connection:
            claim = claim_judging(connection, ids, uuid4(), LEASE_SECONDS)
            return len(
                store_verdicts(connection, claim.token, [verdict(one) for one in load_to_judge(connection, claim)])
            )

    def history(self) -> History:
        """What the system has seen of the capability by now, read as its schedulers read it."""
        histories = Histories(self._engine)
        histories.refresh([CAPABILITY])
        return histories.of(CAPABILITY)

    def restart_scheduler(self) -> None:
        """A scheduler that reads the history as it is now."""
        self.stop_member(SCHEDULER)
        self.cluster.add(SCHEDULER, SCHEDULER)
        self.cluster.wait_ready()

    def answers(self, tasks: Sequence[UUID]) -> list[Answered]:
        """What became of tasks, in their order. Raises `BakeoffError` where one was refused."""
        found = {
            row.task_id: Answered(
                subtask=row.id,
                candidates=tuple(
                    Candidate(
                        model=model, proposed_by=tuple(str(one["selector"]) for one in by), cached=cached, status=status
                    )
                    for model, by, cached, status in row.candidates
                ),
                winner=row.winner,
                fallback=row.fallback,
            )
            for row in self.cluster.query(_ANSWERS, tasks=list(tasks))
        }
        if missing := [task for task in tasks if task not in found]:
            raise BakeoffError(
                f"{len(missing)} of {len(tasks)} tasks were asked of no model; the first is {missing[0]}."
            )
        return [found[task] for task in tasks]
