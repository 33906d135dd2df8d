"""What the server says, as frozen values.

Fields that this version does not know are left out, so a newer server does not break an older client; each value keeps
the whole document that it was read from as `document`.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import cache
from typing import Any, Self, cast, get_args, get_origin
from uuid import UUID

from bakeoff_client.errors import TaskFailed

#: States after which nothing of a task changes any more.
FINAL = frozenset({"done", "failed", "expired", "cancelled"})


@dataclass(frozen=True, kw_only=True)
class Record:
    """A document of the server. `document` is the whole of it."""

    document: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Read a document; what is unknown is ignored."""
        hints = _hints(cls)  # type: ignore[arg-type]  # a class is hashable, whatever its instances are
        known = {
            one.name: _read(hints[one.name], document[one.name])
            for one in fields(cls)
            if one.name in document and one.name != "document"
        }
        return cls(**known, document=document)


@cache
def _hints(cls: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _read(kind: Any, value: Any) -> Any:
    """A JSON value as what a field is declared to be."""
    if value is None:
        return None
    origin = get_origin(kind)
    if origin in {types.UnionType, typing.Union}:
        return _read(next(one for one in get_args(kind) if one is not type(None)), value)
    if origin is tuple:
        return tuple(_read(get_args(kind)[0], one) for one in value)
    return value if origin is not None or not isinstance(kind, type) else _read_plain(kind, value)


def _read_plain(kind: type, value: Any) -> Any:
    if issubclass(kind, Record):
        return kind.of(cast("Mapping[str, Any]", value))
    if issubclass(kind, UUID):
        return UUID(str(value))
    return datetime.fromisoformat(str(value)) if issubclass(kind, datetime) else value


@dataclass(frozen=True, kw_only=True)
class Accepted(Record):
    """A task that is stored: nothing loses it any more."""

    id: UUID
    url: str = ""
    retry_of: UUID | None = None


@dataclass(frozen=True, kw_only=True)
class Problem(Record):
    """Why one task of many was not stored."""

    code: str = "error"
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Outcome(Record):
    """What became of one task of many: its `id`, or its `problem`."""

    id: UUID | None = None
    url: str | None = None
    problem: Problem | None = None


@dataclass(frozen=True, kw_only=True)
class Candidate(Record):
    """One model's attempt at a subtask: its output, or its error."""

    id: UUID
    model: str = ""
    status: str = ""
    output: str | None = None
    detail: Mapping[str, Any] | None = None
    usage: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    seconds: float | None = None
    attempt: int = 0
    rank: int = 0
    cached: bool = False


@dataclass(frozen=True, kw_only=True)
class Verdict(Record):
    """What a judge decided. `ranking` and `scores` go by model, the best first."""

    winner: str = ""
    winner_id: UUID | None = None
    judge: str = ""
    judge_model: str | None = None
    method: str = ""
    reason: str = ""
    confidence: float | None = None
    ranking: tuple[str, ...] = ()
    scores: Mapping[str, Any] = field(default_factory=dict)
    fallback: bool = False
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Subtask(Record):
    """One step of a task, with every candidate and the verdict."""

    id: UUID
    name: str = ""
    capability: str = ""
    status: str = ""
    needs: tuple[str, ...] = ()
    error: Mapping[str, Any] | None = None
    candidates: tuple[Candidate, ...] = ()
    verdict: Verdict | None = None

    @property
    def winner(self) -> Candidate | None:
        """The candidate that the verdict chose."""
        chosen = self.verdict.winner_id if self.verdict else None
        return next((one for one in self.candidates if one.id == chosen), None)


@dataclass(frozen=True, kw_only=True)
class Task(Record):
    """Everything that is known of a task."""

    id: UUID
    status: str = ""
    source: str = ""
    request: str = ""
    capability: str | None = None
    answer: str | None = None
    confidence: float | None = None
    fallback: bool | None = None
    needs_review: bool | None = None
    error: Mapping[str, Any] | None = None
    created_at: datetime | None = None
    finished_at: datetime | None = None
    retry_of: UUID | None = None
    subtasks: tuple[Subtask, ...] = ()

    @property
    def final(self) -> bool:
        """Whether it has ended, well or not."""
        return self.status in FINAL or self.finished_at is not None

    def check(self) -> str:
        """The answer. Raises `TaskFailed` where there is none."""
        if self.status == "done" and self.answer is not None:
            return self.answer
        error = self.error or {}
        reason = error.get("message") or f"it is {self.status}"
        raise TaskFailed(f"Task {self.id}: {reason}", code=str(error.get("code") or self.status), task_id=self.id)


@dataclass(frozen=True, kw_only=True)
class Result(Record):
    """A row of the list of tasks, or of a webhook."""

    task_id: UUID
    status: str = ""
    source: str = ""
    request: str | None = None
    answer: str | None = None
    winners: Mapping[str, Any] | None = None
    confidence: float | None = None
    fallback: bool | None = None
    error: Mapping[str, Any] | None = None
    created_at: datetime | None = None
    finished_at: datetime | None = None
    retry_of: UUID | None = None


@dataclass(frozen=True, kw_only=True)
class CandidateProgress(Record):
    """How one candidate goes."""

    model: str = ""
    status: str = ""


@dataclass(frozen=True, kw_only=True)
class SubtaskProgress(Record):
    """How one subtask goes."""

    name: str = ""
    status: str = ""
    candidates: tuple[CandidateProgress, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Progress(Record):
    """How a task goes: the whole of it, at one moment."""

    id: UUID
    status: str = ""
    subtasks: tuple[SubtaskProgress, ...] = ()

    @property
    def final(self) -> bool:
        """Whether it has ended, well or not."""
        return self.status in FINAL


@dataclass(frozen=True, kw_only=True)
class Ended(Record):
    """A task that ended. `event_id` is a place in the row of all ends: go on after it with `ends(after=event_id)`."""

    id: UUID
    event_id: str = ""
    status: str = ""
    source: str = ""
    finished_at: datetime | None = None
    error: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Cancelled(Record):
    """A task that is cancelled. `cancelled`: by this call; false where it was before."""

    id: UUID
    status: str = "cancelled"
    cancelled: bool = True


@dataclass(frozen=True, kw_only=True)
class File(Record):
    """A stored file that tasks can name."""

    sha256: str
    size: int = 0
    media_type: str = ""


@dataclass(frozen=True, kw_only=True)
class Stored(Record):
    """How many preferences are new, changed by this annotator, or were there already."""

    new: int = 0
    changed: int = 0
    known: int = 0


@dataclass(frozen=True, kw_only=True)
class Preferred(Record):
    """A preference that was stored; models by name, now that it is said."""

    subtask_id: UUID
    task_id: UUID
    capability: str = ""
    better: str = ""
    over: tuple[str, ...] = ()
    annotator: str | None = None
    stored: Stored | None = None


@dataclass(frozen=True, kw_only=True)
class Model(Record):
    """What a chat completion may name as its model, with what Bakeoff knows of it."""

    id: str
    owned_by: str = ""
    description: str | None = None
    capability: str | None = None
    backend: str | None = None
    status: str | None = None
    live: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Standing(Record):
    """One model of a leaderboard. Intervals are of 95 %; a rate is None where nothing was counted."""

    model: str
    strength: float | None = None
    strength_interval: tuple[float, ...] | None = None
    tried: int = 0
    done: int = 0
    judged: int = 0
    wins: int = 0
    win_rate: float | None = None
    win_rate_interval: tuple[float, ...] | None = None
    preferred: int = 0
    compared: int = 0
    failure_rate: float | None = None
    median_seconds: float | None = None
    p95_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Board(Record):
    """The models of a capability, the strongest first."""

    capability: str
    standings: tuple[Standing, ...] = ()
