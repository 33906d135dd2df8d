"""How far tasks are: one statement for all that somebody watches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from db.states import TaskState

LONGEST = 200  # characters of a request or an answer


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One task. Ages in seconds; `running`, `waiting`: models of its candidates in that state."""

    id: UUID
    status: str
    source: str
    request: str
    age: float
    steps: int
    steps_done: int
    judging: int
    candidates: int
    candidates_done: int
    running: tuple[str, ...]
    waiting: tuple[str, ...]
    answer: str | None
    error: str | None

    @property
    def final(self) -> bool:
        """Whether nothing more will happen to it."""
        return TaskState(self.status).final

    @property
    def doing(self) -> str:
        """What happens to it now, in a few words; empty where it has ended."""
        match TaskState(self.status):
            case TaskState.PENDING:
                return "waiting"
            case TaskState.PLANNING:
                return "planning"
            case TaskState.RUNNING:
                return self._running()
            case TaskState.INTEGRATING:
                return "writing the answer"
            case _:
                return ""

    def _running(self) -> str:
        step = f"step {min(self.steps_done + 1, self.steps)} of {self.steps}: " if self.steps > 1 else ""
        if self.judging:
            return f"{step}judging"
        if not self.candidates:
            return f"{step}choosing models"
        return f"{step}{self.candidates_done} of {self.candidates} candidates"


def progress_of(connection: Connection, tasks: Sequence[UUID]) -> list[Progress]:
    """Where these tasks are, in their order; unknown ids are left out."""
    rows = connection.execute(
        text(
            """
            SELECT t.id, t.status, t.source, left(t.request, :longest) AS request, left(t.answer, :longest) AS answer,
                   t.error ->> 'message' AS error, s.steps, s.steps_done, s.judging,
                   c.candidates, c.candidates_done, c.running, c.waiting,
                   extract(epoch FROM coalesce(t.finished_at, now()) - t.created_at)::float8 AS age
            FROM unnest(CAST(:tasks AS uuid[])) WITH ORDINALITY AS w (id, place)
            JOIN task AS t ON t.id = w.id
            CROSS JOIN LATERAL (
                SELECT count(*) AS steps, count(*) FILTER (WHERE finished_at IS NOT NULL) AS steps_done,
                       count(*) FILTER (WHERE status = 'judging') AS judging
                FROM subtask WHERE task_id = t.id) AS s
            CROSS JOIN LATERAL (
                SELECT count(*) AS candidates, count(*) FILTER (WHERE c.finished_at IS NOT NULL) AS candidates_done,
                       array_agg(c.model ORDER BY c.model) FILTER (WHERE c.status = 'running') AS running,
                       array_agg(c.model ORDER BY c.model) FILTER (WHERE c.status IN ('chosen', 'sent')) AS waiting
                FROM subtask AS s JOIN candidate AS c ON c.subtask_id = s.id WHERE s.task_id = t.id) AS c
            ORDER BY w.place
            """
        ),
        {"tasks": list(tasks), "longest": LONGEST},
    )
    return [_read(dict(row._mapping)) for row in rows]  # noqa: SLF001 - the documented name


def _read(row: dict[str, Any]) -> Progress:
    return Progress(**{**row, "running": tuple(row["running"] or ()), "waiting": tuple(row["waiting"] or ())})
