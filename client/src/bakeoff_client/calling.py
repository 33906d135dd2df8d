"""One request until it is answered: tried again where that can help and does no harm, a bounded number of times."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import httpx

from bakeoff_client.errors import BakeoffError, Refused, Unreachable
from bakeoff_client.steps import Answer, Flow, Send, Sleep

FIRST_DELAY = 0.25  # seconds; doubles each time
LONGEST_DELAY = 8.0
LONGEST_OBEYED = 60.0  # a server that says "in an hour" is not waited for here
#: The connection was never made: the server has seen nothing of the request.
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
GATEWAYS = {502, 504}  # a proxy does not know what became of the request
TOO_MANY = 429  # nobody began with it; a 503 may be a proxy's, or of a commit whose answer was lost


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Whom to call, and how often. `retries`: attempts after the first."""

    url: str
    key: str | None = field(default=None, repr=False)
    retries: int = 5
    clock: Callable[[], float] = time.monotonic


def delay_of(attempt: int, error: BakeoffError | None = None) -> float:
    """Seconds before the attempt after this one: what the server said, or twice as long each time, with jitter."""
    own = min(FIRST_DELAY * 2.0 ** (attempt - 1), LONGEST_DELAY) * random.uniform(0.5, 1)  # noqa: S311 - no secret
    said = error.retry_after if error is not None else None
    return own if said is None else max(said, own)


def unreachable(error: httpx.TransportError, policy: Policy) -> Unreachable:
    """What the caller is told of a network that failed."""
    reason = str(error) or type(error).__name__
    return Unreachable(f"{policy.url} does not answer ({reason}). Check the URL, and that `bakeoff api` runs there.")


def call(policy: Policy, request: Send) -> Flow[Answer]:
    """The answer to a request. Raises the error that a failure is."""
    rewindable = request.body is None or request.body.rewindable
    for attempt in count(1):
        failed: BakeoffError
        try:
            answer: Answer = yield request
        except httpx.TransportError as error:
            failed = unreachable(error, policy)
            again = request.repeatable or isinstance(error, NEVER_SENT)
        else:
            if answer.ok:
                return answer
            failed = answer.error
            refused = isinstance(failed, Refused) and (request.repeatable or answer.status == TOO_MANY)
            again = refused or (answer.status in GATEWAYS and request.repeatable)
        delay = delay_of(attempt, failed)
        if not again or not rewindable or attempt > policy.retries or delay > LONGEST_OBEYED:
            raise failed from None
        yield Sleep(delay)
    raise AssertionError  # count() has no end
