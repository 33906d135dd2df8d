"""The two clients: a blocking one and an asynchronous one. Both run the same operations, step by step."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from contextlib import aclosing, closing
from functools import wraps
from importlib.metadata import PackageNotFoundError, version
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx

from bakeoff_client.bodies import Body
from bakeoff_client.calling import Policy
from bakeoff_client.operations import Operations
from bakeoff_client.steps import Answer, Done, Flow, Give, Open, Read, Send, Sleep, Step, Stream, resume

DEFAULT_URL = "http://127.0.0.1:8000"  # where `bakeoff api` listens by itself

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")


def _policy(url: str | None, api_key: str | None, retries: int) -> Policy:
    url = (url or os.environ.get("BAKEOFF_URL") or DEFAULT_URL).rstrip("/").removesuffix("/v1")
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"url = {url!r} must begin with https:// or http://; see BAKEOFF_URL.")
    key = (api_key or os.environ.get("BAKEOFF_API_KEY") or "").strip()  # a file's last line ends, too
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ValueError("api_key holds characters that no key has; give what `bakeoff keys create` printed.")
    return Policy(url=url, key=key or None, retries=retries)


def _user_agent() -> str:
    try:
        return f"bakeoff-client/{version('bakeoff-client')}"
    except PackageNotFoundError:
        return "bakeoff-client"


def _request(http: httpx.Client | httpx.AsyncClient, policy: Policy, step: Send | Open, content: Any) -> httpx.Request:
    """The request of a step. Its address and its key are ours, whatever the given client has set for others."""
    headers = {"User-Agent": _user_agent(), "Accept": "application/json", **step.headers}
    if policy.key is not None:
        headers["Authorization"] = f"Bearer {policy.key}"
    if isinstance(step, Open):
        timeout = httpx.Timeout(http.timeout)
        timeout.read = step.patience
        return http.build_request("GET", policy.url + step.path, headers=headers, timeout=timeout)
    if step.body is not None:
        headers["Content-Type"] = "application/octet-stream"
        if step.body.size is not None:
            headers["Content-Length"] = str(step.body.size)
    return http.build_request(
        step.method,
        policy.url + step.path,
        params=dict(step.query) or None,
        json=step.json,
        content=content,
        headers=headers,
    )


def _answer(response: httpx.Response, content: bytes = b"") -> Answer:
    return Answer(status=response.status_code, headers=response.headers, content=content)


class _Conversation:
    """One operation's requests, on a blocking client; at most one answer is open at a time."""

    def __init__(self, http: httpx.Client, policy: Policy) -> None:
        self._http = http
        self._policy = policy
        self._response: httpx.Response | None = None
        self._pieces: Iterator[bytes] = iter(())

    def perform(self, step: Step) -> Any:
        if isinstance(step, Sleep):
            time.sleep(step.seconds)
            return None
        if isinstance(step, Read):
            return next(self._pieces, None)
        self.close()
        content = step.body.pieces() if isinstance(step, Send) and step.body is not None else None
        request = _request(self._http, self._policy, step, content)
        response = self._http.send(request, stream=True)
        self._response = response
        if isinstance(step, Open) and response.is_success:
            self._pieces = response.iter_bytes()
            return _answer(response)
        answer = _answer(response, response.read())
        self.close()
        return answer

    def exchange(self, flow: Generator[S, Any, T], step: Step) -> S | Done[T]:
        """Take a step of an operation, and return the one after it."""
        try:
            reply = self.perform(step)
        except httpx.TransportError as error:
            return resume(flow, error=error)
        return resume(flow, reply)

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None


class _AsyncConversation:
    """The same on an asynchronous client."""

    def __init__(self, http: httpx.AsyncClient, policy: Policy) -> None:
        self._http = http
        self._policy = policy
        self._response: httpx.Response | None = None
        self._pieces: AsyncIterator[bytes] | None = None

    async def perform(self, step: Step) -> Any:
        if isinstance(step, Sleep):
            await asyncio.sleep(step.seconds)
            return None
        if isinstance(step, Read):
            return None if self._pieces is None else await anext(self._pieces, None)
        await self.aclose()
        content = _pieces(step.body) if isinstance(step, Send) and step.body is not None else None
        request = _request(self._http, self._policy, step, content)
        response = await self._http.send(request, stream=True)
        self._response = response
        if isinstance(step, Open) and response.is_success:
            self._pieces = response.aiter_bytes()
            return _answer(response)
        answer = _answer(response, await response.aread())
        await self.aclose()
        return answer

    async def exchange(self, flow: Generator[S, Any, T], step: Step) -> S | Done[T]:
        try:
            reply = await self.perform(step)
        except httpx.TransportError as error:
            return resume(flow, error=error)
        return resume(flow, reply)

    async def aclose(self) -> None:
        if self._response is not None:
            await self._response.aclose()
            self._response = None


async def _pieces(body: Body) -> AsyncIterator[bytes]:
    """A file's bytes, read in a thread: the event loop waits for no disk."""
    pieces = body.pieces()
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece


def _once(operation: Callable[Concatenate[Operations, P], Flow[T]]) -> Callable[Concatenate[Client, P], T]:
    @wraps(operation)
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._run(operation(self._operations, *args, **kwargs))

    return method


def _each(operation: Callable[Concatenate[Operations, P], Stream[T]]) -> Callable[Concatenate[Client, P], Iterator[T]]:
    @wraps(operation)
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return self._iterate(operation(self._operations, *args, **kwargs))

    return method


class Client:
    """Calls a Bakeoff server, and blocks until it has answered. Threads may share one.

    `url` and `api_key` come from BAKEOFF_URL and BAKEOFF_API_KEY where they are left out. `retries` bounds how often
    what was refused (429, 503), or got no answer, is tried again. `http` is a client of your own, with your proxies
    and certificates; close it yourself.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        http: httpx.Client | None = None,
        timeout: float = 30.0,
        retries: int = 5,
    ) -> None:
        self._policy = _policy(url, api_key, retries)
        self._operations = Operations(self._policy)
        self._http = http or httpx.Client(timeout=timeout)
        self._owned = http is None

    submit = _once(Operations.submit)
    submit_many = _once(Operations.submit_many)
    upload = _once(Operations.upload)
    download = _each(Operations.download)
    get = _once(Operations.get)
    list = _each(Operations.list)
    wait = _once(Operations.wait)
    wait_all = _once(Operations.wait_all)
    stream = _each(Operations.stream)
    ends = _each(Operations.ends)
    why = _once(Operations.why)
    cancel = _once(Operations.cancel)
    retry = _once(Operations.retry)
    prefer = _once(Operations.prefer)
    models = _once(Operations.models)
    leaderboard = _once(Operations.leaderboard)

    def _run(self, flow: Flow[T]) -> T:
        with closing(_Conversation(self._http, self._policy)) as conversation:
            step = resume(flow)
            while not isinstance(step, Done):
                step = conversation.exchange(flow, step)
            return step.value

    def _iterate(self, flow: Stream[T]) -> Iterator[T]:
        with closing(flow), closing(_Conversation(self._http, self._policy)) as conversation:
            step = resume(flow)
            while not isinstance(step, Done):
                if isinstance(step, Give):
                    yield step.value
                    step = resume(flow)
                else:
                    step = conversation.exchange(flow, step)

    def close(self) -> None:
        """Close the connections, unless they are those of a client of yours."""
        if self._owned:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _awaited(
    operation: Callable[Concatenate[Operations, P], Flow[T]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    @wraps(operation)
    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(operation(self._operations, *args, **kwargs))

    return method


def _async_each(
    operation: Callable[Concatenate[Operations, P], Stream[T]],
) -> Callable[Concatenate[AsyncClient, P], AsyncIterator[T]]:
    @wraps(operation)
    def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        return self._iterate(operation(self._operations, *args, **kwargs))

    return method


class AsyncClient:
    """The same, for asyncio: `await` an operation, `async for` over an iterator."""

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        http: httpx.AsyncClient | None = None,
        timeout: float = 30.0,
        retries: int = 5,
    ) -> None:
        self._policy = _policy(url, api_key, retries)
        self._operations = Operations(self._policy)
        self._http = http or httpx.AsyncClient(timeout=timeout)
        self._owned = http is None

    submit = _awaited(Operations.submit)
    submit_many = _awaited(Operations.submit_many)
    upload = _awaited(Operations.upload)
    download = _async_each(Operations.download)
    get = _awaited(Operations.get)
    list = _async_each(Operations.list)
    wait = _awaited(Operations.wait)
    wait_all = _awaited(Operations.wait_all)
    stream = _async_each(Operations.stream)
    ends = _async_each(Operations.ends)
    why = _awaited(Operations.why)
    cancel = _awaited(Operations.cancel)
    retry = _awaited(Operations.retry)
    prefer = _awaited(Operations.prefer)
    models = _awaited(Operations.models)
    leaderboard = _awaited(Operations.leaderboard)

    async def _run(self, flow: Flow[T]) -> T:
        async with aclosing(_AsyncConversation(self._http, self._policy)) as conversation:
            step = resume(flow)
            while not isinstance(step, Done):
                step = await conversation.exchange(flow, step)
            return step.value

    async def _iterate(self, flow: Stream[T]) -> AsyncIterator[T]:
        with closing(flow):
            async with aclosing(_AsyncConversation(self._http, self._policy)) as conversation:
                step = resume(flow)
                while not isinstance(step, Done):
                    if isinstance(step, Give):
                        yield step.value
                        step = resume(flow)
                    else:
                        step = await conversation.exchange(flow, step)

    async def aclose(self) -> None:
        """Close the connections, unless they are those of a client of yours."""
        if self._owned:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
