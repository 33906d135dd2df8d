"""The HTTP API with workers behind it: events, the official OpenAI client, preferences, figures."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel

from db.keys import Scope
from tests.conftest import Installation, make_installation, wait_until
from tests.integration.api_parts import client_of, make_key, start_api

pytestmark = pytest.mark.integration

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\x00" * 40).decode()


@pytest.fixture(scope="module")
def served(
    servers: tuple[str, str], template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Installation, str]]:
    for made in make_installation(servers, tmp_path_factory.mktemp("answers"), template):
        made.settings["BAKEOFF_WORKER_TIMEOUT"] = "60"  # a slow machine is no absent worker
        made.start_all(("alpha", "beta", "gamma", "reader-a"))
        yield made, start_api(made, api_keep_alive="0.2", api_chat_timeout="120", api_metrics="loopback")


@pytest.fixture(scope="module")
def key(served: tuple[Installation, str]) -> str:
    made = make_key(served[0], Scope.SUBMIT, Scope.READ, name="tests")
    wait_until(lambda: httpx.get(f"{served[1]}/v1/tasks").status_code == 401)
    return made


@pytest.fixture(scope="module")
def client(served: tuple[Installation, str], key: str) -> Iterator[httpx.Client]:
    with client_of(served[1], key) as made:
        yield made


@pytest.fixture(scope="module")
def ai(served: tuple[Installation, str], key: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{served[1]}/v1", api_key=key, timeout=120) as made:
        yield made


def submit(client: httpx.Client, request: str, **fields: Any) -> str:
    done = client.post("/v1/tasks", json={"request": request, "capability": "text-generation", **fields})
    assert done.status_code == 202, done.text
    return str(done.json()["id"])


def events_of(
    client: httpx.Client, path: str, enough: Callable[[list[dict[str, Any]]], bool], last: str | None = None
) -> list[dict[str, Any]]:
    """The events of a stream until there are enough, or it ends."""
    found: list[dict[str, Any]] = []
    event: dict[str, Any] = {}
    headers = {"Last-Event-ID": last} if last else {}
    with client.stream("GET", path, headers=headers) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            name, _, value = line.partition(": ")
            if name in {"event", "id"}:
                event[name] = value
            elif name == "data":
                event["data"] = json.loads(value)
            elif not line and "data" in event:
                found.append(event)
                event = {}
                if enough(found):
                    break
    return found


def to_the_end(_: list[dict[str, Any]]) -> bool:
    return False


def await_done(installation: Installation, client: httpx.Client, *tasks: str) -> None:
    """Wait until these tasks are done."""
    wait_until(
        lambda: all(client.get(f"/v1/tasks/{task}").json()["status"] == "done" for task in tasks),
        60,
        installation.logs,
    )


def ask(words: str) -> list[Any]:
    return [{"role": "user", "content": words}]


def shown(url: str = f"data:image/png;base64,{PNG}") -> list[Any]:
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]


# --- events


def test_a_task_is_followed_to_its_end(client: httpx.Client) -> None:
    task = submit(client, "slow, to be followed")

    seen = events_of(client, f"/v1/tasks/{task}/events", to_the_end)

    states = [event["data"]["status"] for event in seen]
    assert (states[-1], {event["event"] for event in seen}) == ("done", {"progress"})
    assert all(one != other for one, other in pairwise(seen))
    assert {one["model"] for one in seen[-1]["data"]["subtasks"][0]["candidates"]} == {"alpha", "beta", "gamma"}
    again = events_of(client, f"/v1/tasks/{task}/events", to_the_end, seen[-1]["id"])
    assert again == []  # it has seen the last one


def test_whoever_comes_back_misses_no_end(served: tuple[Installation, str], client: httpx.Client, key: str) -> None:
    heard: list[dict[str, Any]] = []

    def listen() -> None:
        with client_of(served[1], key) as own:
            heard.extend(events_of(own, "/v1/events", bool))

    listening = threading.Thread(target=listen)
    listening.start()
    while listening.is_alive():  # from when on it listens is not for us to know
        submit(client, "heard by whoever listens")
        listening.join(0.5)
    missed = [submit(client, f"missed {number}") for number in range(3)]
    await_done(served[0], client, *missed)

    seen = events_of(
        client, "/v1/events", lambda found: {one["data"]["id"] for one in found} >= set(missed), heard[0]["id"]
    )

    ids = [event["id"] for event in [*heard, *seen]]
    assert len(set(ids)) == len(ids)
    assert {event["data"]["status"] for event in seen if event["data"]["id"] in missed} == {"done"}


def test_a_stream_of_a_source_holds_that_source_only(served: tuple[Installation, str], client: httpx.Client) -> None:
    start = "0-00000000-0000-0000-0000-000000000000"
    mine = make_key(served[0], Scope.READ, source="mine")
    other, own = submit(client, "of others"), submit(client, "of mine", source="mine")
    await_done(served[0], client, other, own)

    with client_of(served[1], mine) as bound:
        (seen,) = events_of(bound, "/v1/events", bool, start)

    assert (seen["data"]["id"], seen["data"]["source"]) == (own, "mine")
    assert client.get("/v1/events", headers={"Last-Event-ID": "nonsense"}).status_code == 422


# --- the OpenAI-compatible door


def test_the_official_client_gets_the_judged_answer(ai: OpenAI, client: httpx.Client) -> None:
    done = ai.chat.completions.create(model="bakeoff", messages=ask("say hello"))

    assert done.choices[0].message.content == "beta says more: say hello"
    assert done.choices[0].finish_reason == "stop"
    said = done.bakeoff  # type: ignore[attr-defined]
    assert done.id == f"chatcmpl-{said['task_id']}"
    (subtask,) = said["subtasks"]
    assert (subtask["verdict"]["winner"], subtask["verdict"]["judge"]) == ("beta", "longest")
    assert {one["model"] for one in subtask["candidates"]} == {"alpha", "beta", "gamma"}
    assert client.get(f"/v1/tasks/{said['task_id']}").json()["answer"] == done.choices[0].message.content


def test_a_conversation_is_one_request_and_its_last_message_comes_last(ai: OpenAI) -> None:
    done = ai.chat.completions.create(
        model="gamma",  # which says what it is asked
        max_tokens=50,
        temperature=0,
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Who wrote Faust?"},
            {"role": "assistant", "content": "Goethe."},
            {"role": "user", "content": [{"type": "text", "text": "When?"}]},
        ],
    )

    assert done.choices[0].message.content == (
        "Be brief.\n\nThe conversation so far:\n\nUser: Who wrote Faust?\nAssistant: Goethe.\n\nAnswer this message:\n\nWhen?"
    )
    assert done.bakeoff["subtasks"][0]["verdict"]["method"] == "only_candidate"  # type: ignore[attr-defined]


def test_a_stream_begins_after_the_verdict_and_ends_with_it(ai: OpenAI) -> None:
    words = "slow " + "and long " * 60
    chunks = list(
        ai.chat.completions.create(
            model="bakeoff/longest", messages=ask(words), stream=True, stream_options={"include_usage": True}
        )
    )

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == f"beta says more: {words}".strip()
    assert len(chunks) > 4
    (last,) = [chunk for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason]
    assert last.choices[0].finish_reason == "stop"
    assert last.bakeoff["subtasks"][0]["verdict"]["winner"] == "beta"  # type: ignore[attr-defined]
    assert chunks[-1].usage is not None


def test_comments_keep_a_stream_open_until_the_verdict(served: tuple[Installation, str], client: httpx.Client) -> None:
    body = {"model": "gamma", "stream": True, "messages": ask("when gamma is back")}
    served[0].query("UPDATE model SET status = 'paused', reason = 'a test' WHERE name = 'gamma'")

    with client.stream("POST", "/v1/chat/completions", json=body) as stream:
        lines = (line for line in stream.iter_lines() if line)
        before = [next(lines) for _ in range(3)]
        served[0].query("UPDATE model SET status = 'active', reason = NULL WHERE name = 'gamma'")
        rest = list(lines)

    assert set(before) == {": keep-alive"}
    assert rest[-1] == "data: [DONE]"
    assert any("when gamma is back" in line for line in rest)


def test_a_picture_comes_in_the_message_and_is_never_fetched(served: tuple[Installation, str], ai: OpenAI) -> None:
    done = ai.chat.completions.create(model="reader-a", messages=shown())
    assert done.choices[0].message.content == "read file-1"

    for url in ("http://127.0.0.1:1/a.png", "file:///etc/passwd", "data:image/png;base64,???"):
        with pytest.raises(openai.UnprocessableEntityError):
            ai.chat.completions.create(model="reader-a", messages=shown(url))
    with pytest.raises(openai.UnprocessableEntityError, match=r"bakeoff\.capability"):
        ai.chat.completions.create(model="bakeoff", messages=shown())
    assert served[0].query("SELECT media_type FROM artifact")[0].media_type == "image/png"


def test_what_cannot_be_answered_is_an_error_of_the_client_s_kind(ai: OpenAI, client: httpx.Client) -> None:
    with pytest.raises(openai.NotFoundError, match="GET /v1/models"):
        ai.chat.completions.create(model="gpt-9", messages=ask("x"))
    with pytest.raises(openai.BadRequestError):
        ai.chat.completions.create(model="bakeoff", messages=ask("x"), n=2)
    with pytest.raises(openai.UnprocessableEntityError, match="by the user"):
        ai.chat.completions.create(model="bakeoff", messages=[{"role": "assistant", "content": "x"}])
    with pytest.raises(openai.AuthenticationError):
        ai.with_options(api_key="wrong").chat.completions.create(model="bakeoff", messages=ask("x"))
    with pytest.raises(openai.InternalServerError, match="No live worker"):
        ai.with_options(max_retries=0).chat.completions.create(model="reader-b", messages=shown())

    before = len(client.get("/v1/tasks", params={"limit": 500}).json()["tasks"])
    with pytest.raises(openai.InternalServerError, match="no candidate succeeded"):
        ai.chat.completions.create(
            model="bakeoff", messages=ask("all fail"), extra_body={"bakeoff": {"options": {"models": ["beta"]}}}
        )
    assert len(client.get("/v1/tasks", params={"limit": 500}).json()["tasks"]) == before + 1  # asked once, not again
    with pytest.raises(openai.APIError, match="no candidate succeeded"):
        list(ai.chat.completions.create(model="beta", messages=ask("all fail!"), stream=True))


def test_an_answer_must_hold_the_format_that_was_asked_for(ai: OpenAI) -> None:
    class Hello(BaseModel):
        hello: str

    done = ai.chat.completions.parse(model="bakeoff", messages=ask('{"hello": "world"}'), response_format=Hello)

    assert done.choices[0].message.parsed == Hello(hello="world")
    assert done.bakeoff["subtasks"][0]["verdict"]["winner"] == "gamma"  # type: ignore[attr-defined]


def test_models_are_listed_as_the_client_reads_them(ai: OpenAI) -> None:
    models = {model.id: model for model in ai.models.list()}

    assert {"bakeoff", "bakeoff/longest", "alpha", "beta", "gamma", "hearer"} <= set(models)
    assert models["alpha"].live is True  # type: ignore[attr-defined]
    assert models["hearer"].live is False  # type: ignore[attr-defined]
    assert ai.models.retrieve("bakeoff/longest").owned_by == "bakeoff"
    with pytest.raises(openai.NotFoundError):
        ai.models.retrieve("gpt-9")


# --- preferences, the leaderboard, figures


def test_a_preference_counts_on_the_leaderboard_and_against_the_judge(
    served: tuple[Installation, str], client: httpx.Client
) -> None:
    task = submit(client, "to be compared")
    await_done(served[0], client, task)
    (subtask,) = client.get(f"/v1/tasks/{task}").json()["subtasks"]
    ids = {one["model"]: one["id"] for one in subtask["candidates"]}

    said = client.post(
        "/v1/preferences", json={"subtask": subtask["id"], "better": ids["alpha"], "over": [ids["beta"]]}
    )
    unknown = client.post("/v1/preferences", json={"subtask": subtask["id"], "better": "nobody"})

    assert (said.status_code, said.json()["annotator"], said.json()["over"]) == (201, "tests", ["beta"])
    assert said.json()["stored"] == {"new": 1, "changed": 0, "known": 0}
    assert unknown.status_code == 422
    with client_of(served[1], make_key(served[0], Scope.SUBMIT, source="mine")) as bound:
        body = {"subtask": subtask["id"], "better": ids["alpha"]}
        assert bound.post("/v1/preferences", json=body).status_code == 404
    (board,) = client.get("/v1/leaderboard", params={"capability": "text-generation"}).json()["boards"]
    preferred = {one["model"]: one["preferred"] for one in board["standings"]}
    assert preferred["alpha"] == 1


def test_the_figures_are_of_the_registry_and_read_by_prometheus(
    served: tuple[Installation, str], client: httpx.Client
) -> None:
    await_done(served[0], client, submit(client, "to be counted"))

    def figures() -> dict[str, list[Any]]:
        families = text_string_to_metric_families(httpx.get(f"{served[1]}/metrics").text)
        return {family.name: family.samples for family in families}

    wait_until(lambda: any(one.value for one in figures()["bakeoff_model_wins_recent"]))  # remembered for seconds
    found = figures()
    backlog = {(one.labels["queue"], one.labels["state"]) for one in found["bakeoff_backlog"]}
    assert {("model.alpha", "chosen"), ("planner", "waiting")} <= backlog
    ready = {one.labels["queue"]: one.value for one in found["bakeoff_workers_ready"]}
    assert (ready["model.alpha"], ready["model.hearer"], ready["judge"]) == (1, 0, 1)
    assert found["bakeoff_schedulers"][0].value == 1
    assert {one.labels["model"] for one in found["bakeoff_wave_size_recent"]} <= {"alpha", "beta", "gamma", "reader-a"}
    assert {one.labels["model"] for one in found["bakeoff_leases_lost"]} >= {"alpha", "hearer"}
    page = (Path(__file__).resolve().parents[2] / "docs" / "observability.md").read_text()
    kinds = ("", "_total")
    assert [name for name in found if not any(f"`{name}{kind}`" in page for kind in kinds) and not made(name)] == []


def made(name: str) -> bool:
    """Whether prometheus-client adds this family to one of ours."""
    return name.endswith(("_created", "_gcount", "_gsum"))
