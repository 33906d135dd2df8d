"""What must hold after every step, whoever did what, and what must be reached in the end."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, text
from state_machine_world import World

#: Times that the machine moves, and a reference that goes with the task it names.
MOVING = {
    "task": {"created_at", "deadline", "run_at", "not_before", "sent_at", "retry_of"},
    "subtask": {"created_at", "deadline", "not_before", "sent_at"},
    "candidate": {"created_at", "finished_at", "not_before", "sent_at"},
    "verdict": {"created_at"},
}

Row = dict[str, Any]


@dataclass(frozen=True)
class Snapshot:
    """Every row, by id, as committed; read in one statement."""

    task: dict[str, Row]
    subtask: dict[str, Row]
    candidate: dict[str, Row]
    verdict: dict[str, Row]

    def subtasks_of(self, task: Row) -> list[Row]:
        found = [row for row in self.subtask.values() if row["task_id"] == task["id"]]
        return sorted(found, key=lambda row: row["position"])

    def unfinished(self) -> list[Row]:
        rows = (*self.task.values(), *self.subtask.values(), *self.candidate.values())
        return [row for row in rows if row["finished_at"] is None]

    def strays(self) -> list[Row]:
        """Unfinished candidates of finished subtasks: only a race may leave them, until the sweep."""
        return [
            row
            for row in self.candidate.values()
            if row["finished_at"] is None and self.subtask[row["subtask_id"]]["finished_at"] is not None
        ]


def look(engine: Engine) -> Snapshot:
    query = " UNION ALL ".join(f"SELECT '{table}' AS kind, to_jsonb(t) AS body FROM {table} AS t" for table in MOVING)
    rows: dict[str, dict[str, Row]] = defaultdict(dict)
    with engine.begin() as connection:
        for kind, body in connection.execute(text(query)):
            rows[kind][body["id"]] = body
    return Snapshot(**{table: rows[table] for table in MOVING})


def check(world: World) -> Snapshot:
    """Every invariant. Returns what was looked at."""
    now = look(world.engine)
    _nothing_open_vanished(world, now)
    _final_is_final(world, now)
    _one_verdict_of_a_done_candidate(now)
    _only_holders_have_tokens(world, now)
    _attempts_are_bounded(world, now)
    _what_was_stored_is_there(world, now)
    for task in now.task.values():
        _task_agrees_with_its_subtasks(task, now)
    _nothing_is_unfinished_below_the_finished(world, now)
    return now


def _nothing_is_unfinished_below_the_finished(world: World, now: Snapshot) -> None:
    """Only transactions that overlapped may leave strays, and only until the sweep."""
    strays = now.strays()
    assert world.raced or not strays, "a candidate is unfinished under a finished subtask, though nothing raced"
    world.raced = bool(world.opened or strays)


def _nothing_open_vanished(world: World, now: Snapshot) -> None:
    present = {*now.task, *now.subtask, *now.candidate}
    assert world.open_ids <= present, "something that was not final was deleted"
    world.open_ids = {row["id"] for row in now.unfinished()}


def _final_is_final(world: World, now: Snapshot) -> None:
    for kind, moving in MOVING.items():
        rows: dict[str, Row] = getattr(now, kind)
        for row in rows.values():
            if kind == "verdict" or row["finished_at"] is not None:
                seen = {name: value for name, value in row.items() if name not in moving}
                before = world.finals.setdefault((kind, UUID(row["id"])), seen)
                assert seen == before, f"a final {kind} changed: {_difference(before, seen)}"
    for kind, key in world.finals:
        if str(key) in getattr(now, kind):
            assert kind == "verdict" or getattr(now, kind)[str(key)]["finished_at"], f"a final {kind} came back to life"


def _difference(before: Row, after: Row) -> dict[str, tuple[Any, Any]]:
    return {name: (before[name], after[name]) for name in before if before[name] != after[name]}


def _one_verdict_of_a_done_candidate(now: Snapshot) -> None:
    judged = [verdict["subtask_id"] for verdict in now.verdict.values()]
    assert len(judged) == len(set(judged)), "two verdicts for a subtask"
    assert set(judged) == {key for key, row in now.subtask.items() if row["status"] == "done"}, "done is judged"
    for verdict in now.verdict.values():
        winner = now.candidate[verdict["winner_id"]]
        assert winner["status"] == "done", f"the winner is {winner['status']}"
        assert winner["subtask_id"] == verdict["subtask_id"], "the winner belongs to another subtask"


def _only_holders_have_tokens(world: World, now: Snapshot) -> None:
    tokens = {str(holder.token) for holder in (*world.held, *world.judging)}
    for rows, held in ((now.candidate, "running"), (now.subtask, "judging")):
        for row in rows.values():
            assert (row["token"] is not None) == (row["status"] == held) == (row["lease_until"] is not None)
            assert row["token"] is None or row["token"] in tokens, "a row is held by nobody"
    assert all(row["token"] is None for row in now.task.values())
    for row in now.candidate.values():
        judged = now.subtask[row["subtask_id"]]["status"] == "judging"
        assert row["finished_at"] or not judged, f"a subtask is judged while a candidate is {row['status']}"


def _attempts_are_bounded(world: World, now: Snapshot) -> None:
    for row in (*now.candidate.values(), *now.subtask.values()):
        assert row["attempt"] <= row["max_attempts"], f"{row['attempt']} of {row['max_attempts']} attempts"
    for row in now.candidate.values():
        assert row["attempt"] <= world.entries.get(UUID(row["id"]), 0), "an attempt was charged that never was"


def _what_was_stored_is_there(world: World, now: Snapshot) -> None:
    for row in now.candidate.values():
        said = world.outputs.get(UUID(row["id"]))
        if row["cached"]:
            assert row["attempt"] == 0 or said is None
            assert row["output"].startswith(row["model"]), "an answer came from another model's cache"
            continue
        assert (row["status"] == "done") == (said is not None), f"stored, but {row['status']}"
        assert row["output"] == said


def _task_agrees_with_its_subtasks(task: Row, now: Snapshot) -> None:
    subtasks = now.subtasks_of(task)
    states = [subtask["status"] for subtask in subtasks]
    if task["status"] == "done":
        assert set(states) == {"done"}, f"a task is done, its subtasks are {states}"
        assert task["answer"] == "\n\n".join(_winning_output(subtask, now) for subtask in subtasks)
    elif states and set(states) == {"done"}:
        assert task["status"] in {"running", "cancelled"}, f"every subtask is done, the task is {task['status']}"
    if task["finished_at"] is not None:
        assert all(subtask["finished_at"] for subtask in subtasks), f"a task is {task['status']} above {states}"


def _winning_output(subtask: Row, now: Snapshot) -> str:
    (verdict,) = (row for row in now.verdict.values() if row["subtask_id"] == subtask["id"])
    output: str = now.candidate[verdict["winner_id"]]["output"]
    return output


def check_all_is_final(now: Snapshot) -> None:
    """Liveness: nobody waits for anything any more, and what has every subtask done has its answer."""
    open_ones = [(row["id"], row["status"]) for row in now.unfinished()]
    assert not open_ones, f"unfinished after all: {open_ones}"
    for task in now.task.values():
        states = {subtask["status"] for subtask in now.subtasks_of(task)}
        assert (states == {"done"}) == (task["status"] == "done") or task["status"] == "cancelled"
