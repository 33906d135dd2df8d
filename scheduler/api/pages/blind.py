"""Which answer is best, asked blind: no model is named, no verdict shown, and the order is this visitor's own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Response
from sqlalchemy import Connection

from db.browsing import next_to_judge
from db.engine import transaction
from db.errors import InvalidRequest
from db.keys import Scope
from db.prefer import Contest, contest_of
from scheduler.api.pages.base import Form, Page, Posting, Reading, back, page
from scheduler.api.pages.files import File, files_of
from scheduler.api.pages.marking import Marked, marked
from scheduler.api.pages.tasks import id_of, spelled, subtask_of
from scheduler.api.services import Shared
from scheduler.preferring import prefer
from worker.inputs import words_of

router = APIRouter(route_class=Page, include_in_schema=False)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An output without its model. Those that say the same, word for word, are one.

    `token` stands for it in the form: ids of candidates are in the order in which models were chosen.
    """

    id: UUID
    token: str
    letter: str
    text: str
    marks: Marked | None


@router.get("/blind")
def next_blind(visitor: Reading, shared: Shared, after: str = "") -> Response:
    """To the newest subtask that the visitor has not judged; `after` is one that they left out."""
    visitor.caller.check_may(Scope.SUBMIT)
    with transaction(shared.engine) as connection:
        found = next_to_judge(
            connection, visitor.name, source=visitor.caller.source, before=id_of(after) if after else None
        )
    if found is None:
        return page("blind_none.html.j2", visitor, left_out=bool(after))
    return back(f"/tasks/{found.task_id}/blind/{found.id}")


@router.get("/tasks/{task_id}/blind/{subtask_id}")
def show_blind(task_id: str, subtask_id: str, visitor: Reading, shared: Shared, marks: str = "") -> Response:
    """The candidates of a subtask as answers A, B, C."""
    visitor.caller.check_may(Scope.SUBMIT)
    task, subtask = id_of(task_id), id_of(subtask_id)
    with transaction(shared.engine) as connection:
        found = subtask_of(connection, visitor, task, subtask)
        contest = contest_of(connection, subtask)
        answers = [] if contest is None else _answers(contest, subtask, visitor.name, with_marks=marks == "on")
        if contest is None or len(answers) < 2:
            raise InvalidRequest("This subtask has no two different outputs to compare, or not yet.")
        files = _files(connection, contest, task)
    return page(
        "blind.html.j2",
        visitor,
        task=task,
        subtask=subtask,
        capability=found["capability"],
        words=words_of(contest.inputs, contest.request, contest.results),
        files=files,
        answers=answers,
        marks=marks == "on",
    )


def _files(connection: Connection, contest: Contest, task: UUID) -> list[File]:
    """Those files of the task that this subtask's models read."""
    places = [reference["attachment"] for reference in contest.inputs if "attachment" in reference]
    given: Sequence[Mapping[str, Any]] = [contest.attachments[place] for place in places]
    return files_of(connection, given, lambda digest: f"/tasks/{task}/files/{digest}")


def _answers(contest: Contest, subtask: UUID, annotator: str, *, with_marks: bool) -> list[Answer]:
    """In an order made from subtask and annotator: the same at every look, another one for everybody else."""
    by_text = {one["output"]: UUID(one["id"]) for one in reversed(contest.candidates) if one["status"] == "done"}

    def token(text: str) -> str:
        return hashlib.sha256(f"{subtask}\n{annotator}\n{text}".encode()).hexdigest()

    texts = sorted(by_text, key=token)
    return [
        Answer(
            id=by_text[text],
            token=token(text),
            letter=letter,
            text=text,
            marks=marked(text, texts[0], letters=spelled(contest.capability))
            if with_marks and text != texts[0]
            else None,
        )
        for letter, text in zip(ascii_uppercase, texts, strict=False)
    ]


@router.post("/tasks/{task_id}/blind/{subtask_id}")
def store_blind(task_id: str, subtask_id: str, visitor: Posting, form: Form, shared: Shared) -> Response:
    """Store that an answer is better than all others that differ; then everything is shown."""
    task, subtask = id_of(task_id), id_of(subtask_id)
    with transaction(shared.engine) as connection:
        found = subtask_of(connection, visitor, task, subtask)
        contest = contest_of(connection, subtask)
        answers = [] if contest is None else _answers(contest, subtask, visitor.name, with_marks=False)
        chosen = next((answer.id for answer in answers if answer.token == form.get("better")), None)
        if chosen is None:
            raise InvalidRequest("better: no answer of this subtask; open the page again and choose there.")
        prefer(connection, str(subtask), str(chosen), annotator=visitor.name)
    return back(f"/tasks/{task}?{urlencode({'stored': subtask})}#step-{found['place']}")
