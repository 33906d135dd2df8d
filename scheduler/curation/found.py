"""What stages found out about a record, kept in its row (`found`), and read by the stages after them.

A stage reads only what stages before it wrote: a record that falls below a cut when more input comes, and passes it
later after all, asks the very same questions again, whose answers are there already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scheduler.curation.turns import turns_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from db.curation_records import Record
    from scheduler.curation.recipe import Input


def with_new_answers(stage: int, answers: Sequence[str]) -> dict[str, Any]:
    """The answers as a stage leaves them."""
    return {f"answers_{stage}": list(answers)}


def answers_of(record: Record, names: Input, before: int) -> list[str]:
    """The record's answers as they stand before a stage: what the last one chose, else what came in."""
    chosen = changed_answers(record.found, before)
    return chosen or [turn.answer for turn in turns_of(record.data, names)]


def changed_answers(found: Mapping[str, Any], stages: int) -> list[str] | None:
    """The answers that stages put in the place of those that came; None where none did."""
    return next((own for stage in range(stages - 1, -1, -1) if (own := found.get(f"answers_{stage}"))), None)
