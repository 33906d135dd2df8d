"""The client's operations without a network: what they ask for, step by step, and what they make of the answers."""

from __future__ import annotations

import ast
import base64
import io
import json
import sys
from collections.abc import Generator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from bakeoff_client import (
    BadSignature,
    BakeoffError,
    Client,
    Conflict,
    Fault,
    Invalid,
    NewTask,
    Refused,
    Task,
    TaskFailed,
    Unreachable,
    WaitTimedOut,
    verify_webhook,
)
from bakeoff_client.bodies import Body
from bakeoff_client.calling import Policy
from bakeoff_client.events import Parser
from bakeoff_client.operations import Operations
from bakeoff_client.steps import Answer, Done, Give, Open, Read, Send, Sleep, resume

from scheduler.api.webhooks import sign

PACKAGE = Path(__file__).resolve().parents[2] / "client" / "src" / "bakeoff_client"
TASK = UUID("01a214f1-90cd-7960-8bc8-7fed3b07c870")
GONE = httpx.ReadError("the connection broke")
NOT_THERE = httpx.ConnectError("nobody listens")


class Clock:
    """A time that goes on where an operation sleeps, and where the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def operations(clock: Clock) -> Operations:
    return Operations(Policy(url="http://x", retries=3, clock=clock))


def answer(document: Any, status: int = 200, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status=status, headers=named, content=json.dumps(document).encode())


def problem(status: int, code: str, **headers: str) -> Answer:
    return answer({"status": status, "code": code, "detail": f"It is {code}.", "request_id": "r7"}, status, **headers)


EVENTS = Answer(status=200, headers={"content-type": "text/event-stream"})


def event(status: str, id_: str = "1") -> bytes:
    return f"event: progress\nid: {id_}\ndata: {json.dumps({'id': str(TASK), 'status': status})}\n\n".encode()


def drive(flow: Generator[Any, Any, Any], replies: Sequence[Any], clock: Clock | None = None) -> tuple[Any, list[Any]]:
    """Run an operation on these replies; returns what it gave and returned, and every step that it asked for."""
    left, steps, given = list(replies), [], []
    step = resume(flow)
    while not isinstance(step, Done):
        if isinstance(step, Give):
            given.append(step.value)
            step = resume(flow)
            continue
        steps.append(step)
        if isinstance(step, Sleep):
            if clock is not None:
                clock.now += step.seconds
            step = resume(flow)
            continue
        reply = left.pop(0)
        if isinstance(step, Send) and step.body is not None and isinstance(reply, Answer):
            list(step.body.pieces())  # as who sends it would
        step = resume(flow, error=reply) if isinstance(reply, Exception) else resume(flow, reply)
    assert not left, f"nobody asked for {left}"
    return step.value if step.value is not None else given, steps


def sent(steps: Sequence[Any]) -> list[Send]:
    return [step for step in steps if isinstance(step, Send)]


# --- tried again, or not


def test_what_is_refused_is_sent_again_with_the_same_key_after_the_time_that_the_server_says(
    operations: Operations,
) -> None:
    replies = [problem(429, "backlog_full", retry_after="7"), NOT_THERE, GONE, answer({"id": str(TASK)}, 202)]

    accepted, steps = drive(operations.submit("hello"), replies)

    assert accepted.id == TASK
    assert len({step.headers["Idempotency-Key"] for step in sent(steps)}) == 1
    pauses = [step.seconds for step in steps if isinstance(step, Sleep)]
    assert pauses[0] == 7
    assert 0 < pauses[1] < pauses[2] < 2


def test_it_gives_up_after_so_many_times_with_everything_that_the_server_said(operations: Operations) -> None:
    with pytest.raises(Refused) as refused:
        drive(operations.submit("hello"), [problem(503, "unreachable", retry_after="5")] * 4)

    error = refused.value
    assert (error.code, error.status, error.detail, error.request_id, error.retry_after) == (
        "unreachable", 503, "It is unreachable.", "r7", 5.0,
    )  # fmt: skip


def test_a_server_that_says_in_an_hour_is_not_waited_for(operations: Operations) -> None:
    with pytest.raises(Refused, match="backlog_full"):
        drive(operations.get(TASK), [problem(429, "backlog_full", retry_after="3600")])


def test_what_would_be_done_twice_is_not_sent_again_once_it_may_have_arrived(operations: Operations) -> None:
    with pytest.raises(Unreachable, match="the connection broke"):
        drive(operations.retry(TASK), [GONE])
    new, _ = drive(operations.retry(TASK), [NOT_THERE, answer({"id": str(TASK), "retry_of": str(TASK)}, 202)])

    assert new.retry_of == TASK
    with pytest.raises(Refused):
        drive(operations.retry(TASK), [Answer(status=503, headers={}, content=b"upstream disconnected")])
    drive(operations.retry(TASK), [problem(429, "too_many_requests"), answer({"id": str(TASK)}, 202)])


def test_a_key_is_sent_without_the_end_of_its_line_and_a_strange_one_is_not_quoted() -> None:
    with Client("http://x", "bk_1\n") as client:
        assert client._policy.key == "bk_1"
    with pytest.raises(ValueError, match="api_key holds characters") as wrong:
        Client("http://x", "bk_1\nsecret")
    assert "secret" not in str(wrong.value)


@pytest.mark.parametrize(
    ("status", "kind"), [(400, Invalid), (409, Conflict), (413, Invalid), (422, Invalid), (500, Fault), (302, Fault)]
)
def test_what_cannot_work_is_not_tried_again(operations: Operations, status: int, kind: type[BakeoffError]) -> None:
    with pytest.raises(kind):
        drive(operations.submit("hello"), [problem(status, "wrong")])


def test_a_page_of_a_proxy_is_an_error_with_its_words(operations: Operations) -> None:
    page = Answer(status=418, headers={}, content=b"<h1>No\n tea</h1>")

    with pytest.raises(Fault, match="The server answered 418: <h1>No tea</h1>"):
        drive(operations.get(TASK), [page])


# --- files


def test_a_file_that_is_uploaded_again_begins_where_it_began(operations: Operations) -> None:
    file = io.BytesIO(b"skipped, kept")
    file.seek(9)
    name = "f" * 64
    body = Body(file)

    assert [b"".join(body.pieces()), b"".join(body.pieces())] == [b"kept", b"kept"]
    with pytest.raises(Fault, match=f"arrived as {name}"):  # what arrived is something else than what was sent
        drive(operations.upload(b"bytes"), [answer({"sha256": name}, 201)])


def test_a_stream_that_cannot_go_back_is_sent_once(operations: Operations) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    with pytest.raises(Unreachable):
        drive(operations.upload(Pipe(b"once")), [GONE])


def test_the_same_file_of_many_tasks_is_uploaded_once_and_named_each_time(
    operations: Operations, tmp_path: Path
) -> None:
    path = tmp_path / "scan.png"
    path.write_bytes(b"x")
    digest = Body(b"x")
    list(digest.pieces())
    stored = answer({"sha256": digest.sha256, "size": 1, "media_type": "image/png"}, 201)
    tasks = [NewTask(attachments=[path]), NewTask(attachments=[("other.png", path)])]
    accepted = answer({"tasks": [{"id": str(TASK)}, {"id": str(TASK)}]}, 202)

    _, steps = drive(operations.submit_many(tasks), [stored, accepted])

    named = [task["attachments"][0]["name"] for task in sent(steps)[1].json["tasks"]]
    assert (len(sent(steps)), named) == (2, ["scan.png", "other.png"])


# --- many


def test_those_that_found_the_backlog_full_are_tried_again_and_the_others_are_not(operations: Operations) -> None:
    full = {"problem": {"code": "backlog_full", "detail": "Full."}}
    wrong = {"problem": {"code": "invalid_request", "detail": "No."}}
    first = answer({"tasks": [{"id": str(TASK)}, full, wrong]}, 207)

    outcomes, steps = drive(operations.submit_many(["a", "b", "c"]), [first, answer({"tasks": [{"id": str(TASK)}]})])

    assert [task["request"] for task in sent(steps)[1].json["tasks"]] == ["b"]
    assert [(one.id, one.problem and one.problem.code) for one in outcomes] == [
        (TASK, None), (TASK, None), (None, "invalid_request"),
    ]  # fmt: skip
    keys = [[task["idempotency_key"] for task in step.json["tasks"]] for step in sent(steps)]
    assert keys[1] == [keys[0][1]]


def test_after_the_first_part_is_stored_a_failure_is_an_outcome_not_an_error(
    operations: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bakeoff_client.operations.MOST_AT_ONCE", 1)

    outcomes, _ = drive(operations.submit_many(["a", "b"]), [answer({"tasks": [{"id": str(TASK)}]}), *[NOT_THERE] * 4])

    assert [one.id for one in outcomes] == [TASK, None]
    assert outcomes[1].problem.code == "unreachable"
    with pytest.raises(Unreachable):
        drive(operations.submit_many(["a", "b"]), [NOT_THERE] * 4)


def test_no_failure_takes_away_the_ids_of_what_was_stored_before(
    operations: Operations, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("bakeoff_client.operations.MOST_AT_ONCE", 1)
    tasks: list[NewTask | str] = ["a", "b", NewTask(attachments=[tmp_path / "gone"]), NewTask(attachments=[b"x"]), "c"]
    stored = answer({"tasks": [{"id": str(TASK)}]})

    outcomes, _ = drive(operations.submit_many(tasks), [stored, problem(500, "fault"), problem(500, "fault"), stored])

    assert [one.id for one in outcomes] == [TASK, None, None, None, TASK]
    assert [one.problem.code for one in outcomes[1:4]] == ["fault", "invalid_request", "fault"]
    with pytest.raises(Fault):
        drive(operations.submit_many(tasks), [problem(500, "fault")])


# --- waiting


RUNNING = answer({"id": str(TASK), "status": "running", "subtasks": [], "of a newer server": 1})
ENDED = answer({"id": str(TASK), "status": "done", "answer": "Paris", "finished_at": "2026-01-01T00:00:00+00:00"})


def test_waiting_follows_the_events_until_the_last_and_then_reads_the_task(
    operations: Operations, clock: Clock
) -> None:
    replies = [RUNNING, EVENTS, b": keep-alive\n\n", event("running")[:9], event("running")[9:], event("done"), ENDED]

    task, steps = drive(operations.wait(TASK), replies, clock)

    assert (task.check(), task.finished_at) == ("Paris", datetime(2026, 1, 1, tzinfo=UTC))
    assert [step.path for step in steps if isinstance(step, Open)] == [f"/v1/tasks/{TASK}/events"]


@pytest.mark.parametrize(
    "opened",
    [[problem(405, "method_not_allowed")], [answer({})], [EVENTS, httpx.ReadTimeout("held back")], [EVENTS, None]],
    ids=["no such address", "no stream", "held back", "cut off"],
)
def test_where_events_do_not_get_through_it_asks_less_and_less_often(
    operations: Operations, clock: Clock, opened: list[Any]
) -> None:
    task, steps = drive(operations.wait(TASK), [RUNNING, *opened, RUNNING, RUNNING, RUNNING, ENDED], clock)

    pauses = [step.seconds for step in steps if isinstance(step, Sleep)]
    assert (task.final, pauses[1:]) == (True, sorted(pauses[1:]))


def test_a_server_that_restarts_is_waited_for_until_the_time_is_over(operations: Operations, clock: Clock) -> None:
    away = [NOT_THERE] * 9
    task, _ = drive(operations.wait(TASK, 600), [RUNNING, EVENTS, GONE, *away, ENDED], clock)

    assert task.final
    with pytest.raises(Unreachable):
        drive(operations.wait(TASK), [NOT_THERE] * 4, clock)


def test_a_wait_ends_at_its_time_and_no_read_may_outlast_it(operations: Operations, clock: Clock) -> None:
    with pytest.raises(WaitTimedOut, match="is running after 20 s") as timed_out:
        commented_on(operations.wait(TASK, 20), clock)

    assert (timed_out.value.task_id, 1020 <= clock.now <= 1021) == (TASK, True)


def commented_on(flow: Generator[Any, Any, Any], clock: Clock) -> None:
    """Wait for a task of which nothing is heard but a comment every 15 seconds, as the server has it."""
    began, patience = clock.now, 0.0
    step = resume(flow)
    while not isinstance(step, Done):
        if isinstance(step, Open):
            patience = step.patience
            step = resume(flow, EVENTS)
        elif isinstance(step, Read):
            assert patience <= began + 20 - clock.now + 1
            late = patience < 15
            clock.now += min(patience, 15)
            step = resume(flow, error=httpx.ReadTimeout("")) if late else resume(flow, b": keep-alive\n\n")
        else:
            clock.now += step.seconds if isinstance(step, Sleep) else 0
            step = resume(flow, RUNNING)


def test_without_time_it_looks_once(operations: Operations, clock: Clock) -> None:
    with pytest.raises(WaitTimedOut):
        drive(operations.wait(TASK, 0), [RUNNING], clock)


def test_a_failed_task_is_returned_and_says_why_when_it_is_asked_for_its_answer(operations: Operations) -> None:
    failed = answer({"id": str(TASK), "status": "failed", "error": {"code": "no_answer", "message": "All failed."}})

    task, _ = drive(operations.wait(TASK), [failed])

    with pytest.raises(TaskFailed, match="All failed") as raised:
        task.check()
    assert raised.value.code == "no_answer"


def test_one_task_is_not_taken_for_its_letters(operations: Operations) -> None:
    with pytest.raises(TypeError, match="wait takes one"):
        drive(operations.wait_all(str(TASK)), [])


# --- streams


def test_a_stream_comes_back_with_the_id_that_it_saw_last(operations: Operations) -> None:
    replies = [EVENTS, event("running", "a"), GONE, NOT_THERE, EVENTS, None, EVENTS, event("done", "b")]

    seen, steps = drive(operations.stream(TASK), replies)

    assert [progress.status for progress in seen] == ["running", "done"]
    ids = [step.headers.get("Last-Event-ID") for step in steps if isinstance(step, Open)]
    assert ids == [None, "a", "a", "a"]


def test_a_stream_that_never_says_anything_is_an_error(operations: Operations) -> None:
    with pytest.raises(Unreachable, match="ends again and again"):
        drive(operations.stream(TASK), [EVENTS, None] * 4)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_events_are_whole_wherever_they_are_cut(size: int, newline: str) -> None:
    text = ': hello\n\nid: 1\nevent: progress\ndata: {"a": "é"}\n\ndata:x\ndata:  y\n\nid: 2\n\n'
    raw, parser = text.replace("\n", newline).encode(), Parser()

    found = [one for at in range(0, len(raw), size) for one in parser.feed(raw[at : at + size])]
    found += parser.feed(b"\n" if newline == "\r" else b"")

    assert [(one.id, one.name, one.data) for one in found] == [
        ("1", "progress", '{"a": "é"}'),
        ("", "message", "x\n y"),
    ]


# --- records, settings, the package


def test_what_a_newer_server_says_breaks_nothing_and_is_still_there() -> None:
    task = Task.of({"id": str(TASK), "status": "meditating", "mood": {"calm": True}, "subtasks": [{"id": str(TASK)}]})

    assert (task.final, task.subtasks[0].candidates, task.document["mood"]) == (False, (), {"calm": True})


def test_url_and_key_come_from_the_environment_and_a_wrong_url_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAKEOFF_URL", "https://bakeoff.example.com/v1/")
    monkeypatch.setenv("BAKEOFF_API_KEY", "secret")

    with Client() as client:
        assert (client._policy.url, client._policy.key) == ("https://bakeoff.example.com", "secret")
        assert "secret" not in repr(client._policy)
    with pytest.raises(ValueError, match="BAKEOFF_URL"):
        Client("bakeoff.example.com")


def test_a_time_without_a_zone_is_refused_before_anything_is_sent(operations: Operations) -> None:
    with pytest.raises(ValueError, match="run_at"):
        drive(operations.submit("x", run_at=datetime(2026, 1, 1)), [])  # noqa: DTZ001 - that is the point


def test_it_imports_nothing_but_httpx() -> None:
    imported = set()
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            imported |= {name.partition(".")[0] for name in names}

    assert imported - sys.stdlib_module_names == {"bakeoff_client", "httpx"}


# --- webhooks


RAW = b"secret-that-nobody-else-knows"
SECRET = f"whsec_{base64.b64encode(RAW).decode()}"
BODY = json.dumps({"type": "task.done", "timestamp": "2026-01-01T00:00:00+00:00",
                   "data": {"task_id": str(TASK), "status": "done", "answer": "Paris"}}).encode()  # fmt: skip


def delivery(moment: int = 1000, signature: str | None = None) -> dict[str, str]:
    signed = sign(RAW, "d1", moment, BODY) if signature is None else signature
    return {"Webhook-Id": "d1", "Webhook-Timestamp": str(moment), "Webhook-Signature": signed}


def test_a_delivery_that_the_server_signed_is_believed() -> None:
    said = verify_webhook(SECRET, delivery(), BODY, now=1200)
    rotated = verify_webhook(["whsec_b2xk", SECRET], delivery(signature=f"v1,b2xk {sign(RAW, 'd1', 1000, BODY)}"), BODY,
                             now=800)  # fmt: skip

    assert (said.id, said.type, said.data.answer, said.data.task_id) == ("d1", "task.done", "Paris", TASK)
    assert rotated.id == "d1"


@pytest.mark.parametrize(
    ("headers", "body", "now"),
    [
        (delivery(), BODY + b" ", 1000),
        (delivery(), BODY, 1301),
        (delivery(), BODY, 699),
        (delivery(signature="v1,AAAA"), BODY, 1000),
        (delivery(signature="v1a," + sign(RAW, "d1", 1000, BODY)[3:]), BODY, 1000),
        (delivery(signature="v1,not base64"), BODY, 1000),
        ({**delivery(), "Webhook-Timestamp": "1e3"}, BODY, 1000),
        ({**delivery(), "Webhook-Id": "d2"}, BODY, 1000),
        ({}, BODY, 1000),
    ],
    ids=["changed", "old", "early", "forged", "other version", "no base64", "other time", "other id", "unsigned"],
)
def test_any_other_delivery_is_not(headers: dict[str, str], body: bytes, now: float) -> None:
    with pytest.raises(BadSignature):
        verify_webhook(SECRET, headers, body, now=now)


def test_who_heard_no_end_yet_comes_back_to_where_the_stream_began(operations: Operations) -> None:
    flow = operations.ends()
    resume(flow)
    resume(flow, EVENTS)
    resume(flow, b"id: 7-begin\n\n: keep-alive\n\n")
    resume(flow)  # the stream is over
    opened = resume(flow)

    assert isinstance(opened, Open)
    assert opened.headers["Last-Event-ID"] == "7-begin"
