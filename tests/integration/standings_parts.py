"""Verdicts and preferences as rows, for tests of what is made of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

HERE = "text-generation"
ERROR = json.dumps({"kind": "model", "code": "x", "message": "It failed."})


def judged(
    connection: Connection,
    outputs: dict[str, str | None],
    ranking: Sequence[str] = (),
    *,
    capability: str = HERE,
    age: float = 0.0,
    fallback: bool = False,
    failed_as: str = "error",
    **candidate: Any,
) -> UUID:
    """A subtask that ended `age` seconds ago: outputs by model (None: failed), ranking by model; none: it failed."""
    task = connection.execute(text("INSERT INTO task (request) VALUES ('x') RETURNING id")).scalar_one()
    subtask: UUID = connection.execute(
        text(
            "INSERT INTO subtask (task_id, position, name, capability, inputs, source, priority, candidates_wanted, judge, "
            "status, error, finished_at) VALUES (:task, 0, 'it', :capability, '[]', 's', 0, 3, 'j', :status, CAST(:error AS jsonb), "
            "now() - make_interval(secs => :age)) RETURNING id"
        ),
        {"task": task, "capability": capability, "age": age, "status": "done" if ranking else "failed", "error": None if ranking else ERROR},
    ).scalar_one()  # fmt: skip
    ids = {}
    for rank, (model, output) in enumerate(outputs.items()):
        ids[model] = connection.execute(
            text(
                "INSERT INTO candidate (subtask_id, model, rank, status, output, error, seconds, cached, usage, finished_at) VALUES "
                "(:subtask, :model, :rank, :status, :output, CAST(:error AS jsonb), :seconds, :cached, CAST(:usage AS jsonb), "
                "now() - make_interval(secs => :age)) RETURNING id"
            ),
            {"subtask": subtask, "model": model, "rank": rank, "output": output, "age": age,
             "status": failed_as if output is None else "done", "error": ERROR if output is None else None,
             "seconds": candidate.get("seconds", 1.0), "cached": candidate.get("cached", False),
             "usage": json.dumps(candidate.get("usage"))},
        ).scalar_one()  # fmt: skip
    if ranking:
        order = [str(ids[model]) for model in ranking]
        connection.execute(
            text(
                "INSERT INTO verdict (subtask_id, winner_id, ranking, scores, reason, method, judge, fallback, seconds) "
                "VALUES (:subtask, :winner, CAST(:ranking AS jsonb), '{}', 'so', 'scripted', 'j', :fallback, 0)"
            ),
            {"subtask": subtask, "winner": order[0], "ranking": json.dumps(order), "fallback": fallback},
        )
    return subtask


def preferred(
    connection: Connection,
    better: str,
    worse: str,
    origin: str = "human",
    subtask: UUID | None = None,
    age: float = 0,
    capability: str = HERE,
) -> None:
    connection.execute(
        text(
            "INSERT INTO preference (capability, origin, subtask_id, group_key, input, better, worse, created_at) VALUES "
            "(:capability, :origin, :subtask, 'g', '{}', CAST(:better AS jsonb), CAST(:worse AS jsonb), "
            "now() - make_interval(secs => :age))"
        ),
        {"capability": capability, "origin": origin, "subtask": subtask, "age": age, "better": json.dumps({"text": "b", "model": better}),
         "worse": json.dumps({"text": "w", "model": worse})},
    )  # fmt: skip
