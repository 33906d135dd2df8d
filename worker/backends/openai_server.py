"""Requests to an OpenAI-compatible server: one client, bounded concurrency, retries within a deadline, plain errors."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
import tenacity

from db.errors import SettingsError, Unreachable
from db.secrets import secret_of
from db.states import ErrorKind
from worker.backends import BadInput, Failure, failure_from

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from db.sources import ServerSource

    Given = TypeVar("Given")
    Got = TypeVar("Got")

REFUSED_INPUT = frozenset({400, 413, 415, 422})  # what the server says of this very input
LATER = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})  # worth another try
CONNECT_SECONDS = 5.0
LONGEST_WAIT = 30.0


class ServerError(Exception):
    """The server failed, or answered something that is no answer."""


class TryLater(ServerError):
    """It may answer if asked again; `after` seconds where it says so."""

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


@dataclass(frozen=True)
class Deadline:
    """A moment of the monotonic clock."""

    at: float

    @classmethod
    def within(cls, seconds: float) -> Deadline:
        """The moment this many seconds from now."""
        return cls(time.monotonic() + seconds)

    @property
    def left(self) -> float:
        """Seconds until then, at least a blink: a time-out of 0 would mean none."""
        return max(0.01, self.at - time.monotonic())


class Server:
    """A base URL with its key. `close` it in the end."""

    def __init__(self, name: str, source: ServerSource, concurrency: int) -> None:
        self._key = _api_key(name, source)
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
        self._client = httpx.Client(
            base_url=source.server.rstrip("/") + "/", headers=headers, http2=True, limits=limits
        )
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix=name)
        self._host = httpx.URL(source.server).host

    def each(self, items: Sequence[Given], ask: Callable[[Given], Got]) -> list[Got | Failure]:
        """Ask for every item, some at the same time; results in their order, a failure in the place of an error."""

        def guarded(item: Given) -> Got | Failure:
            try:
                return ask(item)
            except (KeyError, IndexError, TypeError, AttributeError) as error:
                reason = f"{self._host} answered something unexpected ({type(error).__name__}: {error})"
                return Failure(kind=ErrorKind.MODEL, code="unexpected_reply", message=reason)
            except Exception as error:  # noqa: BLE001 - whatever went wrong, the other items go on
                return failure_from(error)

        return list(self._pool.map(guarded, items))

    def alive(self, seconds: float) -> None:
        """Ask for the list of models, to find out early. Raises `Unreachable`."""
        try:
            reply = self._client.get("models", timeout=seconds)
        except httpx.HTTPError as error:
            raise Unreachable(f"{self._host} does not answer: {self._one_line(str(error))}.") from None
        if reply.status_code in {401, 403} or reply.status_code >= 500:  # 404: some servers keep no list
            raise Unreachable(f"{self._host} refuses with {reply.status_code}: {self._message(reply)}")

    def post(self, path: str, deadline: Deadline, **request: Any) -> Any:
        """The JSON of a reply. Raises `BadInput` where the server refuses the input, else `ServerError`.

        A server that is busy or away is asked again, with growing pauses or after the time that it names, until the
        deadline.
        """
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(TryLater),
            wait=_pause,
            stop=tenacity.stop_before_delay(deadline.left),
            reraise=True,
        )
        return attempts(self._post_once, path, deadline, request)

    def _post_once(self, path: str, deadline: Deadline, request: dict[str, Any]) -> Any:
        timeout = httpx.Timeout(deadline.left, connect=min(CONNECT_SECONDS, deadline.left))
        try:
            reply = self._client.post(path, timeout=timeout, **request)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.RemoteProtocolError, httpx.ReadError) as error:
            raise TryLater(f"{self._host} does not answer: {self._one_line(str(error))}") from None
        except httpx.TimeoutException:
            raise ServerError(f"{self._host} did not answer in time") from None
        except httpx.HTTPError as error:
            raise ServerError(f"{self._host}: {self._one_line(str(error))}") from None
        if reply.is_success:
            try:
                return reply.json()
            except ValueError:
                raise ServerError(f"{self._host} answered no JSON: {self._one_line(reply.text)}") from None
        what = f"{self._host} says {reply.status_code}: {self._message(reply)}"
        if reply.status_code in REFUSED_INPUT:
            raise BadInput(what)
        if reply.status_code in LATER:
            raise TryLater(what, _seconds(reply.headers.get("retry-after")))
        raise ServerError(what)

    def close(self) -> None:
        """Close connections; requests under way are not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _message(self, reply: httpx.Response) -> str:
        """What the server says in its own words: OpenAI's `error.message`, FastAPI's `detail`, or the text."""
        try:
            read = reply.json()
            said = read.get("error", read.get("detail", read.get("message", read)))
            said = said.get("message", said) if isinstance(said, dict) else said
        except (ValueError, AttributeError):
            said = reply.text
        return self._one_line(str(said)) or "no reason given"

    def _one_line(self, text: str) -> str:
        line = " ".join(text.split())
        return (line.replace(self._key, "***") if self._key else line)[:300]


def _api_key(name: str, source: ServerSource) -> str:
    if source.api_key_env is None:
        return ""
    key = secret_of(source.api_key_env)
    if key is None:
        raise SettingsError(
            f"models.{name}.source.api_key_env names {source.api_key_env}, which is neither set in this environment "
            "nor a file in a folder of BAKEOFF_SECRETS."
        )
    return key


def _pause(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, TryLater) and error.after is not None:
        return error.after
    return float(tenacity.wait_random_exponential(multiplier=0.25, max=LONGEST_WAIT)(state))


def _seconds(header: str | None) -> float | None:
    try:
        return max(0.0, float(header or ""))
    except ValueError:
        return None  # a date, or nothing: our own pauses do
