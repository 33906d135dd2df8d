"""Who asks: a key, or on a loopback address without any key, the person at this machine.

A key is looked up once in a few seconds, not per request; a revoked one works for that long. Each key has a bucket of
requests per second in each process, and so many requests that it may hold at once.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool

from db.engine import transaction
from db.errors import SettingsError
from db.keys import TOKEN, ApiKey, Scope, any_key, store_first_key, verified_key
from scheduler.api.problems import Forbidden, TooMany, Unauthorized

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from db.settings import Settings

REMEMBERED = 5.0  # seconds
MOST_REMEMBERED = 10_000  # tokens, right or wrong
BURST = 2.0  # seconds' worth of requests that may come at once
LOOPBACK_NAMES = {"localhost", "127.0.0.1", "::1", "[::1]"}

#: The key that a request brings, if any.
Bearer = Annotated[
    HTTPAuthorizationCredentials | None,
    Depends(HTTPBearer(auto_error=False, description="A key of `bakeoff keys create`.")),
]


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks. `source`: the only one whose tasks they write and see; None is every one."""

    name: str
    source: str | None
    key: ApiKey | None = None

    def sees(self, source: str) -> bool:
        """Whether a task of this source is theirs to see."""
        return self.source is None or self.source == source

    def may(self, scope: Scope) -> bool:
        """Whether what needs this scope is open to them."""
        return self.key is None or self.key.may(scope)

    def check_may(self, scope: Scope) -> None:
        """Raise `Forbidden` where it is not."""
        if self.key is not None and not self.key.may(scope):
            held = ", ".join(self.key.scopes)
            raise Forbidden(f"This needs a key with the scope {scope}; this one has: {held}.")

    def source_of(self, said: str | None) -> str:
        """The source of a task that they store. Raises `Forbidden` where their key is bound to another."""
        if self.source is not None and said not in {None, self.source}:
            raise Forbidden(f"source: this key stores tasks of source {self.source!r} only; leave the field out.")
        return said or self.source or "api"


def brought(request: Request) -> tuple[str, str | None]:
    """Name and key that a request brings: Bearer has no name, HTTP Basic the key as its password."""
    scheme, _, said = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return "", said.strip() or None
    try:
        user, _, key = base64.b64decode(said, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return "", None
    return user, key


def is_loopback(host: str) -> bool:
    """Whether an address is only reached from this machine."""
    if host in LOOPBACK_NAMES:
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Access:
    """The door of one process."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._settings = settings
        self._engine = engine
        self._known: dict[bytes, tuple[float, ApiKey | None]] = {}
        self._buckets: dict[object, tuple[float, float]] = {}
        self._held: Counter[object] = Counter()
        self._guarded = not is_loopback(settings.api_host)
        self._looked = float("-inf")

    def check_start(self) -> None:
        """Store the first key where one is set; raises `SettingsError` where others could reach an API without any."""
        if self._settings.api_first_key is not None:
            with transaction(self._engine) as connection:
                store_first_key(connection, self._settings.api_first_key.get_secret_value())
        if self._guarded:
            with transaction(self._engine) as connection:
                if not any_key(connection):
                    raise SettingsError(
                        f"BAKEOFF_API_HOST = {self._settings.api_host!r} is reached from other machines, and there is "
                        "no key. Make one with `bakeoff keys create --scope admin`, or listen on 127.0.0.1."
                    )

    async def caller(self, request: Request, token: str | None) -> Caller:
        """Who asks. Raises `Unauthorized`, `Forbidden` or `TooMany`."""
        caller = await self.known(request, token)
        if caller.key is not None:
            self._take(caller.key)
        return caller

    async def known(self, request: Request, token: str | None) -> Caller:
        """The same, before a body is read: takes nothing off a key's rate. Raises `Unauthorized` or `Forbidden`."""
        if not await self._needs_key():  # whatever is sent: some clients cannot be without a key
            _refuse_other_sites(request)
            return Caller(name="local", source=None)
        key = None if token is None else await self._key(token)
        if key is None:
            raise Unauthorized(
                "This API asks for a key: send `Authorization: Bearer KEY`."
                if token is None
                else "This key is unknown or revoked; `bakeoff keys list` shows those there are."
            )
        return Caller(name=key.name, source=key.source, key=key)

    @contextmanager
    def holding(self, caller: Caller, what: str = "requests") -> Iterator[None]:
        """Count a request of a key until it is answered: streams of one leave room for others. Raises `TooMany`.

        Each kind is counted by itself: a request whose body is still to come is unknown to its endpoint.
        """
        if caller.key is None:
            yield
            return
        most, key = self._settings.api_max_per_key, (caller.key.id, what)
        if self._held[key] >= most:
            raise TooMany(f"This key holds {most} {what} at once, which BAKEOFF_API_MAX_PER_KEY allows.", 1)
        self._held[key] += 1
        try:
            yield
        finally:
            self._held[key] -= 1

    async def _needs_key(self) -> bool:
        """On loopback only once there is a key, for ever after."""
        if not self._guarded and time.monotonic() - self._looked > REMEMBERED:
            self._guarded = await run_in_threadpool(self._any_key)
            self._looked = time.monotonic()
        return self._guarded

    def _any_key(self) -> bool:
        with transaction(self._engine) as connection:
            return any_key(connection)

    async def _key(self, token: str) -> ApiKey | None:
        if TOKEN.fullmatch(token) is None:
            return None  # nobody asks the database about it
        digest = hashlib.sha256(token.encode()).digest()  # no key lies in memory longer than its request
        until, key = self._known.get(digest, (0.0, None))
        if until < time.monotonic():
            key = await run_in_threadpool(self._verify, token)
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()
            self._known[digest] = time.monotonic() + REMEMBERED, key
        return key

    def _verify(self, token: str) -> ApiKey | None:
        with transaction(self._engine) as connection:
            return verified_key(connection, token)

    def _take(self, key: ApiKey) -> None:
        rate = self._settings.api_rate
        if not rate:
            return
        now, most = time.monotonic(), max(1.0, BURST * rate)
        left, at = self._buckets.get(key.id, (most, now))
        left = min(most, left + (now - at) * rate)
        if left < 1:
            raise TooMany(f"This key may send {rate:g} requests a second.", (1 - left) / rate)
        self._buckets[key.id] = left - 1, now


def _refuse_other_sites(request: Request) -> None:
    """Without a key, a page of another site that the person at this machine looks at must not reach us."""
    host = request.headers.get("host", "").lower()
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    if not is_loopback(name):
        raise Forbidden(f"Without a key this API answers on its own machine only, and was called {name[:100]!r}.")
    if request.headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}:
        raise Forbidden("Without a key this API answers no page of another site.")


async def _caller(request: Request, credentials: Bearer) -> AsyncIterator[Caller]:
    access: Access = request.app.state.access
    caller = await access.caller(request, credentials.credentials if credentials else None)
    with access.holding(caller):
        yield caller


def _needs(scope: Scope) -> Callable[..., Awaitable[Caller]]:
    async def check(caller: Annotated[Caller, Depends(_caller)]) -> Caller:
        caller.check_may(scope)
        return caller

    return check


#: What an endpoint asks for, by scope.
Submitter = Annotated[Caller, Depends(_needs(Scope.SUBMIT))]
Reader = Annotated[Caller, Depends(_needs(Scope.READ))]
Admin = Annotated[Caller, Depends(_needs(Scope.ADMIN))]
