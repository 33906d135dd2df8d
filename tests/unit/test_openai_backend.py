"""The openai backend against a real HTTP server that speaks the protocol, and misbehaves when told to."""

from __future__ import annotations

import base64
import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from db.errors import RegistryError, SettingsError, Unreachable
from db.registry import ModelEntry
from db.sources import NoSource, ServerSource
from db.states import ErrorKind
from worker.backends import Failure, File, Input, LanguageModel, NoProbabilities, Output, Place
from worker.backends.openai import OpenAI
from worker.backends.openai_server import ServerError

KEY = "sk-very-secret"
Answer = tuple[int, Any] | tuple[int, Any, dict[str, str]]
Script = Callable[[str, Any, bytes], Answer]


class Fake(ThreadingHTTPServer):
    """Notes requests as (path, JSON or None, raw body) and answers by a script; counts what runs at one time."""

    daemon_threads = True

    def __init__(self, script: Script) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.lock = script, threading.Lock()
        self.seen: list[tuple[str, Any, bytes]] = []
        self.keys: set[str | None] = set()
        self.running = self.most_running = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Fake

    def do_GET(self) -> None:
        self._send((200, {"data": [{"id": "m"}]}))

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["content-length"]))
        body = json.loads(raw) if self.headers["content-type"] == "application/json" else None
        with self.server.lock:
            self.server.seen.append((self.path, body, raw))
            self.server.keys.add(self.headers["authorization"])
            self.server.running += 1
            self.server.most_running = max(self.server.most_running, self.server.running)
        answer = self.server.script(self.path, body, raw)
        with self.server.lock:
            self.server.running -= 1
        self._send(answer)

    def _send(self, answer: Answer) -> None:
        status, body, *headers = answer
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers[0] if headers else {}).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@contextmanager
def serving(script: Script) -> Iterator[Fake]:
    server = Fake(script)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def chat(text: str | None, **more: Any) -> dict[str, Any]:
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop", **more}
    return {"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}


def echo_chat(_path: str, body: Any, _raw: bytes) -> Answer:
    return 200, chat(f"re: {body['messages'][-1]['content']}")


def connected(url: str, capability: str = "text-generation", *, key: str | None = None, **more: Any) -> OpenAI:
    source = ServerSource(server=url, model="m", api_key_env=key)
    entry = ModelEntry(name="far", capability=capability, backend="openai", source=source, **{"timeout": 5, **more})
    backend = OpenAI(entry, Place(weights=None))
    backend.load()
    return backend


def one(results: list[Output | Failure]) -> Output:
    (result,) = results
    assert isinstance(result, Output), result
    return result


def failed(results: list[Output | Failure]) -> Failure:
    (result,) = results
    assert isinstance(result, Failure), result
    return result


def picture(kind: str = "PNG", media_type: str = "image/png") -> File:
    data = BytesIO()
    Image.new("RGB", (4, 4), "red").save(data, kind)
    return File(name="a", media_type=media_type, data=data.getvalue())


# --- routes -------------------------------------------------------------------------------------------------------


def test_a_request_is_answered_with_its_cost() -> None:
    with serving(echo_chat) as server:
        backend = connected(server.url, params={"system": "Be brief.", "extra_body": {"top_k": 3}})
        output = one(backend.run([Input(text="hello", options={"max_new_tokens": 9, "seed": 4})]))
    assert output.text == "re: hello"
    assert output.usage == {"prompt_tokens": 7, "output_tokens": 3}
    ((path, body, _),) = server.seen
    assert path == "/v1/chat/completions"
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert {name: body[name] for name in ("model", "max_tokens", "seed", "top_k", "temperature")} == {
        "model": "m",
        "max_tokens": 9,
        "seed": 4,
        "top_k": 3,
        "temperature": 0,
    }


def test_a_schema_travels_as_a_strict_response_format() -> None:
    # given a server that follows it
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    with serving(lambda *_: (200, chat(' {"a": 1}'))) as server:
        output = one(connected(server.url).run([Input(text="hello", options={"json_schema": schema})]))
    # then the reply is its JSON
    assert (output.text, OpenAI.constrains) == ('{"a": 1}', True)
    ((_, body, _),) = server.seen
    assert body["response_format"]["type"] == "json_schema"
    assert body["response_format"]["json_schema"] | {"name": "any"} == {"name": "any", "schema": schema, "strict": True}


def test_a_server_that_ignores_the_schema_is_found_out() -> None:
    with serving(lambda *_: (200, chat("Sure! Here you are."))) as server:
        failure = failed(connected(server.url).run([Input(text="hello", options={"json_schema": {"type": "object"}})]))
    assert (failure.kind, "json_schema" in failure.message) == (ErrorKind.MODEL, True)


def test_json_that_the_token_limit_cut_is_handed_over_as_it_is() -> None:
    with serving(lambda *_: (200, chat('{"a": "lo', finish_reason="length"))) as server:
        output = one(connected(server.url).run([Input(text="hello", options={"json_schema": {"type": "object"}})]))
    assert (output.text, output.detail["finish_reason"]) == ('{"a": "lo', "length")


def test_a_schema_that_is_none_is_refused_without_asking() -> None:
    with serving(echo_chat) as server:
        failure = failed(connected(server.url).run([Input(text="hello", options={"json_schema": "{}"})]))
    assert (failure.kind, server.seen) == (ErrorKind.INPUT, [])


def test_many_requests_run_at_the_same_time_up_to_the_limit_and_keep_their_order() -> None:
    def slow(path: str, body: Any, raw: bytes) -> Answer:
        time.sleep(0.05)
        return echo_chat(path, body, raw)

    with serving(slow) as server:
        backend = connected(server.url, params={"concurrency": 4})
        results = backend.run([Input(text=str(number)) for number in range(12)])
    assert [result.text for result in results if isinstance(result, Output)] == [f"re: {n}" for n in range(12)]
    assert 2 <= server.most_running <= 4


@pytest.mark.parametrize(("kind", "media_type"), [("PNG", "image/png"), ("BMP", "image/bmp")])
def test_a_picture_travels_as_a_data_url(kind: str, media_type: str) -> None:
    with serving(lambda *_: (200, chat("a red square"))) as server:
        backend = connected(server.url, "image-to-text/caption")
        item = Input(text="And why?", instruction="Describe it.", files=(picture(kind, media_type),))
        assert one(backend.run([item])).text == "a red square"
    content = server.seen[0][1]["messages"][0]["content"]
    scheme, _, data = content[0]["image_url"]["url"].partition(",")
    assert scheme == "data:image/png;base64"
    assert Image.open(BytesIO(base64.b64decode(data))).size == (4, 4)
    assert content[1] == {"type": "text", "text": "Describe it.\n\nAnd why?"}


def test_sound_travels_as_a_file() -> None:
    with serving(lambda *_: (200, {"text": " hello "})) as server:
        backend = connected(server.url, "automatic-speech-recognition")
        file = File(name="a.wav", media_type="audio/wav", data=b"RIFFsound")
        assert one(backend.run([Input(files=(file,), options={"language": "de"})])).text == "hello"
    ((path, _, raw),) = server.seen
    assert path == "/v1/audio/transcriptions"
    assert b"RIFFsound" in raw
    assert b'name="language"\r\n\r\nde' in raw


def test_embeddings_are_one_request_and_scaled() -> None:
    # given a server that answers in another order
    rows = [{"index": 1, "embedding": [0.0, 2.0]}, {"index": 0, "embedding": [3.0, 4.0]}]
    with serving(lambda *_: (200, {"data": rows})) as server:
        results = connected(server.url, "feature-extraction").run([Input(text="a"), Input(text="b")])
    assert [r.detail["vector"] for r in results if isinstance(r, Output)] == [pytest.approx([0.6, 0.8]), [0.0, 1.0]]
    assert [body["input"] for _, body, _ in server.seen] == [["a", "b"]]


def test_one_refused_text_does_not_take_the_others_with_it() -> None:
    def picky(_path: str, body: Any, _raw: bytes) -> Answer:
        if "bad" in body["input"]:
            return 400, {"error": {"message": "bad text"}}
        return 200, {"data": [{"index": n, "embedding": [1.0]} for n, _ in enumerate(body["input"])]}

    with serving(picky) as server:
        good, bad = connected(server.url, "feature-extraction").run([Input(text="good"), Input(text="bad")])
    assert isinstance(good, Output)
    assert isinstance(bad, Failure)


# --- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "input"), (413, "input"), (415, "input"), (422, "input"), (401, "model"), (404, "model"), (501, "model")],
)
def test_the_status_says_whose_fault_it_was(status: int, kind: str) -> None:
    with serving(lambda *_: (status, {"error": {"message": "the reason"}})) as server:
        failure = failed(connected(server.url).run([Input(text="x")]))
    assert failure.kind is ErrorKind(kind)
    assert "the reason" in failure.message
    assert len(server.seen) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(status: int) -> None:
    def recovers(path: str, body: Any, raw: bytes) -> Answer:
        return echo_chat(path, body, raw) if len(server.seen) > 2 else (status, {"detail": "busy"})

    with serving(recovers) as server:
        assert one(connected(server.url).run([Input(text="x")])).text == "re: x"
    assert len(server.seen) == 3


def test_the_server_says_when_to_come_back() -> None:
    def later(path: str, body: Any, raw: bytes) -> Answer:
        return echo_chat(path, body, raw) if len(server.seen) > 1 else (429, {}, {"retry-after": "0.5"})

    with serving(later) as server:
        began = time.monotonic()
        one(connected(server.url).run([Input(text="x")]))
    assert 0.5 <= time.monotonic() - began < 10


def test_retries_end_before_the_timeout() -> None:
    with serving(lambda *_: (503, {"error": "still loading"})) as server:
        backend = connected(server.url, timeout=3)
        began = time.monotonic()
        failure = failed(backend.run([Input(text="x")]))
    assert time.monotonic() - began < 3
    assert failure.kind is ErrorKind.MODEL
    assert "still loading" in failure.message


def test_a_slow_answer_is_given_up_before_the_timeout_and_the_others_are_kept() -> None:
    def one_slow(path: str, body: Any, raw: bytes) -> Answer:
        if body["messages"][-1]["content"] == "slow":
            time.sleep(5)
        return echo_chat(path, body, raw)

    with serving(one_slow) as server:
        backend = connected(server.url, timeout=3)
        began = time.monotonic()
        fast, slow = backend.run([Input(text="fast"), Input(text="slow")])
        assert time.monotonic() - began < 3
    assert isinstance(fast, Output)
    assert isinstance(slow, Failure)
    assert "in time" in slow.message


@pytest.mark.parametrize("body", [b"<html>", {"choices": []}, {"error": None}, chat(None)])
def test_an_answer_that_is_none_is_a_failure_of_the_model(body: Any) -> None:
    with serving(lambda *_: (200, body)) as server:
        failure = failed(connected(server.url).run([Input(text="x")]))
    assert failure.kind is ErrorKind.MODEL
    assert "Traceback" not in failure.message


def test_the_key_is_sent_and_never_told(monkeypatch: pytest.MonkeyPatch) -> None:
    # given a server that repeats the key in its error
    monkeypatch.setenv("FAR_KEY", KEY)
    with serving(lambda *_: (403, {"error": {"message": f"no access with Bearer {KEY}"}})) as server:
        failure = failed(connected(server.url, key="FAR_KEY").run([Input(text="x")]))
    assert server.keys == {f"Bearer {KEY}"}
    assert KEY not in failure.message
    assert "***" in failure.message


def test_a_key_that_is_not_set_is_named() -> None:
    with pytest.raises(SettingsError, match="FAR_KEY"):
        connected("http://127.0.0.1:9/v1", key="FAR_KEY")


def test_a_server_that_is_not_there_is_found_out_at_once() -> None:
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1 does not answer"):
        connected("http://127.0.0.1:9/v1")


def test_a_model_without_a_server_is_refused() -> None:
    entry = ModelEntry(name="far", capability="text-generation", backend="openai", source=NoSource())
    with pytest.raises(RegistryError, match=r"models\.far\.source"):
        OpenAI(entry, Place(weights=None))


def test_a_wrong_option_is_refused_without_asking() -> None:
    with serving(echo_chat) as server:
        failure = failed(connected(server.url).run([Input(text="x", options={"temperature": "hot"})]))
    assert failure.kind is ErrorKind.INPUT
    assert server.seen == []


# --- probabilities ------------------------------------------------------------------------------------------------


def test_letters_are_read_from_the_top_logprobs() -> None:
    # given A twice, with and without a blank, B once, and C below the 20 likeliest
    top = [
        {"token": token, "logprob": math.log(share)}
        for token, share in (("A", 0.4), (" A", 0.2), ("B", 0.3), ("?", 0.01))
    ]
    with serving(lambda *_: (200, chat("A", logprobs={"content": [{"top_logprobs": top}]}))) as server:
        backend = connected(server.url)
        ((a, b, c),) = backend.option_logprobs(["Which?"], ["A", "B", "C"])
    assert isinstance(backend, LanguageModel)
    assert [math.exp(value) for value in (a, b, c)] == pytest.approx([0.6 / 0.91, 0.3 / 0.91, 0.01 / 0.91])
    assert server.seen[0][1] | {"messages": None} == {
        "model": "m",
        "messages": None,
        "temperature": 0.0,
        "max_tokens": 1,
        "logprobs": True,
        "top_logprobs": 20,
    }


@pytest.mark.parametrize("refusal", [(200, chat("A")), (400, {"error": {"message": "logprobs are not supported"}})])
def test_a_server_without_logprobs_says_so(refusal: Answer) -> None:
    with serving(lambda *_: refusal) as server, pytest.raises(NoProbabilities, match="logprobs"):
        connected(server.url).option_logprobs(["Which?"], ["A", "B"])


def test_a_judge_is_shown_pictures_and_recordings() -> None:
    top = [{"token": token, "logprob": -1.0} for token in ("A", "B")]
    sound = File(name="b", media_type="audio/mpeg", data=b"ID3")
    with serving(lambda *_: (200, chat("A", logprobs={"content": [{"top_logprobs": top}]}))) as server:
        backend = connected(server.url, reads=("image", "audio"))
        backend.option_logprobs_about([picture(), sound], ["Which?"], ["A", "B"])
    image, audio, text = server.seen[0][1]["messages"][0]["content"]
    assert image["image_url"]["url"].startswith("data:image/png;base64,")
    assert audio["input_audio"] == {"data": base64.b64encode(b"ID3").decode(), "format": "mp3"}
    assert text == {"type": "text", "text": "Which?"}


def test_likelihood_is_read_from_prompt_logprobs() -> None:
    # given a server (vLLM) that scores every token of the conversation with -1, two tokens for the template
    def score(_path: str, body: Any, _raw: bytes) -> Answer:
        words = 2 + sum(len(turn["content"].split()) for turn in body["messages"])
        tokens = [None, *({"7": {"logprob": -1.0}} for _ in range(words - 1))]
        return 200, chat("x") | {"prompt_logprobs": tokens}

    with serving(score) as server:
        values = connected(server.url).continuation_logprobs("a b c", ["one", "one two three"])
    assert values == [-1.0, -3.0]


def test_a_server_without_prompt_logprobs_says_what_to_do() -> None:
    with serving(echo_chat) as server, pytest.raises(ServerError, match="likelihood = 'echo'"):
        connected(server.url).continuation_logprobs("a", ["b"])


def test_likelihood_is_read_from_an_echo() -> None:
    # given a server that echoes the prompt letter by letter, each worth -0.5, and adds a letter of its own
    def echo(_path: str, body: Any, _raw: bytes) -> Answer:
        text = body["prompt"] + "!"
        logprobs = {"text_offset": list(range(len(text))), "token_logprobs": [None] + [-0.5] * (len(text) - 1)}
        return 200, {"choices": [{"logprobs": logprobs}]}

    params = {"likelihood": "echo", "echo_before": "U:{prompt}\nA:", "echo_after": "\n"}
    with serving(echo) as server:
        values = connected(server.url, params=params).continuation_logprobs("hi", ["abc"])
    assert values == [-2.0]  # a, b, c and the end
    assert server.seen[0][1]["prompt"] == "U:hi\nA:abc\n"
