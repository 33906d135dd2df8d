"""Every operation of the API, once: generators that both clients run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256 as sha256_of
from itertools import count
from typing import Any, TypeAlias
from urllib.parse import quote
from uuid import UUID, uuid4

import httpx

from bakeoff_client import records as r
from bakeoff_client.bodies import Attachment, Body, Source, name_of
from bakeoff_client.calling import Policy, call, delay_of, unreachable
from bakeoff_client.errors import BakeoffError, Fault, Invalid, Refused, Unreachable, WaitTimedOut
from bakeoff_client.events import Event, events, until_final
from bakeoff_client.steps import Answer, Flow, Give, Open, Read, Send, Sleep, Stream

MOST_AT_ONCE = 500  # tasks of one request
MOST_BYTES = 4_000_000  # of its JSON
FIRST_POLL, LONGEST_POLL = 0.5, 5.0  # seconds between two looks, where events do not get through
FILE_PATIENCE = 60.0  # seconds that a piece of a file may take

#: Something that names a task.
TaskLike: TypeAlias = UUID | str | r.Accepted | r.Task | r.Result | r.Outcome | r.Ended


@dataclass(frozen=True, kw_only=True)
class NewTask:
    """A request, as its caller states it; for `submit_many`. The fields are those of `submit`."""

    request: str = ""
    capability: str | None = None
    attachments: Sequence[Attachment] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None
    priority: int = 0
    run_at: datetime | None = None
    deadline: datetime | None = None
    idempotency_key: str | None = None


class Operations:
    """The operations on one server."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def submit(
        self,
        request: str = "",
        *,
        capability: str | None = None,
        attachments: Sequence[Attachment] = (),
        options: Mapping[str, Any] | None = None,
        source: str | None = None,
        priority: int = 0,
        run_at: datetime | None = None,
        deadline: datetime | None = None,
        idempotency_key: str | None = None,
    ) -> Flow[r.Accepted]:
        """Store a task, and return its id once it is committed. Files are uploaded first.

        `attachments` are paths, bytes, files open for reading bytes, what `upload` returned, or `(name, one of those)`.
        The same `idempotency_key` and request of a source is one task; left out, each call is one, however often it
        must be sent.
        """
        task = NewTask(
            request=request,
            capability=capability,
            attachments=attachments,
            options=options or {},
            source=source,
            priority=priority,
            run_at=run_at,
            deadline=deadline,
        )
        document = yield from self._document(task, {})
        headers = {"Idempotency-Key": idempotency_key or str(uuid4())}
        answer = yield from self._call("POST", "/v1/tasks", json=document, headers=headers)
        return r.Accepted.of(answer.document)

    def submit_many(self, tasks: Iterable[NewTask | str]) -> Flow[tuple[r.Outcome, ...]]:
        """Store many tasks, some hundreds per request. What is wrong is refused one by one, the others are stored.

        Returns an outcome for each, in order: its `id`, or its `problem`. Once some are stored, an error of the server
        or the network is the outcome of what it kept from being stored; before that, it is raised. One without an
        answer may have been stored all the same: tasks with an `idempotency_key` may be sent again.
        """
        outcomes: list[r.Outcome] = []
        waiting: list[tuple[int, dict[str, Any]]] = []
        uploaded: dict[str, r.File] = {}
        size = 0
        for number, task in enumerate(tasks):
            new = NewTask(request=task) if isinstance(task, str) else task
            outcomes.append(r.Outcome())
            try:
                document = yield from self._document(new, uploaded)
            except (BakeoffError, OSError, ValueError) as error:
                outcomes[number] = _refused(error, outcomes)
                continue
            document["idempotency_key"] = new.idempotency_key or str(uuid4())
            length = len(json.dumps(document))
            if waiting and (len(waiting) >= MOST_AT_ONCE or size + length > MOST_BYTES):
                yield from self._store(waiting, outcomes)
                waiting, size = [], 0
            waiting.append((number, document))
            size += length
        yield from self._store(waiting, outcomes)
        return tuple(outcomes)

    def _store(self, waiting: Sequence[tuple[int, dict[str, Any]]], outcomes: list[r.Outcome]) -> Flow[None]:
        """Store some; those whose source has a full backlog are tried again."""
        for attempt in count(1):
            if not waiting:
                return
            batch = {"tasks": [document for _, document in waiting]}
            try:
                answer = yield from self._call("POST", "/v1/task-batches", json=batch)
            except BakeoffError as error:
                for number, _ in waiting:
                    outcomes[number] = _refused(error, outcomes)
                return
            for (number, _), document in zip(waiting, answer.document["tasks"], strict=True):
                outcomes[number] = r.Outcome.of(document)
            if attempt > self._policy.retries:
                return
            waiting = [one for one in waiting if _is_for_later(outcomes[one[0]])]
            if waiting:
                yield Sleep(delay_of(attempt))

    def upload(self, source: Source) -> Flow[r.File]:
        """Store a file, piece by piece; a task then names it. The same bytes are stored once."""
        body = Body(source)
        answer = yield from self._call("POST", "/v1/attachments", body=body)
        stored = r.File.of(answer.document)
        if stored.sha256 != body.sha256:
            raise Fault(f"The file arrived as {stored.sha256}, and left as {body.sha256}.", code="damaged")
        return stored

    def download(self, sha256: str) -> Stream[bytes]:
        """The bytes of a stored file, piece by piece; checked against their name at the end."""
        digest = sha256_of()
        try:
            answer: Answer = yield Open(path=f"/v1/attachments/{quote(sha256, safe='')}", patience=FILE_PATIENCE)
            if not answer.ok:
                raise answer.error
            while (piece := (yield Read())) is not None:
                digest.update(piece)
                yield Give(piece)
        except httpx.TransportError as error:
            raise unreachable(error, self._policy) from None
        if digest.hexdigest() != sha256:
            raise Fault(f"The file {sha256} arrived as {digest.hexdigest()}.", code="damaged")

    def get(self, task: TaskLike) -> Flow[r.Task]:
        """Everything that is known of a task."""
        answer = yield from self._call("GET", _path(task))
        return r.Task.of(answer.document)

    def list(
        self,
        *,
        status: str | None = None,
        source: str | None = None,
        since: datetime | None = None,
        page: int = 100,
    ) -> Stream[r.Result]:
        """Tasks, the newest first; pages are read as you come to them, so stop when you have enough."""
        query = {"status": status, "source": source, "since": _moment("since", since), "limit": page}
        cursor: str | None = None
        while True:
            asked = {name: value for name, value in {**query, "cursor": cursor}.items() if value is not None}
            answer = yield from self._call("GET", "/v1/tasks", query=asked)
            for document in answer.document["tasks"]:
                yield Give(r.Result.of(document))
            cursor = answer.document.get("next")
            if cursor is None:
                return

    def wait(self, task: TaskLike, timeout: float | None = None) -> Flow[r.Task]:
        """A task once it has ended, well or not: `check()` gives its answer or raises.

        `timeout`: seconds, then `WaitTimedOut`; the task goes on. Follows the task's events, and asks from time to time
        where they do not get through. A server that is away is waited for until then; without a timeout a bounded
        number of times.
        """
        began = self._policy.clock()

        def left() -> float:
            return float("inf") if timeout is None else began + timeout - self._policy.clock()

        path, listens, polls, failures, status = _path(task), True, 0, 0, "unknown"
        while True:
            delay = 0.0
            try:
                answer: Answer = yield from self._once(Send(method="GET", path=path))
                found, failures = r.Task.of(answer.document), 0
                if found.final:
                    return found
                status = found.status
                if listens and left() > 0:
                    heard = yield from until_final(self._policy, f"{path}/events", left)
                    listens = heard != "nothing"
                    delay = 0.0 if heard == "end" else FIRST_POLL
                else:
                    delay = min(FIRST_POLL * 1.5**polls, LONGEST_POLL)
                    polls += 1
            except (Refused, Unreachable) as error:
                failures += 1
                if timeout is None and failures > self._policy.retries:
                    raise
                delay = delay_of(failures, error)
            if left() <= 0 and delay:
                sentence = f"Task {_id(task)} is {status} after {timeout:g} s; it goes on. Wait again, or cancel it."
                raise WaitTimedOut(sentence, task_id=_id(task))
            yield Sleep(max(0.0, min(delay, left())))

    def wait_all(self, tasks: Iterable[TaskLike], timeout: float | None = None) -> Flow[tuple[r.Task, ...]]:
        """All of these, in their order, once the last one has ended. `timeout` is for all together."""
        began = self._policy.clock()
        ended = []
        for task in list_of(tasks):
            left = None if timeout is None else max(0.0, began + timeout - self._policy.clock())
            ended.append((yield from self.wait(task, left)))
        return tuple(ended)

    def stream(self, task: TaskLike) -> Stream[r.Progress]:
        """How a task goes: once now, and at each change, the last one with its final status."""
        path = f"{_path(task)}/events"
        yield from events(self._policy, path, _progress, is_last=lambda progress: progress.final)

    def ends(self, *, after: str | None = None) -> Stream[r.Ended]:
        """Every task that ends, in the order of commits, without an end.

        `after`: the `event_id` of the last one that you have handled; then none is missed and none comes twice. Left
        out: from now on.
        """
        yield from events(self._policy, "/v1/events", _ended, last=after)

    def why(self, task: TaskLike) -> Flow[str]:
        """What a task waits for, in one sentence."""
        answer = yield from self._call("GET", f"{_path(task)}/why")
        return str(answer.document["why"])

    def cancel(self, task: TaskLike) -> Flow[r.Cancelled]:
        """Cancel a task and everything under it. Raises `Conflict` where a result came first."""
        answer = yield from self._call("POST", f"{_path(task)}/cancel")
        return r.Cancelled.of(answer.document)

    def retry(self, task: TaskLike) -> Flow[r.Accepted]:
        """Ask a finished task again, as a new one. Raises `Conflict` for one that goes on."""
        answer = yield from self._call("POST", f"{_path(task)}/retry", repeatable=False)
        return r.Accepted.of(answer.document)

    def prefer(
        self, subtask: TaskLike, better: str, over: Sequence[str] = (), *, annotator: str | None = None
    ) -> Flow[r.Preferred]:
        """Say that a candidate is better: its id or its model. `over`: than these; left out, than all that are done.

        `subtask` is the id of a subtask, or a task with one subtask to compare.
        """
        said = {"subtask": str(_id(subtask)), "better": better, "over": [*over]}
        document = said if annotator is None else {**said, "annotator": annotator}
        answer = yield from self._call("POST", "/v1/preferences", json=document)
        return r.Preferred.of(answer.document)

    def models(self) -> Flow[tuple[r.Model, ...]]:
        """What a chat completion may name as its model, and which of them are live."""
        answer = yield from self._call("GET", "/v1/models")
        return tuple(r.Model.of(one) for one in answer.document["data"])

    def leaderboard(self, capability: str | None = None, *, days: float | None = None) -> Flow[tuple[r.Board, ...]]:
        """Which models win, per capability; of the last `days` only, where given."""
        asked = {"capability": capability, "days": days}
        query = {name: value for name, value in asked.items() if value is not None}
        answer = yield from self._call("GET", "/v1/leaderboard", query=query)
        return tuple(r.Board.of(one) for one in answer.document["boards"])

    def _call(self, method: str, path: str, **more: Any) -> Flow[Answer]:
        return call(self._policy, Send(method=method, path=path, **more))

    def _once(self, request: Send) -> Flow[Answer]:
        """One attempt, for who has a clock of their own."""
        try:
            answer: Answer = yield request
        except httpx.TransportError as error:
            raise unreachable(error, self._policy) from None
        if not answer.ok:
            raise answer.error
        return answer

    def _document(self, task: NewTask, uploaded: dict[str, r.File]) -> Flow[dict[str, Any]]:
        """What is posted of a task, its files uploaded; those of `uploaded` are not sent again."""
        said = {
            "request": task.request,
            "capability": task.capability,
            "source": task.source,
            "priority": task.priority,
            "options": {**task.options},
            "run_at": _moment("run_at", task.run_at),
            "deadline": _moment("deadline", task.deadline),
        }
        files = []
        for number, item in enumerate(task.attachments, 1):
            name, source = item if isinstance(item, tuple) else (None, item)
            if isinstance(source, r.File):
                file = source
            else:
                name = name or name_of(source, number)
                file = yield from self._uploaded(source, uploaded)
            files.append({"sha256": file.sha256} | ({} if name is None else {"name": name}))
        return {name: value for name, value in said.items() if value is not None} | {"attachments": files}

    def _uploaded(self, source: Source, uploaded: dict[str, r.File]) -> Flow[r.File]:
        """Upload a file, unless the same bytes or path went up for a task before it."""
        if hasattr(source, "read"):
            return (yield from self.upload(source))
        place = sha256_of(source).hexdigest() if isinstance(source, bytes) else str(source)
        if place not in uploaded:
            uploaded[place] = yield from self.upload(source)
        return uploaded[place]


def list_of(tasks: Iterable[TaskLike]) -> Sequence[TaskLike]:
    """Several tasks. One alone, as text, would be taken for its letters."""
    if isinstance(tasks, str):
        raise TypeError("wait_all takes several tasks; wait takes one.")
    return [*tasks]


def _progress(event: Event) -> r.Progress:
    return r.Progress.of(event.document)


def _ended(event: Event) -> r.Ended:
    return r.Ended.of({**event.document, "event_id": event.id})


def _refused(error: Exception, outcomes: Sequence[r.Outcome]) -> r.Outcome:
    """The outcome that an error is. Raised is what may be wrong with the server, while nothing is stored."""
    if not isinstance(error, BakeoffError):  # a file or a time of the task's own
        error = Invalid(str(error))
    elif not isinstance(error, Invalid) and not any(outcome.id for outcome in outcomes):
        raise error
    return r.Outcome(problem=r.Problem(code=error.code, detail=error.detail))


def _is_for_later(outcome: r.Outcome) -> bool:
    return outcome.problem is not None and outcome.problem.code == "backlog_full"


def _path(task: TaskLike) -> str:
    return f"/v1/tasks/{_id(task)}"


def _id(task: TaskLike) -> UUID:
    """The id of a task. Raises `Invalid` for one of many that was not stored, `ValueError` for what is no id."""
    if isinstance(task, r.Outcome) and task.id is None:
        problem = task.problem or r.Problem(detail="It was not stored.")
        raise Invalid(problem.detail, code=problem.code)
    found = task.task_id if isinstance(task, r.Result) else task if isinstance(task, UUID | str) else task.id
    return found if isinstance(found, UUID) else UUID(str(found))


def _moment(name: str, moment: datetime | None) -> str | None:
    if moment is not None and moment.tzinfo is None:
        raise ValueError(f"{name} = {moment} has no time zone; give it one, such as datetime.now(UTC).")
    return None if moment is None else moment.isoformat()
