"""The schema. SQLAlchemy models; constraints make wrong states impossible.

Task (plan, integrate), subtask (judge) and candidate (run) carry the same lease columns (`Lease`); one claim, renew,
finish and give-back serves all of them (`db.lease`). `source` and `priority` of a subtask are copies of its task's,
which never change, so that dispatch reads one index.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    DateTime,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    MetaData,
    SmallInteger,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import UUID as PGUUID
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import UserDefinedType

from db.states import (
    FINAL_CANDIDATE,
    FINAL_SUBTASK,
    FINAL_TASK,
    CandidateState,
    ModelState,
    Seen,
    SubtaskState,
    TaskState,
    WorkerState,
)


class XID8(UserDefinedType[int]):
    """A 64-bit transaction id, which never wraps (Postgres 13 and newer)."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Name of the type in SQL."""
        return "xid8"


ischema_names["xid8"] = XID8  # so that `alembic check` reads the column back

TIME = DateTime(timezone=True)
NOW = text("now()")
NEW_ID = text("bakeoff_uuid7()")
#: Updated rows find room on their own page. Where no index names a column that changes, not even in its condition, no
#: index is written either (HOT): a claim changes a candidate's state, token and lease, so no index of it says `status`.
HOT = {"postgresql_with": {"fillfactor": 70}}
HOTTEST = {"postgresql_with": {"fillfactor": 50}}  # three versions of a candidate in a minute, outputs and all


def _one_of(column: str, states: Any) -> str:
    return f"{column} IN ({', '.join(repr(str(state)) for state in sorted(states))})"


class Base(DeclarativeBase):
    """Names every constraint, so that a migration can name it too."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own hook
        datetime: TIME,
        UUID: PGUUID(as_uuid=True),
        str: Text,
        dict[str, Any]: JSONB,
        list[Any]: JSONB,
        list[str]: ARRAY(Text),
        float: Float(53),
    }


class Lease:
    """Who works on a row, until when, and how often it was tried.

    `attempt` counts entries into a model, a judge, a planner; `token` fences late writes: it is set exactly while
    somebody works on the row.
    """

    attempt: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    max_attempts: Mapped[int] = mapped_column(SmallInteger, server_default=text("3"))
    token: Mapped[UUID | None]
    lease_until: Mapped[datetime | None]
    not_before: Mapped[datetime | None]
    sent_at: Mapped[datetime | None]
    message_id: Mapped[UUID | None]


class Breaker:
    """Whether a model or a judge is asked at all, and what its last calls were like (`db.breaker`)."""

    status: Mapped[str] = mapped_column(server_default=text("'active'"))
    reason: Mapped[str | None]
    consecutive_failures: Mapped[int] = mapped_column(server_default=text("0"))  # calls, not inputs
    suspended_at: Mapped[datetime | None]
    probe_after: Mapped[datetime | None]


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
        CheckConstraint(_one_of("status", TaskState), name="status"),
        CheckConstraint("request <> '' OR attachments <> '[]'", name="something_asked"),
        CheckConstraint("source <> '' AND length(source) <= 100", name="source"),
        CheckConstraint("priority BETWEEN -100 AND 100", name="priority"),
        CheckConstraint("jsonb_typeof(options) = 'object'", name="options_object"),
        CheckConstraint("jsonb_typeof(attachments) = 'array'", name="attachments_array"),
        CheckConstraint("length(idempotency_key) BETWEEN 1 AND 200", name="idempotency_key"),
        CheckConstraint("deadline > run_at", name="deadline_after_run_at"),
        CheckConstraint("run_at < '9000-01-01' AND deadline < '9000-01-01'", name="times"),  # Python ends at 9999
        CheckConstraint(f"({_one_of('status', FINAL_TASK)}) = (finished_at IS NOT NULL)", name="final_finished"),
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
        CheckConstraint(_one_of("status", SubtaskState), name="status"),
        CheckConstraint(f"({_one_of('status', FINAL_SUBTASK)}) = (finished_at IS NOT NULL)", name="final_finished"),
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


class Model(Breaker, Base):
    """What the scheduler knows of a model of the registry. Rows are never deleted: candidates name them."""

    __tablename__ = "model"

    name: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    capability: Mapped[str]
    backend: Mapped[str]
    source: Mapped[str]
    queue: Mapped[str]
    revision: Mapped[str] = mapped_column(server_default=text("''"))
    facts: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))  # the registry's `metadata`
    seconds_per_item: Mapped[float | None]  # moving average over batches

    __table_args__ = (
        CheckConstraint(_one_of("status", ModelState), name="status"),
        CheckConstraint("status <> 'suspended' OR reason IS NOT NULL", name="suspended_reason"),
        CheckConstraint("consecutive_failures >= 0", name="consecutive_failures"),
    )


class Judge(Breaker, Base):
    """What the scheduler knows of a judge of the registry."""

    __tablename__ = "judge"

    name: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)

    __table_args__ = (
        CheckConstraint(_one_of("status", ModelState), name="status"),
        CheckConstraint("status <> 'suspended' OR reason IS NOT NULL", name="suspended_reason"),
        CheckConstraint("consecutive_failures >= 0", name="consecutive_failures"),
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
        CheckConstraint(_one_of("status", CandidateState), name="status"),
        CheckConstraint(f"({_one_of('status', FINAL_CANDIDATE)}) = (finished_at IS NOT NULL)", name="final_finished"),
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
        CheckConstraint(_one_of("seen", Seen), name="seen"),
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


class Worker(Base):
    """What a worker process said last. `queues` is what it consumes."""

    __tablename__ = "worker"

    name: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    host: Mapped[str]
    pid: Mapped[int]
    queues: Mapped[list[str]]
    status: Mapped[str]
    error: Mapped[str | None]
    heartbeat_at: Mapped[datetime] = mapped_column(server_default=NOW)

    __table_args__ = (
        CheckConstraint(_one_of("status", WorkerState), name="status"),
        Index("ix_worker_heartbeat_at", "heartbeat_at"),
    )


class AnnotationSet(Base):
    """Groups of items that people score, and the criteria by which they do."""

    __tablename__ = "annotation_set"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=NEW_ID)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    name: Mapped[str] = mapped_column(unique=True)
    criteria: Mapped[dict[str, Any]]  # the whole file: what a score means stays what it was

    __table_args__ = (CheckConstraint("length(name) BETWEEN 1 AND 100", name="name"),)


class AnnotationGroup(Base):
    """Items that share an input, shown to one annotator at a time."""

    __tablename__ = "annotation_group"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=NEW_ID)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    set_id: Mapped[UUID] = mapped_column(ForeignKey("annotation_set.id", ondelete="CASCADE"))
    position: Mapped[int]
    key: Mapped[str]  # the file's id, or the subtask's
    field: Mapped[str]  # what the items are called in a file: `questions`, `answers`
    input: Mapped[dict[str, Any]]  # {"text", "image", "captions", "attachments"}
    items: Mapped[list[Any]]  # [{"said": a text or a list of texts, "models": [...]}]
    wanted: Mapped[int] = mapped_column(SmallInteger)  # annotators
    taken: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))  # of its annotations, open and done

    __table_args__ = (
        CheckConstraint("jsonb_typeof(items) = 'array'", name="items_array"),
        CheckConstraint("wanted BETWEEN 1 AND 100 AND taken >= 0", name="counts"),
        UniqueConstraint("set_id", "key"),
        UniqueConstraint("set_id", "position"),
        HOT,
    )


class Annotation(Base):
    """What one annotator says of one group's items; `open` until every item has its scores."""

    __tablename__ = "annotation"

    group_id: Mapped[UUID] = mapped_column(ForeignKey("annotation_group.id", ondelete="CASCADE"), primary_key=True)
    annotator: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    seed: Mapped[int] = mapped_column(BigInteger)  # of the order in which this annotator sees the items
    status: Mapped[str] = mapped_column(server_default=text("'open'"))
    assigned_at: Mapped[datetime] = mapped_column(server_default=NOW)
    scores: Mapped[list[Any] | None]  # per item, in the group's own order: {criterion: 0 to 1}, or null
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("status IN ('open', 'done', 'skipped', 'lapsed')", name="status"),
        CheckConstraint("(status = 'done') = (finished_at IS NOT NULL)", name="done_finished"),
        CheckConstraint("status <> 'done' OR scores IS NOT NULL", name="done_scores"),
        CheckConstraint("length(annotator) BETWEEN 1 AND 100", name="annotator"),
        CheckConstraint("jsonb_typeof(scores) = 'array'", name="scores_array"),
        Index("ix_annotation_annotator", "annotator", "assigned_at"),
    )


class ApiKey(Base):
    """A key of the HTTP API. What it opens is `scopes`; the key itself is stored nowhere (`db.keys`)."""

    __tablename__ = "api_key"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=NEW_ID)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    name: Mapped[str]
    scopes: Mapped[list[str]]
    source: Mapped[str | None]  # the only one whose tasks it writes and sees; null: every one
    digest: Mapped[bytes] = mapped_column(LargeBinary)  # sha256 of the secret half
    last_used_at: Mapped[datetime | None]  # to about a minute: not written per request
    revoked_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("length(name) BETWEEN 1 AND 100", name="name"),
        CheckConstraint("scopes <> '{}' AND scopes <@ ARRAY['submit', 'read', 'admin']", name="scopes"),
        CheckConstraint("length(source) BETWEEN 1 AND 100", name="source"),
        CheckConstraint("octet_length(digest) = 32", name="digest"),
    )


class Webhook(Base):
    """An address that hears of every task that ends, or of those of one source."""

    __tablename__ = "webhook"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=NEW_ID)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    url: Mapped[str]
    source: Mapped[str | None]
    secret: Mapped[bytes] = mapped_column(LargeBinary)  # what deliveries are signed with, so not a hash
    seen_xid: Mapped[int] = mapped_column(BigInteger)  # up to where in the row of ended tasks (`db.watching.Place`)
    seen_task: Mapped[UUID]
    stopped_at: Mapped[datetime | None]
    reason: Mapped[str | None]  # why it was stopped

    __table_args__ = (
        CheckConstraint("length(url) BETWEEN 1 AND 2000", name="url"),
        CheckConstraint("length(source) BETWEEN 1 AND 100", name="source"),
        CheckConstraint("(stopped_at IS NULL) = (reason IS NULL)", name="stopped_reason"),
    )


class WebhookDelivery(Base):
    """One task's end on its way to one webhook. `not_before` is the lease too: who sends it moves it on first."""

    __tablename__ = "webhook_delivery"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=NEW_ID)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    webhook_id: Mapped[UUID] = mapped_column(ForeignKey("webhook.id", ondelete="CASCADE"))
    task_id: Mapped[UUID] = mapped_column(ForeignKey("task.id", ondelete="CASCADE"))
    status: Mapped[str] = mapped_column(server_default=text("'pending'"))
    attempt: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    not_before: Mapped[datetime] = mapped_column(server_default=NOW)
    answered: Mapped[int | None] = mapped_column(SmallInteger)  # the HTTP status of the last attempt
    error: Mapped[str | None]  # why the last attempt did not succeed
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("status IN ('pending', 'delivered', 'failed')", name="status"),
        CheckConstraint("(status = 'pending') = (finished_at IS NULL)", name="pending_open"),
        CheckConstraint("attempt >= 0", name="attempt"),
        UniqueConstraint("webhook_id", "task_id"),
        Index("ix_webhook_delivery_due", "not_before", postgresql_where=text("status = 'pending'")),
        Index("ix_webhook_delivery_task_id", "task_id"),
        HOT,
    )
