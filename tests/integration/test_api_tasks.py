"""The HTTP API over a real database, without workers: tasks, files, keys, and how everything goes wrong."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from db.engine import transaction
from db.keys import Scope, revoke_key
from tests.conftest import Installation, make_installation, wait_until
from tests.integration.api_parts import client_of, is_problem, make_key, post, start_api

pytestmark = pytest.mark.integration

PNG = b"\x89PNG\r\n\x1a\n" + b"\x00" * 40
MISSING = "01900000-0000-7000-8000-000000000000"


@pytest.fixture(scope="module")
def served(
    servers: tuple[str, str], template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Installation, str]]:
    """An installation with an API on loopback that no key was made for yet."""
    for made in make_installation(servers, tmp_path_factory.mktemp("api"), template):
        yield made, start_api(made, max_attachment_bytes="5000", api_max_body_bytes="20000", max_backlog="40")


@pytest.fixture(scope="module")
def keys(served: tuple[Installation, str], opened: None) -> dict[str, str]:
    """Keys by what they are for; from now on the API asks for one."""
    installation, url = served
    made = {
        "admin": make_key(installation, Scope.ADMIN),
        "shop": make_key(installation, Scope.SUBMIT, Scope.READ, source="shop"),
        "press": make_key(installation, Scope.SUBMIT, Scope.READ, source="press"),
        "writer": make_key(installation, Scope.SUBMIT),
        "reader": make_key(installation, Scope.READ),
    }
    wait_until(lambda: httpx.get(f"{url}/v1/tasks").status_code == 401)
    return made


@pytest.fixture(scope="module")
def opened(served: tuple[Installation, str]) -> None:
    """What holds before there is a key: nobody needs one on this machine, and no page of elsewhere gets in."""
    _, url = served
    assert httpx.get(f"{url}/v1/tasks").status_code == 200
    assert httpx.get(f"{url}/v1/tasks", headers={"Authorization": "Bearer anything"}).status_code == 200
    assert httpx.get(f"{url}/v1/tasks", headers={"Host": "evil.example"}).status_code == 403
    assert httpx.get(f"{url}/v1/tasks", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403


@pytest.fixture(scope="module")
def admin(served: tuple[Installation, str], keys: dict[str, str]) -> Iterator[httpx.Client]:
    with client_of(served[1], keys["admin"]) as client:
        yield client


def as_(served: tuple[Installation, str], key: str) -> httpx.Client:
    return client_of(served[1], key)


# --- tasks


def test_an_accepted_task_is_committed(served: tuple[Installation, str], admin: httpx.Client) -> None:
    done = post(admin, "a first one", priority=3, options={"candidates": 2})

    assert done.status_code == 202
    assert done.headers["location"] == done.json()["url"] == f"/v1/tasks/{done.json()['id']}"
    (row,) = served[0].query("SELECT * FROM task WHERE id = :id", id=done.json()["id"])
    assert (row.request, row.source, row.priority, row.options) == ("a first one", "api", 3, {"candidates": 2})
    story = admin.get(done.json()["url"]).json()
    assert (story["status"], story["request"], story["subtasks"]) == ("pending", "a first one", [])
    why = admin.get(f"{done.json()['url']}/why").json()
    assert "No scheduler works" in why["why"]


def test_the_same_key_and_request_is_stored_once(admin: httpx.Client) -> None:
    first = post(admin, "once", headers={"Idempotency-Key": "k-1"})
    again = post(admin, "once", headers={"Idempotency-Key": "k-1"})
    other = post(admin, "something else", headers={"Idempotency-Key": "k-1"})

    assert first.json()["id"] == again.json()["id"]
    said = is_problem(other, 409, "idempotency_conflict")
    assert "use a new key" in said["detail"]


@pytest.mark.parametrize(
    ("fields", "status", "code", "says"),
    [
        ({"capability": "poetry"}, 422, "invalid_request", "text-generation"),
        ({"options": {"candidats": 2}}, 422, "invalid_request", "options.candidats is not an option"),
        ({"options": {"models": ["nobody"]}}, 422, "invalid_request", "nobody"),
        ({"request": ""}, 422, "invalid_request", "empty"),
        ({"request": "a\x00b"}, 422, "invalid_request", "zero character"),
        ({"attachments": [{"sha256": "0" * 64}]}, 422, "invalid_request", "upload it first"),
        (
            {"run_at": "2030-01-02T00:00:00Z", "deadline": "2030-01-01T00:00:00Z"},
            422,
            "invalid_request",
            "after run_at",
        ),
        ({"request": 7}, 400, "malformed", "body/request"),
        ({"priority": "high"}, 400, "malformed", "body/priority"),
        ({"priority": 101}, 400, "malformed", "body/priority"),
        ({"deadline": "tomorrow"}, 400, "malformed", "body/deadline"),
        ({"status": "done"}, 400, "malformed", "body/status"),
        ({"attachments": [{"sha256": "../../etc/passwd"}]}, 400, "malformed", "body/attachments/0/sha256"),
    ],
)
def test_a_task_that_cannot_run_is_refused_with_the_way_out(
    admin: httpx.Client, fields: dict[str, Any], status: int, code: str, says: str
) -> None:
    said = is_problem(post(admin, **fields), status, code)

    assert says in said["detail"] + str(said.get("errors"))


def test_what_is_no_document_is_a_problem(admin: httpx.Client) -> None:
    headers = {"Content-Type": "application/json"}

    is_problem(admin.post("/v1/tasks", content=b'{"request": ', headers=headers), 400, "malformed")
    is_problem(admin.post("/v1/tasks", content=b'"text"', headers=headers), 400, "malformed")
    is_problem(admin.post("/v1/tasks", json={"request": "x" * 30_000}), 413, "too_large")
    chunks = (b" " * 5000 for _ in range(6))  # without a Content-Length
    is_problem(admin.post("/v1/tasks", content=chunks, headers=headers), 413, "too_large")


def test_addresses_that_are_none_are_problems(admin: httpx.Client) -> None:
    is_problem(admin.get("/v2/tasks"), 404, "not_found")
    is_problem(admin.get(f"/v1/tasks/{MISSING}"), 404, "not_found")
    is_problem(admin.get("/v1/tasks/not-an-id"), 400, "malformed")
    refused = admin.put("/v1/tasks")
    is_problem(refused, 405, "method_not_allowed")
    assert refused.headers["allow"] == "GET, POST"


def test_a_request_id_of_the_caller_is_kept_and_any_other_made(admin: httpx.Client) -> None:
    assert admin.get("/healthz", headers={"X-Request-Id": "trace-7"}).headers["x-request-id"] == "trace-7"
    assert re.fullmatch("[0-9a-f]{16}", admin.get("/healthz", headers={"X-Request-Id": "a b"}).headers["x-request-id"])


def test_of_a_batch_the_wrong_ones_are_refused_and_the_others_stored(
    served: tuple[Installation, str], admin: httpx.Client
) -> None:
    good = {"request": "in a batch", "capability": "text-generation", "source": "batch"}

    done = admin.post("/v1/task-batches", json={"tasks": [good, {**good, "capability": "poetry"}, good]})
    whole = admin.post("/v1/task-batches", json={"tasks": [good]})

    assert done.status_code == 207
    first, wrong, last = done.json()["tasks"]
    assert (done.json()["stored"], done.json()["refused"]) == (2, 1)
    assert wrong["problem"]["code"] == "invalid_request"
    assert "Task 1 of 3" not in wrong["problem"]["detail"]
    assert whole.status_code == 202
    rows = served[0].query("SELECT id FROM task WHERE source = 'batch'")
    assert {str(row.id) for row in rows} == {first["id"], last["id"], whole.json()["tasks"][0]["id"]}


def test_a_full_backlog_says_when_to_come_back(admin: httpx.Client) -> None:
    task = {"request": "many", "capability": "text-generation", "source": "flood"}
    assert admin.post("/v1/task-batches", json={"tasks": [task] * 40}).status_code == 202

    for refused in (post(admin, source="flood"), admin.post("/v1/task-batches", json={"tasks": [task]})):
        is_problem(refused, 429, "backlog_full")
        assert int(refused.headers["retry-after"]) > 0


def test_pages_hold_every_task_once_the_newest_first(admin: httpx.Client) -> None:
    ids = [post(admin, f"page {number}", source="pages").json()["id"] for number in range(5)]

    seen: list[str] = []
    query: dict[str, Any] = {"source": "pages", "limit": 2}
    while True:
        page = admin.get("/v1/tasks", params=query).json()
        seen += [row["task_id"] for row in page["tasks"]]
        if page["next"] is None:
            break
        query["cursor"] = page["next"]

    assert seen == ids[::-1]
    middle = admin.get(f"/v1/tasks/{ids[2]}").json()["created_at"]
    recent = admin.get("/v1/tasks", params={"source": "pages", "since": middle}).json()["tasks"]
    assert [row["task_id"] for row in recent] == ids[:1:-1]
    assert admin.get("/v1/tasks", params={"source": "pages", "status": "done"}).json()["tasks"] == []
    is_problem(admin.get("/v1/tasks", params={"cursor": "x"}), 422, "invalid_request")
    is_problem(admin.get("/v1/tasks", params={"limit": "0"}), 400, "malformed")


def test_a_task_is_cancelled_once_and_tried_again(served: tuple[Installation, str], admin: httpx.Client) -> None:
    task = post(admin, "to be cancelled").json()["id"]
    is_problem(admin.post(f"/v1/tasks/{task}/retry"), 409, "conflict")

    first, again = (admin.post(f"/v1/tasks/{task}/cancel").json() for _ in range(2))
    retried = admin.post(f"/v1/tasks/{task}/retry")

    assert (first["status"], first["cancelled"], again["cancelled"]) == ("cancelled", True, False)
    assert (retried.status_code, retried.json()["retry_of"]) == (202, task)
    assert admin.get(retried.json()["url"]).json()["retry_of"] == task
    served[0].query("UPDATE task SET status = 'done', answer = 'x', error = NULL WHERE id = :id", id=task)
    assert "is done already" in is_problem(admin.post(f"/v1/tasks/{task}/cancel"), 409, "conflict")["detail"]


# --- files


def test_a_file_is_named_by_its_bytes_and_typed_by_its_content(
    served: tuple[Installation, str], admin: httpx.Client
) -> None:
    digest = hashlib.sha256(PNG).hexdigest()
    pieces = (PNG[start : start + 7] for start in range(0, len(PNG), 7))

    stored = admin.post("/v1/attachments", content=pieces, headers={"Content-Type": "text/html"})
    again = admin.post("/v1/attachments", content=PNG)

    assert (stored.status_code, again.json()) == (201, stored.json())
    assert stored.json() == {"sha256": digest, "size": len(PNG), "media_type": "image/png"}
    read = admin.get(stored.headers["location"])
    assert (read.content, read.headers["content-type"]) == (PNG, "image/png")
    assert read.headers["x-content-type-options"] == "nosniff"
    assert read.headers["content-disposition"].startswith("attachment")
    files = [path for path in (served[0].folder / "home" / "blobs").rglob("*") if path.is_file()]
    assert digest in [path.name for path in files]
    assert not [path for path in files if path.name.startswith(".")]
    task = post(admin, "", capability="image-to-text/ocr", attachments=[{"sha256": digest, "name": "a.png"}])
    assert task.status_code == 202


def test_what_a_browser_could_run_is_only_bytes_to_it(admin: httpx.Client) -> None:
    svg = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    pdf = b"%PDF-1.7\n" + b"\x00" * 20

    for data in (svg, pdf):
        where = admin.post("/v1/attachments", content=data).headers["location"]
        assert admin.get(where).headers["content-type"] in {"application/octet-stream", "text/plain; charset=utf-8"}


def test_files_have_limits_and_their_addresses_lead_nowhere_else(admin: httpx.Client) -> None:
    is_problem(admin.post("/v1/attachments", content=b"x" * 6000), 413, "too_large")
    is_problem(admin.post("/v1/attachments", content=(b"x" * 3000 for _ in range(2))), 413, "too_large")
    is_problem(admin.post("/v1/attachments"), 422, "invalid_request")
    is_problem(admin.get(f"/v1/attachments/{'0' * 64}"), 404, "not_found")
    for path in ("..%2f..%2fetc%2fpasswd", "%2e%2e", "A" * 64):
        assert admin.get(f"/v1/attachments/{path}").status_code in {400, 404}


# --- keys


def test_a_key_opens_what_its_scopes_say(served: tuple[Installation, str], keys: dict[str, str]) -> None:
    with as_(served, keys["writer"]) as writer, as_(served, keys["reader"]) as reader, client_of(served[1]) as nobody:
        refused = nobody.get("/v1/tasks")
        is_problem(refused, 401, "unauthorized")
        assert refused.headers["www-authenticate"].startswith("Bearer")
        is_problem(writer.get("/v1/tasks"), 403, "forbidden")
        is_problem(post(reader), 403, "forbidden")
        is_problem(reader.post("/v1/attachments", content=b"x"), 403, "forbidden")
        is_problem(writer.get("/metrics"), 403, "forbidden")
        task = post(writer, "written only")
        assert reader.get(task.json()["url"]).status_code == 200
        assert reader.get("/metrics").status_code == 200
        assert nobody.get("/healthz").json() == nobody.get("/readyz").json() == {"status": "ok"}


def test_a_key_that_is_almost_right_is_wrong(served: tuple[Installation, str], keys: dict[str, str]) -> None:
    right = keys["admin"]
    for wrong in (right[:-1] + ("A" if right[-1] != "A" else "B"), right.upper(), right[:-1], "x"):
        with as_(served, wrong) as client:
            is_problem(client.get("/v1/tasks"), 401, "unauthorized")


def test_a_key_of_a_source_writes_and_sees_that_source_only(
    served: tuple[Installation, str], keys: dict[str, str], admin: httpx.Client
) -> None:
    with as_(served, keys["shop"]) as shop, as_(served, keys["press"]) as press:
        words = f"secret of the shop {uuid4()}".encode()
        digest = shop.post("/v1/attachments", content=words).json()["sha256"]
        mine = post(shop, "of the shop", options={"candidates": 1}).json()
        admin.post("/v1/task-batches", json={"tasks": [{"request": "of others", "capability": "text-generation"}]})

        assert {row["source"] for row in shop.get("/v1/tasks").json()["tasks"]} == {"shop"}
        is_problem(post(shop, source="press"), 403, "forbidden")
        is_problem(shop.get("/v1/tasks", params={"source": "press"}), 403, "forbidden")
        for path in ("", "/why", "/events"):
            is_problem(press.get(mine["url"] + path), 404, "not_found")
        for path in ("/cancel", "/retry"):
            is_problem(press.post(mine["url"] + path), 404, "not_found")
        is_problem(press.get(f"/v1/attachments/{digest}"), 404, "not_found")
        is_problem(press.get("/metrics"), 403, "forbidden")
        served[0].query(
            "UPDATE task SET attachments = jsonb_build_array(jsonb_build_object('sha256', CAST(:d AS text), 'name', 'a')) "
            "WHERE id = :id",
            d=digest, id=mine["id"],
        )  # fmt: skip
        assert shop.get(f"/v1/attachments/{digest}").content == words


def test_keys_are_stored_as_hashes_and_revoked_within_seconds(
    served: tuple[Installation, str], keys: dict[str, str]
) -> None:
    installation, url = served
    key = make_key(installation, Scope.READ, name="for a while")
    secret = key[len("bakeoff_") + 33 :]
    with client_of(url, key) as client:
        assert client.get("/v1/tasks").status_code == 200

        rows = installation.query("SELECT row_to_json(k)::text AS said FROM api_key AS k")
        assert all(secret not in row.said for row in rows)
        (used,) = installation.query("SELECT last_used_at FROM api_key WHERE name = 'for a while'")
        assert used.last_used_at is not None
        engine = installation.engine()
        with transaction(engine) as connection:
            revoke_key(connection, "for a while")
        engine.dispose()
        wait_until(lambda: client.get("/v1/tasks").status_code == 401)
    assert secret not in installation.logs()
