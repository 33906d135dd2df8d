"""The client package against a real API and real workers: the same tests, blocking and asynchronous."""

from __future__ import annotations

import asyncio
import inspect
import json
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from bakeoff_client import (
    AsyncClient,
    Client,
    Conflict,
    Invalid,
    NewTask,
    NotFound,
    Refused,
    Unauthorized,
    Unreachable,
    WaitTimedOut,
    verify_webhook,
)

from db.engine import transaction
from db.keys import Scope
from db.webhooks import add_webhook
from tests.conftest import Installation, make_installation, wait_until
from tests.integration.api_parts import make_key, start_api
from tests.integration.test_api_webhooks import Receiver

pytestmark = [pytest.mark.integration, pytest.mark.api]

PNG = b"\x89PNG\r\n\x1a\n" + b"\x00" * 40
MISSING = "01900000-0000-7000-8000-000000000000"
TEXT = "text-generation"


class Awaited:
    """An asynchronous client with the manners of a blocking one: what is written for one runs on both."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._client = AsyncClient(*arguments, **named)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def call(*arguments: Any, **named: Any) -> Any:
            made = method(*arguments, **named)
            return self._loop.run_until_complete(made) if inspect.isawaitable(made) else self._each(made)

        return call

    def _each(self, values: Any) -> Iterator[Any]:
        end = object()
        try:
            while (value := self._loop.run_until_complete(anext(values, end))) is not end:
                yield value
        finally:
            self._loop.run_until_complete(values.aclose())

    def close(self) -> None:
        self._loop.run_until_complete(self._client.aclose())
        self._loop.close()


@pytest.fixture(scope="module")
def served(
    servers: tuple[str, str], template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Installation, str, str]]:
    """A running installation, its API, and a key of the source `shop`."""
    for made in make_installation(servers, tmp_path_factory.mktemp("client"), template):
        made.start_all()
        url = start_api(
            made,
            api_keep_alive="0.2",
            max_attachment_bytes="3000000",
            webhook_hosts="127.0.0.1",
            webhook_networks="127.0.0.0/8",
        )
        yield made, url, make_key(made, Scope.SUBMIT, Scope.READ, source="shop")


@pytest.fixture(params=[Client, Awaited], ids=["blocking", "asynchronous"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def client(served: tuple[Installation, str, str], kind: Any) -> Iterator[Any]:
    made = kind(served[1], served[2])
    yield made
    made.close()


def soon(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def test_the_answer_is_waited_for(client: Any) -> None:
    task = client.wait(client.submit("hello", capability=TEXT, options={"candidates": 3}), timeout=60)

    assert task.check() == "beta says more: hello"
    (only,) = task.subtasks
    assert (only.verdict.winner, only.winner.output) == ("beta", task.answer)
    assert {one.model for one in only.candidates} == {"alpha", "beta", "gamma"}
    assert client.get(str(task.id)) == task
    assert "done" in client.why(task)


def test_a_stream_of_progress_ends_with_the_task(client: Any) -> None:
    task = client.submit("slow", capability=TEXT)

    seen = list(client.stream(task))

    assert seen[-1].status == "done"
    assert {one.status for one in seen[-1].subtasks[0].candidates} == {"done"}
    assert [one.status for one in client.stream(task)] == ["done"]


def test_a_wait_that_ends_too_early_says_so_and_the_task_goes_on(client: Any) -> None:
    task = client.submit("later", capability=TEXT, run_at=soon(3600))

    with pytest.raises(WaitTimedOut, match="is pending after 1 s") as timed_out:
        client.wait(task, timeout=1)
    assert (timed_out.value.task_id, client.get(task).status) == (task.id, "pending")
    assert client.cancel(task).cancelled
    assert not client.cancel(task).cancelled


def test_many_are_stored_and_what_is_wrong_is_named(client: Any, tmp_path: Path) -> None:
    picture = tmp_path / "scan.png"
    picture.write_bytes(PNG)
    tasks = [
        NewTask(request="one", capability=TEXT),
        NewTask(request="two", capability="mind-reading"),
        NewTask(capability="image-to-text/ocr", attachments=[picture]),
        NewTask(capability="image-to-text/ocr", attachments=[("mine.png", PNG)]),
        NewTask(request="far too large", attachments=[bytes(4_000_000)]),
    ]

    one, two, three, four, five = client.submit_many(tasks)

    assert [done.answer for done in client.wait_all([one, three, four], timeout=60)] == [
        "beta says more: one",
        "read the picture scan.png",
        "read the picture mine.png",
    ]
    assert (two.problem.code, five.problem.code) == ("invalid_request", "too_large")
    with pytest.raises(Invalid, match="mind-reading"):
        client.wait_all([two])


def test_a_file_goes_up_and_comes_down_piece_by_piece(client: Any, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    large.write_bytes(PNG + bytes(1_300_000))
    stored = client.upload(large)
    with large.open("rb") as file:
        again = client.upload(file)

    assert (stored.sha256, stored.size) == (again.sha256, len(PNG) + 1_300_000)
    client.submit(capability="image-to-text/ocr", attachments=[("a.png", stored)])  # what it names, a source may read
    assert b"".join(client.download(stored.sha256)) == large.read_bytes()
    with pytest.raises(NotFound):
        list(client.download("0" * 64))


def test_the_same_key_is_one_task_and_with_another_request_a_conflict(client: Any, kind: Any) -> None:
    key = f"order {kind.__name__}"
    first = client.submit("once", capability=TEXT, idempotency_key=key)

    assert client.submit("once", capability=TEXT, idempotency_key=key).id == first.id
    with pytest.raises(Conflict) as conflict:
        client.submit("twice", capability=TEXT, idempotency_key=key)
    assert (conflict.value.code, conflict.value.status) == ("idempotency_conflict", 409)


def test_the_list_is_read_page_by_page(client: Any) -> None:
    ids = [outcome.id for outcome in client.submit_many([NewTask(request=f"{n}", capability=TEXT) for n in range(5)])]

    seen = []
    for row in client.list(page=2, source="shop"):
        seen.append(row.task_id)
        if len(seen) == 5:
            break

    assert seen == ids[::-1]
    client.wait_all(ids, timeout=60)
    assert {row.status for row in client.list(status="done")} == {"done"}


def test_every_end_is_heard_once_also_by_who_comes_back(client: Any) -> None:
    ends = client.ends(after="0-00000000-0000-0000-0000-000000000000")
    first = client.wait(client.submit("to be heard", capability=TEXT), timeout=60)
    heard = next(one for one in ends if one.id == first.id)
    second = client.wait(client.submit("to be heard later", capability=TEXT), timeout=60)

    after = next(iter(client.ends(after=heard.event_id)))

    assert (heard.status, heard.source, after.id) == ("done", "shop", second.id)


def test_a_finished_task_is_asked_again_and_people_know_better(client: Any) -> None:
    task = client.wait(client.submit("judge me", capability=TEXT), timeout=60)

    said = client.prefer(task, "alpha", ["beta"], annotator="ann")
    new = client.retry(task)

    assert (said.better, said.over, said.stored.new) == ("alpha", ("beta",), 1)
    assert (new.retry_of, client.wait(new, timeout=60).retry_of) == (task.id, task.id)
    (board,) = client.leaderboard(TEXT)
    assert {standing.model for standing in board.standings} >= {"alpha", "beta"}
    assert {"bakeoff", "alpha"} <= {model.id for model in client.models()}


def test_errors_carry_what_the_server_said(served: tuple[Installation, str, str], client: Any, kind: Any) -> None:
    with pytest.raises(Invalid) as invalid:
        client.submit("x", capability="mind-reading")
    assert (invalid.value.code, invalid.value.status) == ("invalid_request", 422)
    assert invalid.value.request_id
    with pytest.raises(Invalid) as malformed:
        client.submit("x", priority=1000)
    assert malformed.value.errors[0].pointer == "body/priority"
    with pytest.raises(NotFound):
        client.get(MISSING)
    with pytest.raises(NotFound):
        client.wait(MISSING, timeout=5)
    with pytest.raises(NotFound):
        next(client.stream(MISSING))
    stranger = kind(served[1], "bk_wrong", retries=0)
    with pytest.raises(Unauthorized):
        stranger.models()
    stranger.close()
    nobody = kind("http://127.0.0.1:9", retries=1)
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9"):
        nobody.models()
    nobody.close()


@pytest.fixture(scope="module")
def small(served: tuple[Installation, str, str]) -> tuple[str, str]:
    """An API that stores one open task per source, and a key for every source."""
    return start_api(served[0], "small", max_backlog="1"), make_key(served[0], Scope.ADMIN)


def test_a_full_backlog_is_waited_for(small: tuple[str, str], kind: Any) -> None:
    source = f"small {kind.__name__}"
    hurried, patient = (kind(*small, retries=retries) for retries in (0, 5))
    hurried.cancel(
        hurried.submit("ends", capability=TEXT, source=source)
    )  # a source of which something ends waits less
    held = hurried.submit("first", capability=TEXT, source=source, run_at=soon(3600))
    with pytest.raises(Refused) as refused:
        hurried.submit("second", capability=TEXT, source=source)
    assert (refused.value.code, refused.value.status) == ("backlog_full", 429)
    assert refused.value.retry_after

    with Client(*small) as other:
        freed = threading.Timer(1, other.cancel, [held])
        freed.start()
        assert patient.submit("second", capability=TEXT, source=source).id
        freed.join()
    hurried.close()
    patient.close()


def test_an_api_that_is_killed_and_comes_back_loses_no_wait(
    served: tuple[Installation, str, str], kind: Any, free_port: int
) -> None:
    installation, _, key = served
    installation.start("fragile", "api", "--port", str(free_port))
    client = kind(f"http://127.0.0.1:{free_port}", key, retries=20)
    task = client.submit("slow", capability=TEXT, run_at=soon(3))
    installation.stop("fragile", 9)

    back = threading.Timer(1, lambda: installation.start("fragile", "api", "--port", str(free_port)))
    back.start()
    assert client.wait(task, timeout=120).check() == "beta says more: slow"
    back.join()
    client.close()
    installation.stop("fragile")


@pytest.fixture
def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def test_a_client_of_your_own_is_used_and_left_open(served: tuple[Installation, str, str]) -> None:
    asked: list[str] = []
    with httpx.Client(event_hooks={"request": [lambda request: asked.append(request.url.path)]}, timeout=60) as http:
        with Client(served[1], served[2], http=http) as client:
            client.models()
        assert not http.is_closed

    assert asked == ["/v1/models"]


def test_a_real_delivery_is_verified(served: tuple[Installation, str, str]) -> None:
    installation, url, key = served
    receiver, engine = Receiver(), installation.engine()
    with transaction(engine) as connection:
        _, secret = add_webhook(connection, receiver.url, "shop")
    engine.dispose()
    with Client(url, key) as client:
        task = client.wait(client.submit("post me", capability=TEXT), timeout=60)

    def delivered() -> list[Any]:
        return [one for one in receiver.got if json.loads(one[1])["data"]["task_id"] == str(task.id)]

    wait_until(delivered, 60, installation.logs)
    receiver.close()
    said = verify_webhook(secret, *delivered()[0])
    assert (said.type, said.data.answer) == ("task.done", task.answer)
