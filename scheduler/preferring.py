"""A person prefers one candidate of a subtask to others. The verdict stays what it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from db.errors import InvalidRequest, NotFound
from db.prefer import (
    Comparable,
    Contest,
    NewPreference,
    Side,
    Stored,
    comparable_subtasks,
    contest_of,
    store_preferences,
)
from worker.cleaning import clean_text
from worker.inputs import words_of


@dataclass(frozen=True, kw_only=True)
class Preferred:
    """What was said about a subtask: models by name."""

    subtask_id: UUID
    task_id: UUID
    capability: str
    better: str
    over: tuple[str, ...]
    annotator: str | None
    stored: Stored


def prefer(
    connection: Connection, target: str, better: str, over: Sequence[str] = (), *, annotator: str | None = None
) -> Preferred:
    """Store that one candidate is better than these others of its subtask, or than all others that are done.

    `target` is the id of a subtask, or of a task with one subtask to compare, or the beginning of either; candidates
    are model names or candidate ids. Raises `NotFound`, or `InvalidRequest` with what can be said instead.
    """
    subtask = _the_one(target, comparable_subtasks(connection, *range_of(target)))
    contest = contest_of(connection, subtask.id)
    if contest is None:
        raise NotFound(f"Subtask {subtask.id} has just been deleted.")
    best = _candidate(contest, better)
    losers = _named(contest, best, over) if over else _others(contest, best)
    annotator = clean_text(annotator) if annotator else None
    shared: dict[str, Any] = {
        "capability": contest.capability,
        "text": words_of(contest.inputs, contest.request, contest.results),
        "attachments": [
            contest.attachments[reference["attachment"]] for reference in contest.inputs if "attachment" in reference
        ],
        "origin": "human",
        "annotator": annotator,
        "subtask_id": subtask.id,
        "better": _side(best),
    }
    stored = store_preferences(connection, [NewPreference(worse=_side(loser), **shared) for loser in losers])
    return Preferred(
        subtask_id=subtask.id,
        task_id=subtask.task_id,
        capability=contest.capability,
        better=best["model"],
        over=tuple(loser["model"] for loser in losers),
        annotator=annotator,
        stored=stored,
    )


def range_of(target: str) -> tuple[UUID, UUID]:
    """The first and the last id that begin with these digits. Raises `InvalidRequest` where they are none."""
    plain = target.lower().replace("-", "")
    if not 4 <= len(plain) <= 32 or any(character not in "0123456789abcdef" for character in plain):
        raise InvalidRequest(f"{target!r} is no id of a subtask or task: it takes 4 to 32 hexadecimal digits of one.")
    return UUID(plain.ljust(32, "0")), UUID(plain.ljust(32, "f"))


def _the_one(target: str, found: Sequence[Comparable]) -> Comparable:
    if not found:
        raise NotFound(f"No subtask or task {target}; `bakeoff results` lists the latest tasks.")
    if len({subtask.task_id for subtask in found}) > 1:
        raise InvalidRequest(f"{target} is the beginning of several ids; give more of it.")
    worth = found if len(found) == 1 else [subtask for subtask in found if subtask.done > 1]
    if not worth:
        raise InvalidRequest(f"No subtask of task {found[0].task_id} has two outputs to compare.")
    if len(worth) > 1:
        names = "; ".join(f"{subtask.id} ({subtask.name})" for subtask in worth)
        raise InvalidRequest(f"Task {found[0].task_id} has several subtasks to compare; say which: {names}.")
    return worth[0]


def _candidate(contest: Contest, name: str) -> dict[str, Any]:
    """The candidate of a model name or candidate id, which must have an output."""
    for candidate in contest.candidates:
        if name == candidate["model"] or name.lower() == candidate["id"]:
            if candidate["status"] != "done":
                raise InvalidRequest(
                    f"{candidate['model']} has no output in this subtask ({candidate['status']}); only outputs compare."
                )
            return candidate
    there = ", ".join(candidate["model"] for candidate in contest.candidates) or "none yet"
    raise InvalidRequest(f"{name!r} is no candidate of this subtask; there are: {there}.")


def _named(contest: Contest, best: dict[str, Any], over: Sequence[str]) -> list[dict[str, Any]]:
    losers = {loser["id"]: loser for loser in (_candidate(contest, name) for name in over)}
    if best["id"] in losers:
        raise InvalidRequest(f"{best['model']} cannot be better than itself.")
    for loser in losers.values():
        if loser["output"] == best["output"]:
            raise InvalidRequest(
                f"{best['model']} and {loser['model']} said the same, word for word: neither is better."
            )
    return list(losers.values())


def _others(contest: Contest, best: dict[str, Any]) -> list[dict[str, Any]]:
    """Everybody else who is done, but for those who said the same."""
    done = [one for one in contest.candidates if one["status"] == "done" and one["id"] != best["id"]]
    losers = [one for one in done if one["output"] != best["output"]]
    if not losers:
        why = "the others said the same, word for word" if done else "no other candidate has an output"
        raise InvalidRequest(f"There is nothing that {best['model']} could be better than: {why}.")
    return losers


def _side(candidate: dict[str, Any]) -> Side:
    return Side(text=candidate["output"], model=candidate["model"])
