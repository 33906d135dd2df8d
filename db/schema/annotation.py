"""The tables of annotation: sets of groups, and who scored which."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, SmallInteger, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from db.schema.base import HOT, NEW_ID, NOW, Base


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
