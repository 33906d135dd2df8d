"""Every route of the API and its pages, asked with a key of another source for what belongs to ours.

The routes are those that the application has: a new one fails here until it is said what it shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import httpx
import pytest

from db.keys import Scope
from db.settings import Settings
from scheduler.api.app import make_app
from tests.conftest import Installation, make_installation, wait_until
from tests.integration.api_parts import client_of, make_key, start_api
from tests.integration.curation_parts import conversations, write_array

pytestmark = [pytest.mark.integration, pytest.mark.api]

CANARY = "canary-of-the-shop"
JOB = "shop-job"
#: What belongs to nobody: the schema, the registry, this process, styles of the pages, and the figures of every source,
#: which a bound key is refused.
OF_NOBODY = {
    "/openapi.json",
    "/v1/models",
    "/v1/models/{name:path}",
    "/healthz",
    "/readyz",
    "/static/{digest}/{name}",
    "/",
}
#: Routes whose address names something of ours: any other answer than these to a stranger is a leak.
NOT_THEIRS = {401, 403, 404}
#: Lists, and what stores a new thing of the caller's own: allowed, and nothing of ours is in them.
LISTS = {"/v1/tasks", "/v1/events", "/v1/leaderboard", "/v1/curation-jobs", "/v1/attachments", "/tasks", "/blind",
         "/leaderboard", "/curation", "/annotate", "/metrics"}  # fmt: skip


def all_routes(routes: Any) -> Iterator[tuple[str, str]]:
    """Method and path of each, those of included routers too."""
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from all_routes(inner.routes)
        else:
            yield from ((method, route.path) for method in sorted(route.methods) if method != "HEAD")


ROUTES = sorted(
    all_routes(make_app(Settings(database_url="postgresql://u@localhost/d", redis_url="redis://localhost")).routes)
)


@dataclass(frozen=True)
class Shop:
    """What belongs to the source `shop`."""

    installation: Installation
    url: str
    task: str
    subtask: str
    digest: str
    admin: str
    own: str
    strangers: dict[str, str]

    def address(self, path: str) -> str:
        for name, value in {
            "{task_id}": self.task, "{subtask_id}": self.subtask, "{sha256}": self.digest, "{name:path}": "alpha",
            "{name}": JOB, "{digest}": "0",
        }.items():  # fmt: skip
            path = path.replace(name, value)
        assert "{" not in path, f"{path}: say what stands for it"
        return path

    def body(self, path: str) -> dict[str, Any] | None:
        """A document that reaches for what is ours."""
        task = {"request": "x", "capability": "text-generation", "source": "shop"}
        known: dict[str, dict[str, Any]] = {
            "/v1/tasks": task,
            "/v1/task-batches": {"tasks": [task]},
            "/v1/preferences": {"subtask": self.subtask, "better": "alpha"},
            "/v1/chat/completions": {
                "model": "bakeoff", "messages": [{"role": "user", "content": "x"}], "bakeoff": {"source": "shop"},
            },
            "/v1/curation-jobs": {"name": JOB, "input": {"file": "records.json"}, "stages": ["validate"]},
        }  # fmt: skip
        return known.get(path)

    def state(self) -> list[Any]:
        return [
            tuple(row)
            for row in self.installation.query(
                """
                SELECT (SELECT to_jsonb(t) FROM task AS t WHERE id = :task),
                       (SELECT count(*) FROM task WHERE source = 'shop'), (SELECT count(*) FROM preference),
                       (SELECT jsonb_agg(j ORDER BY id) FROM curation_job AS j)
                """,
                task=self.task,
            )
        ]


@pytest.fixture(scope="module")
def shop(servers: tuple[str, str], template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    for made in make_installation(servers, tmp_path_factory.mktemp("foreign"), template):
        admin = make_key(made, Scope.ADMIN, name="admin")
        own = make_key(made, Scope.SUBMIT, Scope.READ, source="shop", name="shop")
        strangers = {
            "press": make_key(made, Scope.SUBMIT, Scope.READ, source="press", name="press"),
            "press-admin": make_key(made, Scope.ADMIN, source="press", name="press-admin"),
            "nobody": f"bakeoff_{'0' * 32}_{'A' * 43}",
        }
        write_array(made.folder / "records.json", conversations(2))
        made.start_all(("alpha", "beta", "reader-a", "reader-b"))
        url = start_api(made, curation_folder=str(made.folder), api_stream_seconds="0.2", api_keep_alive="0.1")
        with client_of(url, own) as client:
            picture = b"\x89PNG\r\n\x1a\n" + CANARY.encode()
            digest = client.post("/v1/attachments", content=picture).json()["sha256"]
            task = {"request": CANARY, "capability": "image-to-text/ocr",
                    "attachments": [{"sha256": digest, "name": CANARY}]}  # fmt: skip
            stored = client.post("/v1/tasks", json=task).json()["id"]
            done = partial(client.get, f"/v1/tasks/{stored}")
            wait_until(lambda done=done: done().json()["status"] == "done", 60, made.logs)
            (subtask,) = client.get(f"/v1/tasks/{stored}").json()["subtasks"]
        found = Shop(made, url, stored, subtask["id"], digest, admin, own, strangers)
        with client_of(url, admin) as client:
            assert client.post("/v1/curation-jobs", json=found.body("/v1/curation-jobs")).status_code == 202
        yield found


def asked(client: httpx.Client, shop: Shop, method: str, path: str) -> httpx.Response:
    form = {"Origin": shop.url}
    body = shop.body(path) if method == "POST" else None
    return client.request(method, shop.address(path), json=body, headers=form)


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=[" ".join(route) for route in ROUTES])
def test_a_stranger_sees_and_changes_nothing_of_ours(shop: Shop, method: str, path: str) -> None:
    before = shop.state()
    for key in shop.strangers.values():
        with client_of(shop.url, key) as client:
            answer = asked(client, shop, method, path)
        assert CANARY not in answer.text
        assert answer.status_code < 500, answer.text
        if path in OF_NOBODY:
            continue
        if "{" in path or (method == "POST" and shop.body(path) is not None):
            assert answer.status_code in NOT_THEIRS, answer.text
        else:
            assert path in LISTS, f"{method} {path}: say what a stranger may see of it"
            assert shop.task not in answer.text
            assert shop.digest not in answer.text
            assert JOB not in answer.text
    assert shop.state() == before


@pytest.mark.parametrize("path", sorted({path for method, path in ROUTES if method == "GET" and "{" in path}))
def test_what_a_stranger_was_refused_is_there_for_others(shop: Shop, path: str) -> None:
    """Or the test above would only ask for what does not exist."""
    if "annotate" in path or "static" in path:
        pytest.skip("the test above is refused before anybody looks whether it exists")
    with client_of(shop.url, shop.admin) as client:
        assert asked(client, shop, "GET", path).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"), [route for route in ROUTES if route[1].count("{") == 2 and "task" in route[1]]
)
def test_a_part_of_ours_is_not_reached_through_a_task_of_his_own(shop: Shop, method: str, path: str) -> None:
    before = shop.state()
    with client_of(shop.url, shop.strangers["press"]) as client:
        own = client.post("/v1/tasks", json={"request": "mine", "capability": "text-generation"}).json()["id"]
        answer = asked(client, replace(shop, task=own), method, path)

    assert answer.status_code in NOT_THEIRS, answer.text
    assert CANARY not in answer.text
    assert shop.state() == before


def test_a_key_that_reads_does_not_write_and_one_that_writes_does_not_read(shop: Shop) -> None:
    reads = make_key(shop.installation, Scope.READ, source="shop", name="reads")
    writes = make_key(shop.installation, Scope.SUBMIT, source="shop", name="writes")
    before = shop.state()
    with client_of(shop.url, reads) as reader, client_of(shop.url, writes) as writer:
        for method, path in ROUTES:
            if path in OF_NOBODY:
                continue
            if method == "POST":
                assert asked(reader, shop, method, path).status_code == 403, path
            elif path.startswith("/v1"):
                answer = asked(writer, shop, method, path)
                assert (answer.status_code, CANARY in answer.text) == (403, False), path
    assert shop.state() == before


def test_the_same_idempotency_key_of_two_sources_is_two_tasks(shop: Shop) -> None:
    found = []
    for key in (shop.own, shop.strangers["press"]):
        with client_of(shop.url, key) as client:
            task = {"request": "the same", "capability": "text-generation"}
            found.append(client.post("/v1/tasks", json=task, headers={"Idempotency-Key": "one"}).json()["id"])

    assert len(set(found)) == 2


def test_a_stranger_who_reads_all_events_from_the_beginning_hears_of_his_own_only(shop: Shop) -> None:
    first = {"Last-Event-ID": "0-00000000-0000-0000-0000-000000000000"}
    heard = {}
    for name, key in (("shop", shop.own), ("press", shop.strangers["press"])):
        with client_of(shop.url, key) as client, client.stream("GET", "/v1/events", headers=first) as stream:
            heard[name] = stream.read().decode()

    assert shop.task in heard["shop"]
    assert shop.task not in heard["press"]
