"""Server-sent events: reading them, and coming back where a stream breaks off, with the id that was seen last."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import httpx

from bakeoff_client.calling import Policy, delay_of, unreachable
from bakeoff_client.errors import BakeoffError, Fault, Refused, Unreachable
from bakeoff_client.records import FINAL
from bakeoff_client.steps import Answer, Flow, Give, Open, Read, Sleep, Stream

PATIENCE = 60.0  # seconds without a byte after which a stream is dead; the server sends a comment every 15
SLACK = 1.0  # seconds by which a read may outlast a deadline
ACCEPT = "text/event-stream"

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Event:
    """One event. `id` is what to come back with."""

    id: str
    name: str
    data: str

    @property
    def document(self) -> Mapping[str, Any]:
        """Its JSON document. Raises `Fault` where it is none."""
        try:
            found = json.loads(self.data)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise Fault(f"An event is no JSON object: {self.data[:200]!r}")
        return found


class Parser:
    """Bytes in, events out, wherever the pieces are cut."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self._rest = ""
        self._fields: dict[str, list[str]] = {}
        self.last: str | None = None  # the id that was said last, by an event or by itself

    def feed(self, piece: bytes) -> Iterator[Event]:
        """The events that are whole now."""
        self._rest += self._decode(piece)
        ends = self._rest.endswith("\r")  # its "\n" may come with the next piece
        lines = self._rest.removesuffix("\r").replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self._rest = lines.pop() + ("\r" if ends else "")
        for line in lines:
            event = self._line(line)
            if event is not None:
                yield event

    def _line(self, line: str) -> Event | None:
        if line:
            name, _, value = line.partition(":")
            self._fields.setdefault(name, []).append(value.removeprefix(" "))
            return None
        fields, self._fields = self._fields, {}
        self.last = fields.get("id", [self.last])[-1] or self.last
        if "data" not in fields:
            return None  # a comment, or an id alone
        return Event(
            id=fields.get("id", [""])[-1], name=fields.get("event", ["message"])[-1], data="\n".join(fields["data"])
        )


def opened(policy: Policy, path: str, patience: float, last: str | None = None) -> Flow[None]:
    """Open a stream of events. Raises the error that the answer is, or `Fault` where it is no stream."""
    headers = {"Accept": ACCEPT} | ({} if last is None else {"Last-Event-ID": last})
    try:
        answer: Answer = yield Open(path=path, headers=headers, patience=patience)
    except httpx.TransportError as error:
        raise unreachable(error, policy) from None
    if not answer.ok:
        raise answer.error
    kind = answer.headers.get("content-type", "")
    if not kind.startswith(ACCEPT):
        raise Fault(f"{path} is no stream of events here, but {kind or 'nothing'}.", code="no_stream")


def events(
    policy: Policy,
    path: str,
    read: Callable[[Event], T],
    *,
    last: str | None = None,
    is_last: Callable[[T], bool] = lambda _: False,
) -> Stream[T]:
    """What the events of a stream say, over as many connections as it takes; it ends after one that `is_last`.

    A stream that breaks off without a byte `policy.retries` times in a row is an error.
    """
    failures = 0
    while True:
        problem: BakeoffError | None = None
        try:
            yield from opened(policy, path, PATIENCE, last)
            parser = Parser()
            while (piece := (yield Read())) is not None:
                failures = 0
                for event in parser.feed(piece):
                    last = event.id or last
                    value = read(event)
                    yield Give(value)
                    if is_last(value):
                        return
                last = parser.last or last
        except httpx.TransportError as error:
            problem = unreachable(error, policy)
        except (Refused, Unreachable) as error:
            problem = error
        failures += 1
        if failures > policy.retries:
            raise problem or Unreachable(f"{policy.url}{path} ends again and again without saying anything.")
        yield Sleep(delay_of(failures, problem))


Heard = Literal["end", "more", "nothing"]


def until_final(policy: Policy, path: str, left: Callable[[], float]) -> Flow[Heard]:
    """Follow one task on one connection, until it ends, or `left()` seconds are over.

    `more`: the stream broke off, or is to be opened anew with less patience. `nothing`: there is no stream, or it is
    held back on its way; ask from time to time instead. Raises `Refused` or `Unreachable`.
    """
    patience = max(0.0, min(PATIENCE, left()))
    try:
        yield from opened(policy, path, patience)
    except (Refused, Unreachable):
        raise
    except BakeoffError:
        return "nothing"
    parser, heard = Parser(), False
    while left() >= patience - SLACK:  # so no read outlasts the deadline by more than the slack
        try:
            piece = yield Read()
        except httpx.TimeoutException:
            return "more" if heard or patience < PATIENCE else "nothing"
        except httpx.TransportError as error:
            raise unreachable(error, policy) from None
        if piece is None:
            return "more" if heard else "nothing"
        heard = True
        if any(event.document.get("status") in FINAL for event in parser.feed(piece)):
            return "end"
    return "more"
