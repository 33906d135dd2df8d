"""The tables of the queue: tasks, subtasks, candidates, verdicts, and who works on them."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    SmallInteger,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from db.schema.base import HOT, HOTTEST, NEW_ID, NOW, XID8, Base, Lease, one_of
from db.states import FINAL_CANDIDATE, FINAL_SUBTASK, FINAL_TASK, CandidateState, Seen, SubtaskState, TaskState


class Task(Lease, Base):
    """One request from another system."""

    __tablename__ = "task"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=NEW_ID)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    # What the caller says
    request: Mapped[str] = mapped_column(server_default=text("''"))
    capability: Mapped[str | None]
    source: Mapped[str] = mapped_column(server_default=text("'sql'"))
    priority: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    options: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    attachments: Mapped[list[Any]] = mapped_column(server_default=text("'[]'"))
    idempotency_key: Mapped[str | None]
    run_at: Mapped[datetime | None]
    deadline: Mapped[datetime | None]
    traceparent: Mapped[str | None]  # where its trace began (W3C); what cannot be read is ignored (`db.tracing`)
    # What becomes of it
    status: Mapped[str] = mapped_column(server_default=text("'pending'"))
    plan: Mapped[dict[str, Any] | None]  # how its planner split it (`db.plan`)
    planned: Mapped[bool] = mapped_column(server_default=text("false"))  # steps of the plan are to become subtasks
    integration: Mapped[dict[str, Any] | None]  # who wrote the answer, from what, or why nobody did
    needs_review: Mapped[bool | None]
    cancel_requested_at: Mapped[datetime | None]
    retry_of: Mapped[UUID | None] = mapped_column(ForeignKey("task.id", ondelete="SET NULL"))
    answer: Mapped[str | None]
    artifacts: Mapped[list[Any] | None]
    winners: Mapped[dict[str, Any] | None]
    confidence: Mapped[float | None]
    fallback: Mapped[bool | None]
    error: Mapped[dict[str, Any] | None]
    finished_at: Mapped[datetime | None]
    finished_xid: Mapped[int | None] = mapped_column(XID8)

    __table_args__ = (
        CheckConstraint(one_of("status", TaskState), name="status"),
        CheckConstraint("request <> '' OR attachments <> '[]'", name="something_asked"),
        CheckConstraint("source <> '' AND length(source) <= 100", name="source"),
        CheckConstraint("priority BETWEEN -100 AND 100", name="priority"),
        CheckConstraint("jsonb_typeof(options) = 'object'", name="options_object"),
        CheckConstraint("jsonb_typeof(attachments) = 'array'", name="attachments_array"),
        CheckConstraint("length(idempotency_key) BETWEEN 1 AND 200", name="idempotency_key"),
        CheckConstraint("deadline > run_at", name="deadline_after_run_at"),
        CheckConstraint("run_at < '9000-01-01' AND deadline < '9000-01-01'", name="times"),  # Python ends at 9999
        CheckConstraint(f"({one_of('status', FINAL_TASK)}) = (finished_at IS NOT NULL)", name="final_finished"),
        CheckConstraint("(finished_at IS NULL) = (finished_xid IS NULL)", name="finished_xid"),
        CheckConstraint("status <> 'done' OR answer IS NOT NULL", name="done_answer"),
        CheckConstraint("status <> 'failed' OR error IS NOT NULL", name="failed_error"),
        CheckConstraint("(token IS NULL) = (lease_until IS NULL)", name="lease_whole"),
        CheckConstraint("token IS NULL OR status IN ('planning', 'integrating')", name="lease_state"),
        CheckConstraint("NOT planned OR (status = 'planning' AND plan IS NOT NULL AND token IS NULL)", name="planned"),
        CheckConstraint("attempt BETWEEN 0 AND 1000 AND max_attempts BETWEEN 1 AND 1000", name="attempts"),
        Index("ix_task_plans", "id", postgresql_where=text("plan IS NOT NULL")),
        Index("ix_task_planned", text("priority DESC"), "id", postgresql_where=text("planned")),
        Index("ix_task_thinking", "status", "id", postgresql_where=text("status IN ('planning', 'integrating')")),
        Index(
            "ix_task_pending_fair",
            text("priority DESC"),
            "source",
            "created_at",
            postgresql_where=text("status = 'pending' AND run_at IS NULL"),
        ),
        Index("ix_task_scheduled", "run_at", postgresql_where=text("status = 'pending' AND run_at IS NOT NULL")),
        Index("ix_task_unfinished_source", "source", postgresql_where=text("finished_at IS NULL")),
        Index(
            "ix_task_pending_deadline",
            "deadline",
            postgresql_where=text("status = 'pending' AND deadline IS NOT NULL"),
        ),
        Index("ix_task_status_id", "status", "id"),
        Index("ix_task_finished_at_id", "finished_at", "id"),
        Index("ix_task_finished_xid_id", "finished_xid", "id", postgresql_where=text("finished_xid IS NOT NULL")),
        Index("ix_task_source_id", "source", "id"),
        Index(
            "uq_task_source_idempotency_key",
            "source",
            "idempotency_key",
            unique=True,
            postgresql_where=text("idempotency_key IS NOT NULL"),
        ),
        Index("ix_task_retry_of", "retry_of", postgresql_where=text("retry_of IS NOT NULL")),
        Index(  # which tasks still need a stored file
            "ix_task_attachments",
            "attachments",
            postgresql_using="gin",
            postgresql_ops={"attachments": "jsonb_path_ops"},
            postgresql_where=text("attachments <> '[]'"),
        ),
        HOT,
    )


class Subtask(Lease, Base):
    """One step of a task: one capability, its inputs, the subtasks it needs.

    `inputs` is a list of references (`db.plan`): `{"request": true}`, `{"attachment": 0}`, `{"text": "..."}`,
    `{"output": "transcribe"}`, which is what the winner of the subtask of that name said.
    """

    __tablename__ = "subtask"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=NEW_ID)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    task_id: Mapped[UUID] = mapped_column(ForeignKey("task.id", ondelete="CASCADE"))
    position: Mapped[int] = mapped_column(SmallInteger)
    name: Mapped[str]
    capability: Mapped[str]
    inputs: Mapped[list[Any]]
    options: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    source: Mapped[str]
    priority: Mapped[int] = mapped_column(SmallInteger)
    input_key: Mapped[bytes | None] = mapped_column(LargeBinary)  # sha256 of what its models read (`db.cache`)
    candidates_wanted: Mapped[int] = mapped_column(SmallInteger)
    max_candidates: Mapped[int | None] = mapped_column(SmallInteger)  # its share of the task's `max_calls`
    note: Mapped[str | None]  # why it gets fewer candidates than were asked for
    quorum: Mapped[int] = mapped_column(SmallInteger, server_default=text("1"))
    grace: Mapped[float | None]  # seconds that it waits for more once the quorum is in
    min_confidence: Mapped[float | None]  # a verdict below it is done, and flagged
    judge: Mapped[str]  # who is asked now
    next_judges: Mapped[list[Any]] = mapped_column(server_default=text("'[]'"))  # names: who is asked where it fails
    failed_judges: Mapped[list[Any]] = mapped_column(server_default=text("'[]'"))  # [{"judge", "error"}], asked before
    expect: Mapped[dict[str, Any] | None]  # what an answer must hold (`worker.judges.expecting`)
    deadline: Mapped[datetime | None]
    status: Mapped[str]
    needs_review: Mapped[bool] = mapped_column(server_default=text("false"))
    sends: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))  # judge messages of its own
    error: Mapped[dict[str, Any] | None]
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint(one_of("status", SubtaskState), name="status"),
        CheckConstraint(f"({one_of('status', FINAL_SUBTASK)}) = (finished_at IS NOT NULL)", name="final_finished"),
        CheckConstraint("status <> 'failed' OR error IS NOT NULL", name="failed_error"),
        CheckConstraint("(token IS NULL) = (lease_until IS NULL)", name="lease_whole"),
        CheckConstraint("(token IS NOT NULL) = (status = 'judging')", name="lease_state"),
        CheckConstraint("attempt BETWEEN 0 AND 1000 AND max_attempts BETWEEN 1 AND 1000", name="attempts"),
        CheckConstraint("candidates_wanted BETWEEN 1 AND 64", name="candidates_wanted"),
        CheckConstraint("quorum BETWEEN 1 AND 64", name="quorum"),
        CheckConstraint("max_candidates BETWEEN 1 AND 64", name="max_candidates"),
        CheckConstraint("grace >= 0", name="grace"),
        CheckConstraint("min_confidence BETWEEN 0 AND 1", name="min_confidence"),
        CheckConstraint("jsonb_typeof(inputs) = 'array'", name="inputs_array"),
        CheckConstraint("jsonb_typeof(expect) = 'object'", name="expect_object"),
        CheckConstraint(
            "jsonb_typeof(next_judges) = 'array' AND jsonb_typeof(failed_judges) = 'array'", name="judges_arrays"
        ),
        UniqueConstraint("task_id", "position"),
        UniqueConstraint("task_id", "name"),
        Index(
            "ix_subtask_ready_fair",
            "capability",
            text("priority DESC"),
            "source",
            "created_at",
            postgresql_where=text("status = 'ready'"),
        ),
        Index("ix_subtask_unfinished", "task_id", postgresql_where=text("finished_at IS NULL")),
        Index("ix_subtask_running", "id", postgresql_where=text("status IN ('running', 'judging')")),
        Index("ix_subtask_grace", "id", postgresql_where=text("status = 'running' AND grace IS NOT NULL")),
        Index("ix_subtask_done", "capability", "finished_at", postgresql_where=text("status = 'done'")),  # the run log
        Index("ix_subtask_blocked", "id", postgresql_where=text("status = 'blocked'")),
        Index(
            "ix_subtask_deadline",
            "deadline",
            postgresql_where=text("finished_at IS NULL AND deadline IS NOT NULL"),
        ),
        HOT,
    )


class SubtaskNeed(Base):
    """An edge of a task's DAG: `subtask_id` reads the result of `needs_id`."""

    __tablename__ = "subtask_need"

    subtask_id: Mapped[UUID] = mapped_column(ForeignKey("subtask.id", ondelete="CASCADE"), primary_key=True)
    needs_id: Mapped[UUID] = mapped_column(ForeignKey("subtask.id", ondelete="CASCADE"), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)

    __table_args__ = (
        CheckConstraint("subtask_id <> needs_id", name="not_itself"),
        Index("ix_subtask_need_needs_id", "needs_id"),
    )


class Candidate(Lease, Base):
    """One model's attempt at one subtask. `rank` is the selectors' order, 0 first."""

    __tablename__ = "candidate"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=NEW_ID)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    subtask_id: Mapped[UUID] = mapped_column(ForeignKey("subtask.id", ondelete="CASCADE"))
    model: Mapped[str] = mapped_column(ForeignKey("model.name"))
    rank: Mapped[int] = mapped_column(SmallInteger)
    proposed_by: Mapped[list[Any]] = mapped_column(server_default=text("'[]'"))  # [{"selector": ..., "rank": ...}]
    isolate: Mapped[bool] = mapped_column(server_default=text("false"))  # travels alone: a neighbour of a lost child
    sends: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))  # messages that carried it
    in_chord: Mapped[bool] = mapped_column(server_default=text("false"))  # a chord's callback will call the judge
    status: Mapped[str] = mapped_column(server_default=text("'chosen'"))
    output: Mapped[str | None]
    detail: Mapped[dict[str, Any] | None]
    usage: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]  # {"kind", "code", "message"}
    seconds: Mapped[float | None]  # its share of its batch's time in the model
    revision: Mapped[str | None]
    cached: Mapped[bool] = mapped_column(server_default=text("false"))
    input_key: Mapped[bytes | None] = mapped_column(LargeBinary)  # its subtask's, where the model's outputs are cached
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint(one_of("status", CandidateState), name="status"),
        CheckConstraint(f"({one_of('status', FINAL_CANDIDATE)}) = (finished_at IS NOT NULL)", name="final_finished"),
        CheckConstraint("(token IS NULL) = (lease_until IS NULL)", name="lease_whole"),
        CheckConstraint("(token IS NOT NULL) = (status = 'running')", name="lease_state"),
        CheckConstraint(  # what the indexes say instead of the states: they must not name the state itself
            "(status = 'chosen') = (message_id IS NULL AND finished_at IS NULL)", name="chosen_waits"
        ),
        CheckConstraint("status <> 'sent' OR (message_id IS NOT NULL AND sent_at IS NOT NULL)", name="sent_message"),
        CheckConstraint("(status = 'done') = (output IS NOT NULL)", name="done_output"),
        CheckConstraint("status NOT IN ('error', 'dead') OR error IS NOT NULL", name="failed_error"),
        CheckConstraint("attempt BETWEEN 0 AND 1000 AND max_attempts BETWEEN 1 AND 1000", name="attempts"),
        CheckConstraint("rank >= 0", name="rank"),
        UniqueConstraint("subtask_id", "model"),
        UniqueConstraint("id", "subtask_id"),  # what a verdict's winner refers to
        Index(
            "ix_candidate_in_flight",
            "model",
            "message_id",
            postgresql_where=text("message_id IS NOT NULL AND finished_at IS NULL"),
        ),
        Index(
            "ix_candidate_failed",
            "model",
            "finished_at",
            postgresql_where=text("error IS NOT NULL AND finished_at IS NOT NULL"),
        ),
        Index(
            "ix_candidate_cache",
            "model",
            "input_key",
            postgresql_where=text("input_key IS NOT NULL AND output IS NOT NULL"),
        ),
        Index(
            "ix_candidate_chosen",
            "model",
            "not_before",
            postgresql_where=text("message_id IS NULL AND finished_at IS NULL"),
        ),
        HOTTEST,
    )


class Verdict(Base):
    """What a judge decided about a subtask: at most one, and its winner is one of the subtask's own candidates."""

    __tablename__ = "verdict"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=NEW_ID)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    subtask_id: Mapped[UUID] = mapped_column(ForeignKey("subtask.id", ondelete="CASCADE"), unique=True)
    winner_id: Mapped[UUID]
    ranking: Mapped[list[Any]]  # candidate ids, best first
    scores: Mapped[dict[str, Any]]  # candidate id → score, higher is better
    reason: Mapped[str]
    method: Mapped[str]  # `nll`, `choice`; `only_candidate` and `fallback` where no judge was asked
    judge: Mapped[str]  # name in the registry
    judge_model: Mapped[str | None]  # identity of the language model that was asked
    prompt_version: Mapped[str | None]
    orders: Mapped[list[Any]] = mapped_column(server_default=text("'[]'"))  # what was asked, in each order, and read
    seen: Mapped[str | None]  # of a subtask's files: what the judge had of them
    confidence: Mapped[float | None]
    fallback: Mapped[bool] = mapped_column(server_default=text("false"))
    seconds: Mapped[float]

    __table_args__ = (
        ForeignKeyConstraint(["winner_id", "subtask_id"], ["candidate.id", "candidate.subtask_id"], ondelete="CASCADE"),
        CheckConstraint("reason <> ''", name="reason"),
        CheckConstraint("confidence BETWEEN 0 AND 1", name="confidence"),
        CheckConstraint("seconds >= 0", name="seconds"),
        CheckConstraint(one_of("seen", Seen), name="seen"),
        Index("ix_verdict_created_at", "created_at"),
    )


class Preference(Base):
    """For this input, `better` is better than `worse`: from a human or a judge."""

    __tablename__ = "preference"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=NEW_ID)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    capability: Mapped[str]
    origin: Mapped[str]
    annotator: Mapped[str | None]
    subtask_id: Mapped[UUID | None] = mapped_column(ForeignKey("subtask.id", ondelete="SET NULL"))
    group_key: Mapped[str]  # what the pair shares: a subtask id, an image, an instruction; splits go by it
    input: Mapped[dict[str, Any]]
    better: Mapped[dict[str, Any]]  # {"text", "model"}
    worse: Mapped[dict[str, Any]]

    __table_args__ = (
        CheckConstraint("origin IN ('human', 'judge', 'import')", name="origin"),
        CheckConstraint("better <> worse", name="not_itself"),
        Index("ix_preference_capability_created_at", "capability", "created_at"),
        Index("ix_preference_subtask_id", "subtask_id", postgresql_where=text("subtask_id IS NOT NULL")),
        Index(  # few among the many that were imported
            "ix_preference_human_created_at",
            "capability",
            "created_at",
            postgresql_where=text("origin = 'human' AND subtask_id IS NOT NULL"),
        ),
    )


class Artifact(Base):
    """A blob of the content-addressed store: an attachment or an output too large for a row."""

    __tablename__ = "artifact"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    used_at: Mapped[datetime] = mapped_column(server_default=NOW)  # a task named it last; `prune` waits a day
    size: Mapped[int] = mapped_column(BigInteger)
    media_type: Mapped[str]

    __table_args__ = (
        CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name="sha256"),
        CheckConstraint("size >= 0", name="size"),
    )
