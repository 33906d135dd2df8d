"""Clients that mean harm: bodies, heads and connections that no honest one sends, and files that say where to look."""

from __future__ import annotations

import gzip
import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from db.keys import Scope
from tests.conftest import Installation, make_installation, wait_until
from tests.integration.api_parts import client_of, is_problem, make_key, post, start_api

pytestmark = [pytest.mark.integration, pytest.mark.api]

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def served(
    servers: tuple[str, str], template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Installation, str, str]]:
    """An installation, its API, and a key that may do everything."""
    for made in make_installation(servers, tmp_path_factory.mktemp("hostile"), template):
        key = make_key(made, Scope.ADMIN, name="hostile")
        url = start_api(made, api_max_per_key="12", api_receive_seconds="1", api_keep_alive="0.2")
        yield made, url, key


@pytest.fixture
def client(served: tuple[Installation, str, str]) -> Iterator[httpx.Client]:
    with client_of(served[1], served[2]) as made:
        yield made


def connection(url: str) -> socket.socket:
    where = httpx.URL(url)
    return socket.create_connection((where.host, where.port or 0), timeout=60)


# --- bodies


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 1_000_000,
        b'{"request": "a", "options": ' + b'{"params": ' * 5000 + b"1" + b"}" * 5001,
        b'{"request": "a", "options": {"params": {"a": ' + b"[" * 200 + b"]" * 200 + b"}}}",
        b'{"request": "a", "priority": ' + b"9" * 100_000 + b"}",
        b'{"request": "a", "options": {"params": {"a": 1e999}}}',
        b'{"request": "a", "options": {"params": {"a": NaN}}}',
        b'{"request": "a\xff"}',
        b'{"request": "\\ud800"}',
        b'{"request": "a", "source": "a\\u0000b"}',
    ],
    ids=["brackets", "objects", "deep", "long number", "infinite", "no number", "no UTF-8", "half a character", "zero"],
)
def test_a_body_that_is_an_attack_is_a_problem_of_its_sender(client: httpx.Client, body: bytes) -> None:
    refused = client.post("/v1/tasks", content=body, headers=JSON)

    assert refused.status_code in {400, 422}, refused.text
    is_problem(refused, refused.status_code, refused.json()["code"])
    assert client.get("/healthz").status_code == 200


def test_of_a_key_that_stands_twice_the_last_is_read_and_checked(client: httpx.Client) -> None:
    body = b'{"request": "a", "capability": "text-generation", "priority": 1, "priority": 1000}'

    is_problem(client.post("/v1/tasks", content=body, headers=JSON), 400, "malformed")


def test_a_packed_body_is_never_unpacked(client: httpx.Client) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    for encoding in ("gzip", "deflate", "br"):
        refused = client.post("/v1/tasks", content=bomb, headers={**JSON, "Content-Encoding": encoding})
        is_problem(refused, 400, "malformed")
    stored = client.post("/v1/attachments", content=bomb, headers={"Content-Encoding": "gzip"})

    assert (stored.status_code, stored.json()["size"]) == (201, len(bomb))
    task = post(client, "read it", capability="image-to-text/ocr", attachments=[{"sha256": stored.json()["sha256"]}])
    is_problem(task, 422, "invalid_request")


@pytest.mark.parametrize(
    "words",
    [
        "' OR 1=1 --",
        "'; DROP TABLE task; --",
        "%",
        "_",
        "\\",
        "\uff41\uff50\uff49",
        "\u0430pi",
        "API",
        "api ",
        "ap\u0131",
    ],
)
def test_a_source_is_compared_as_it_is(served: tuple[Installation, str, str], client: httpx.Client, words: str) -> None:
    """Neither SQL, nor a pattern, nor a name that looks like another reaches another source's tasks."""
    post(client, "of the api", source="api")
    with client_of(served[1], make_key(served[0], Scope.READ, Scope.SUBMIT, source=words, name=words)) as own:
        assert own.get("/v1/tasks").json()["tasks"] == []
        mine = post(own, "mine")
        assert [row["source"] for row in own.get("/v1/tasks", params={"source": words}).json()["tasks"]] == [words]
        is_problem(own.get("/v1/tasks", params={"source": "api"}), 403, "forbidden")
    assert mine.status_code == 202
    assert client.get("/v1/tasks", params={"source": words}).json()["tasks"][0]["task_id"] == mine.json()["id"]


# --- patterns and schemas


@pytest.mark.parametrize(
    "check",
    [
        {"check": "matches", "pattern": "(a+)+$" + "(?=b)"},
        {"check": "matches", "pattern": "((a{1,1000}){1,1000}){1,1000}"},
        {"check": "json", "schema": {"$ref": "http://127.0.0.1:9/schema.json"}},
        {"check": "json", "schema": {"$ref": "file:///etc/passwd"}},
        {"check": "json", "schema": {"$ref": "#"}},
        {"check": "json", "schema": {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}},
        {"check": "json", "schema": {"$dynamicRef": "http://127.0.0.1:9/"}},
        {"check": "json", "schema": {"allOf": [{"anyOf": [{}] * 100}] * 100}},
        {"check": "json", "schema": {"patternProperties": {"(a+)+$": {}}}},
    ],
)
def test_an_expectation_that_would_keep_a_judge_busy_or_fetch_anything_is_refused(
    client: httpx.Client, check: dict[str, Any]
) -> None:
    is_problem(post(client, options={"expect": {"checks": [check]}}), 422, "invalid_request")


def test_a_pattern_that_backtracks_elsewhere_is_searched_in_linear_time(client: httpx.Client) -> None:
    from worker.judges.patterns import found

    assert post(client, options={"expect": {"checks": [{"check": "matches", "pattern": "(a+)+$"}]}}).status_code == 202
    assert not found("^(a+)+$", "a" * 50_000 + "b")


# --- addresses that a request holds


class Listener(http.server.BaseHTTPRequestHandler):
    """Notes whoever comes."""

    came: list[str]

    def do_GET(self) -> None:
        self.came.append(self.path)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def listener() -> Iterator[tuple[str, list[str]]]:
    came: list[str] = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Here", (Listener,), {"came": came}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", came
    server.shutdown()
    server.server_close()
    thread.join()


def test_nobody_fetches_an_address_that_a_request_holds(
    served: tuple[Installation, str, str], client: httpx.Client, listener: tuple[str, list[str]]
) -> None:
    url, came = listener
    here = served[0]
    here.start_all(("alpha", "beta", "reader-a"))
    for address in (url, url.replace("http://", "HTTP://"), "file:///etc/passwd", f"//{url[7:]}/", "data:text/plain,x"):
        chat = {"model": "bakeoff", "messages": [
            {"role": "user", "content": [{"type": "text", "text": "What is it?"},
                                         {"type": "image_url", "image_url": {"url": address}}]}]}  # fmt: skip
        is_problem(client.post("/v1/chat/completions", json=chat), 422, "invalid_request")
    is_problem(post(client, attachments=[{"url": f"{url}/attachment"}]), 400, "malformed")
    is_problem(post(client, attachments=[{"sha256": "0" * 64, "url": f"{url}/attachment"}]), 400, "malformed")
    stored = client.post("/v1/attachments", content=f'<img src="{url}/from-a-file.png">'.encode()).json()
    picture = client.post("/v1/attachments", content=b"\x89PNG\r\n\x1a\n" + f"{url}/from-a-picture.png".encode()).json()
    tasks = [
        post(client, f"Read {url}/from-the-request.png ![x]({url}/picture.png)").json()["id"],
        post(client, "", capability="image-to-text/ocr",
             attachments=[{"sha256": picture["sha256"], "name": f"{url}/from-a-name.png"}]).json()["id"],
        post(client, f"see {url}/named", options={"params": {"image_url": f"{url}/from-params.png"}}).json()["id"],
    ]  # fmt: skip
    chat = {"model": "bakeoff", "messages": [{"role": "user", "content": f"Summarise {url}/from-a-chat"}]}

    assert client.post("/v1/chat/completions", json=chat).status_code == 200, here.logs()
    wait_until(lambda: all(client.get(f"/v1/tasks/{task}").json()["status"] == "done" for task in tasks), 60, here.logs)
    assert stored["media_type"] == "text/plain"
    assert came == []
    assert httpx.get(f"{url}/still-there").status_code == 200
    assert came == ["/still-there"]


# --- connections


def test_a_head_of_a_million_lines_is_refused(served: tuple[Installation, str, str]) -> None:
    with connection(served[1]) as to:
        said = b""
        try:
            to.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X-A: b\r\n" * 1_000_000 + b"\r\n")
            said = to.recv(65536)
        except (ConnectionResetError, BrokenPipeError):
            pass  # it hung up on us

    assert b" 200 " not in said
    assert httpx.get(f"{served[1]}/healthz").status_code == 200


def test_a_body_that_does_not_come_is_not_waited_for(served: tuple[Installation, str, str]) -> None:
    head = f"POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {served[2]}\r\nContent-Length: 500\r\n\r\n"
    with ExitStack() as stack:
        slow = [stack.enter_context(connection(served[1])) for _ in range(10)]
        for one in slow:
            one.sendall(head.encode() + b'{"request": ')
        for one in slow:
            assert b" 408 " in one.recv(65536).splitlines()[0]


@pytest.mark.parametrize("key", ["", "Bearer wrong", "Bearer bakeoff_" + "0" * 32 + "_" + "a" * 43, "Basic !"])
@pytest.mark.parametrize("path", ["/v1/tasks", "/v1/attachments", "/v1/chat/completions", "/tasks/1/cancel"])
@pytest.mark.parametrize("length", [9000, 900_000_000])
def test_a_body_without_a_key_is_neither_waited_for_nor_held(
    served: tuple[Installation, str, str], length: int, path: str, key: str
) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\nContent-Type: application/json\r\n"
    with connection(served[1]) as to:
        to.sendall(f"{head}Authorization: {key}\r\n\r\n{{".encode() if key else f"{head}\r\n{{".encode())
        said = to.recv(65536)

    assert b" 401 " in said.splitlines()[0]
    assert b"www-authenticate" in said.lower()


def test_one_key_s_bodies_leave_room_for_others(served: tuple[Installation, str, str]) -> None:
    url = start_api(served[0], "narrow", api_max_per_key="1", api_receive_seconds="300")
    other = make_key(served[0], Scope.SUBMIT, name="patient")
    head = (
        f"POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {served[2]}\r\nContent-Length: 9\r\n\r\n"
    )
    with client_of(url, served[2]) as client, client_of(url, other) as another:
        with connection(url) as to:
            to.sendall(head.encode())
            wait_until(lambda: post(client).status_code == 429, 60, served[0].logs)

            said = is_problem(post(client), 429, "too_many_requests")
            assert "1 bodies at once" in said["detail"]
            assert client.get("/v1/tasks").status_code == 200
            assert post(another).status_code in {202, 503}  # 503: nobody serves it here
        wait_until(lambda: post(client).status_code != 429, 60, served[0].logs)


def test_a_body_that_comes_a_byte_at_a_time_is_not_waited_for(served: tuple[Installation, str, str]) -> None:
    head = f"POST /v1/attachments HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {served[2]}\r\nContent-Length: 9000\r\n\r\n"
    with connection(served[1]) as to:
        to.sendall(head.encode())
        to.settimeout(0.2)
        said = b""
        deadline = time.monotonic() + 60
        while not said:
            assert time.monotonic() < deadline
            to.sendall(b"x")
            try:
                said = to.recv(65536)
            except TimeoutError:
                continue

    assert b" 408 " in said.splitlines()[0]


def test_one_key_s_streams_leave_room_for_others(served: tuple[Installation, str, str], client: httpx.Client) -> None:
    other = make_key(served[0], Scope.READ, name="another")
    with ExitStack() as stack:
        streams = [stack.enter_context(client.stream("GET", "/v1/events")).iter_lines() for _ in range(12)]
        assert {next(lines) for lines in streams} == {": keep-alive"}

        refused = client.get("/v1/tasks")
        said = is_problem(refused, 429, "too_many_requests")
        assert "BAKEOFF_API_MAX_PER_KEY" in said["detail"]
        assert refused.headers["retry-after"] == "1"
        with client_of(served[1], other) as another:
            assert another.get("/v1/tasks").status_code == 200
    wait_until(lambda: client.get("/v1/tasks").status_code == 200)


# --- what a browser is told


def test_every_answer_says_what_a_browser_may_do_with_it(
    served: tuple[Installation, str, str], client: httpx.Client
) -> None:
    task = post(client, "with headers").json()["id"]
    for answer in (
        client.get(f"/v1/tasks/{task}"), client.get("/v1/nothing"), client.get("/openapi.json"), client.get("/metrics"),
        httpx.get(f"{served[1]}/healthz"), httpx.get(f"{served[1]}/v1/tasks"), client.post("/v1/tasks", content=b"{"),
    ):  # fmt: skip
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in answer.headers
        assert "server" not in answer.headers
    assert json.loads(client.get("/openapi.json").text)["info"]["title"] == "Bakeoff"
