"""What an operation asks of whoever runs it: all that the blocking and the asynchronous client do differently.

An operation is a generator. It yields steps and is sent back what came of them; its result is what it returns. A step
that fails by the network is thrown into it as the `httpx.TransportError` that it was.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

from bakeoff_client.bodies import Body
from bakeoff_client.errors import BakeoffError, Fault, error_of

S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Send:
    """Send a request, and read its whole answer. Gives an `Answer`."""

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    json: Any = None
    body: Body | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True  # whether it does no harm to send it twice


@dataclass(frozen=True, kw_only=True)
class Open:
    """Send a request whose answer is read piece by piece. Gives an `Answer`, whose content is empty on success."""

    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    patience: float  # seconds that one piece may take


@dataclass(frozen=True)
class Read:
    """Read the next piece of what was opened last. Gives bytes, or None at the end."""


@dataclass(frozen=True)
class Sleep:
    """Wait. Gives nothing."""

    seconds: float


@dataclass(frozen=True)
class Give(Generic[T]):
    """Hand a value to the caller of an operation that is iterated over."""

    value: T


Step: TypeAlias = Send | Open | Read | Sleep
Flow: TypeAlias = Generator[Step, Any, T]
Stream: TypeAlias = Generator[Step | Give[T], Any, None]


@dataclass(frozen=True)
class Done(Generic[T]):
    """An operation has ended, with this result."""

    value: T


def resume(flow: Generator[S, Any, T], reply: Any = None, error: Exception | None = None) -> S | Done[T]:
    """Hand an operation what came of its step, and get its next step, or its end."""
    try:
        return flow.send(reply) if error is None else flow.throw(error)
    except StopIteration as stop:
        return Done(stop.value)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    content: bytes = b""

    @property
    def ok(self) -> bool:
        """Whether it is a success."""
        return 200 <= self.status < 300

    @property
    def document(self) -> Any:
        """Its JSON document. Raises `Fault` where it is none."""
        try:
            return json.loads(self.content)
        except ValueError:
            shown = self.content[:200].decode(errors="replace")
            raise Fault(f"The answer is no JSON document: {shown!r}", status=self.status) from None

    @property
    def error(self) -> BakeoffError:
        """The error that it is."""
        try:
            document = json.loads(self.content)
        except ValueError:
            document = None
        return error_of(self.status, self.headers, document, self.content.decode(errors="replace"))
