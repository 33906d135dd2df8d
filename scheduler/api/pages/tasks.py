"""Tasks in a browser: the list with its search, and one task with its steps, candidates and verdicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse
from sqlalchemy import Connection

from db.browsing import Found, Said, prompts_of, readings_of, said_of, search_tasks
from db.endings import cancel_tasks
from db.engine import transaction
from db.errors import InvalidRequest, NotFound
from db.queries import task_story
from db.states import TaskState
from scheduler.api.attachments import read_attachment
from scheduler.api.events import LastEventId, task_events
from scheduler.api.pages.base import Page, Posting, Reading, Visitor, back, page
from scheduler.api.pages.dag import draw
from scheduler.api.pages.files import File, files_of
from scheduler.api.pages.marking import Marked, marked
from scheduler.api.pages.readings import readings
from scheduler.api.services import Shared, check_sees
from scheduler.api.tasks import retry as retry_over_http
from scheduler.preferring import range_of
from scheduler.situation import explain
from worker.cleaning import clean_text

router = APIRouter(prefix="/tasks", route_class=Page, include_in_schema=False)

LISTED = 50
MOST_WORDS = 200
OCR = "image-to-text/ocr"


@router.get("")
def list_tasks(
    visitor: Reading, shared: Shared, q: str = "", state: str = "", source: str = "", before: str = ""
) -> Response:
    """The latest tasks, or those that a search finds."""
    words = clean_text(q).strip()[:MOST_WORDS]
    status = TaskState(state) if state in set(TaskState) else None
    source = clean_text(source).strip()
    of = visitor.caller.source or source or None
    with transaction(shared.engine) as connection:
        found = _search(connection, words, status, of, id_of(before) if before else None)
    kept = {"q": words, "state": status or "", "source": source}
    return page(
        "tasks.html.j2",
        visitor,
        found=found,
        titles={task.id: title_of(task.request, task.attachments) for task in found.tasks},
        states=list(TaskState),
        kept=kept,
        narrowed=any(kept.values()),
        first=not before,
        older=_query(**kept, before=str(found.older)) if found.older else "",
        newest=_query(**kept),
        bound=visitor.caller.source,
    )


def _search(connection: Connection, words: str, status: str | None, source: str | None, before: UUID | None) -> Found:
    """By id where the words are the beginning of one; else by what requests and sources say."""
    narrowed: dict[str, Any] = {"limit": LISTED, "status": status, "source": source, "before": before}
    try:
        ids = range_of(words)
    except InvalidRequest:
        ids = None
    if ids is not None and (found := search_tasks(connection, ids=ids, **narrowed)).tasks:
        return found
    return search_tasks(connection, words=words, **narrowed)


def _query(**fields: str) -> str:
    return "?" + urlencode({name: value for name, value in fields.items() if value})


def id_of(said: str) -> UUID:
    """Raises `NotFound`: an address with another id leads nowhere."""
    try:
        return UUID(said)
    except ValueError:
        raise NotFound(f"{said[:60]!r} is no id of a task or subtask.") from None


def title_of(request: str, attachments: Sequence[Any]) -> str:
    """What a task is called: the beginning of its request, else the names of its files."""
    names = [str(one.get("name") or "a file") for one in attachments if isinstance(one, Mapping)]
    return " ".join(request.split()) or ", ".join(names)


@router.get("/{task_id}")
def show_task(
    task_id: str, visitor: Reading, shared: Shared, against: str = "", marks: str = "", stored: str = ""
) -> Response:
    """One task. `against`: the candidate that the others of its subtask are compared with, else the winner."""
    task = id_of(task_id)
    with transaction(shared.engine) as connection:
        check_sees(connection, visitor.caller, task)
        story = task_story(connection, task)
        orders = readings_of(connection, task)
        said = said_of(connection, [UUID(one["id"]) for one in story["subtasks"]])
        files = files_of(connection, story["attachments"], lambda digest: f"/tasks/{task}/files/{digest}")
        why = "" if story["status"] == TaskState.DONE else explain(connection, shared.settings, task)["why"]
    return task_page(
        visitor,
        story,
        orders=orders,
        said=said,
        files=files,
        why=why,
        against=against,
        marks=marks != "off",
        stored=stored,
    )


def task_page(
    visitor: Visitor,
    story: Mapping[str, Any],
    *,
    orders: Mapping[UUID, Sequence[Any]],
    said: Sequence[Said],
    files: Sequence[File],
    why: str,
    against: str = "",
    marks: bool = True,
    stored: str = "",
) -> Response:
    """The page of a task, whatever state it is in. `stored`: the subtask that the visitor has just judged."""
    subtasks = [
        {
            **subtask,
            "place": place,
            "marks": _marks(subtask, against) if marks else {},
            "against": _base(subtask, against),
            "readings": readings(orders.get(UUID(subtask["id"]), [])),
            "people": _people(said, subtask["id"], visitor),
            "comparable": len({one["output"] for one in subtask["candidates"] if one["status"] == "done"}) > 1,
        }
        for place, subtask in enumerate(story["subtasks"], start=1)
    ]
    return page(
        "task.html.j2",
        visitor,
        task=story,
        title=title_of(story["request"], story["attachments"]),
        files=files,
        why=why,
        final=TaskState(story["status"]).final,
        drawing=draw(story["subtasks"]) if len(story["subtasks"]) > 1 else None,
        subtasks=subtasks,
        marks=marks,
        stored=stored,
    )


def _base(subtask: Mapping[str, Any], against: str) -> str | None:
    """The candidate that the others are compared with: the one that was said, else the winner, else the first done."""
    done = [one["id"] for one in subtask["candidates"] if one["status"] == "done"]
    winner = (subtask["verdict"] or {}).get("winner_id")
    return next((one for one in (against, winner, *done) if one in done), None)


def _marks(subtask: Mapping[str, Any], against: str) -> dict[str, Marked]:
    """By candidate, its output with what differs; the one that they are compared with has none."""
    base = _base(subtask, against)
    done = {one["id"]: one["output"] for one in subtask["candidates"] if one["status"] == "done"}
    return {
        id_: marked(output, done[base], letters=spelled(subtask["capability"]))
        for id_, output in done.items()
        if base and id_ != base
    }


def spelled(capability: str) -> bool:
    """Whether outputs of this capability are compared letter by letter: readings of the same picture are."""
    return capability == OCR


def _people(said: Sequence[Said], subtask: str, visitor: Visitor) -> dict[str, Any]:
    """What people prefer in a subtask: the visitor's own choice, and how many prefer each model."""
    here = [one for one in said if str(one.subtask_id) == subtask]
    choices = {one.annotator: one.better for one in here}  # the last word of each
    return {"own": choices.get(visitor.name), "counts": Counter(filter(None, choices.values())).most_common()}


@router.get("/{task_id}/live")
async def live(task_id: str, visitor: Reading, shared: Shared, last_event_id: LastEventId = None) -> StreamingResponse:
    """The task's progress as events: a page reads itself again at each."""
    return await task_events(id_of(task_id), visitor.caller, shared, last_event_id)


@router.get("/{task_id}/asked/{subtask_id}")
def show_asked(task_id: str, subtask_id: str, visitor: Reading, shared: Shared) -> Response:
    """What the judge of a subtask was asked, word for word."""
    task, subtask = id_of(task_id), id_of(subtask_id)
    with transaction(shared.engine) as connection:
        found = subtask_of(connection, visitor, task, subtask)
        prompts = prompts_of(connection, subtask)
    return page("asked.html.j2", visitor, task=task, subtask=found, prompts=prompts)


def subtask_of(connection: Connection, visitor: Visitor, task: UUID, subtask: UUID) -> dict[str, Any]:
    """A subtask as the task's story has it. Raises `NotFound` where the task has none such, or is not theirs to see."""
    check_sees(connection, visitor.caller, task)
    for place, one in enumerate(task_story(connection, task)["subtasks"], start=1):
        if one["id"] == str(subtask):
            return {**one, "place": place}
    raise NotFound(f"No subtask {subtask} of task {task}.")


@router.get("/{task_id}/files/{sha256}")
def show_file(task_id: str, sha256: str, visitor: Reading, shared: Shared) -> StreamingResponse:
    """A file that the task names, as the API serves it."""
    task = id_of(task_id)
    with transaction(shared.engine) as connection:
        check_sees(connection, visitor.caller, task)
        named = [one.get("sha256") for one in task_story(connection, task)["attachments"] if isinstance(one, Mapping)]
    if sha256 not in named:
        raise NotFound(f"No file {sha256[:64]!r} in task {task}.")
    return read_attachment(sha256, visitor.caller, shared)


@router.post("/{task_id}/cancel")
def cancel(task_id: str, visitor: Posting, shared: Shared) -> Response:
    """Cancel a task and everything under it; one that has ended stays as it is."""
    task = id_of(task_id)
    with transaction(shared.engine) as connection:
        check_sees(connection, visitor.caller, task)
        cancel_tasks(connection, [task])
    return back(f"/tasks/{task}")


@router.post("/{task_id}/retry")
def retry(task_id: str, visitor: Posting, shared: Shared) -> Response:
    """Ask a finished task again, as a new one. A page that was old raises `Conflict`."""
    return back(f"/tasks/{retry_over_http(id_of(task_id), visitor.caller, shared, Response()).id}")
