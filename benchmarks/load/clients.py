"""Clients of the API that send at their times, whether or not they were answered before (an open loop).

A request's time is counted from when it should have been sent: a server that stalls is not excused from those that it
kept from being sent.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import cycle
from typing import TYPE_CHECKING

import httpx

from db.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Sequence

POLLS_PER_SUBMIT = 8
PATIENCE = 30.0  # seconds for one answer
CAPABILITY = "text-generation"
SETTLED = "done"


@dataclass
class Tally:
    """What the clients saw. Times in seconds."""

    polls: list[float] = field(default_factory=list)
    submits: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    accepted: list[str] = field(default_factory=list)  # ids of tasks
    unanswered: int = 0
    refused_without_time: int = 0  # 429 and 503 that do not say when to come again


class Clients:
    """So many clients in one event loop."""

    def __init__(self, url: str, count: int) -> None:
        self._url = url
        self._count = count

    def poll_alone(self, seconds: float) -> Tally:
        """One client that polls one finished task, one request after the other."""
        return asyncio.run(self._alone(seconds))

    def send(self, rate: float, seconds: float) -> Tally:
        """`rate` requests a second over all clients, for so long; returns when all are answered."""
        return asyncio.run(self._send(rate, seconds))

    async def _alone(self, seconds: float) -> Tally:
        tally = Tally()
        async with self._client() as client:
            task = await self._submit(client, tally, time.perf_counter())
            if task is None:
                raise BakeoffError(f"The API accepts no task: {dict(tally.statuses)}.")
            deadline = time.perf_counter() + PATIENCE
            while (await client.get(f"/v1/tasks/{task}")).json()["status"] != SETTLED:
                if time.perf_counter() > deadline:
                    raise BakeoffError(f"A single task was not done within {PATIENCE:g} s.")
                await asyncio.sleep(0.05)
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                await self._poll(client, tally, task, time.perf_counter())
        return tally

    async def _send(self, rate: float, seconds: float) -> Tally:
        tally = Tally()
        begin = time.perf_counter() + 0.1
        pause = self._count / rate
        async with self._client() as client, asyncio.TaskGroup() as group:
            for number in range(self._count):
                group.create_task(self._one_client(client, tally, begin + pause * number / self._count, pause, seconds))
        return tally

    async def _one_client(
        self, client: httpx.AsyncClient, tally: Tally, begin: float, pause: float, seconds: float
    ) -> None:
        tasks: list[str] = []
        # Every client starts elsewhere in its round, or all would submit in the same second.
        turns = cycle(range(POLLS_PER_SUBMIT + 1))
        for _ in range(random.randrange(POLLS_PER_SUBMIT + 1)):
            next(turns)

        async def submit(due: float) -> None:
            if (task := await self._submit(client, tally, due)) is not None:
                tasks.append(task)

        async with asyncio.TaskGroup() as group:
            for turn in range(int(seconds / pause)):
                due = begin + turn * pause
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                if next(turns) == 0 or not tasks:
                    group.create_task(submit(due))
                else:
                    group.create_task(self._poll(client, tally, tasks[-1], due))

    def _client(self) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        return httpx.AsyncClient(base_url=self._url, timeout=PATIENCE, limits=limits)

    async def _submit(self, client: httpx.AsyncClient, tally: Tally, due: float) -> str | None:
        body = {"request": "Name a river.", "capability": CAPABILITY, "source": "load"}
        answer = await self._answer(client, tally, tally.submits, due, "POST", "/v1/tasks", body)
        if answer is None or answer.status_code not in {200, 202}:
            return None
        task = str(answer.json()["id"])
        tally.accepted.append(task)
        return task

    async def _poll(self, client: httpx.AsyncClient, tally: Tally, task: str, due: float) -> None:
        await self._answer(client, tally, tally.polls, due, "GET", f"/v1/tasks/{task}")

    @staticmethod
    async def _answer(
        client: httpx.AsyncClient,
        tally: Tally,
        times: list[float],
        due: float,
        method: str,
        path: str,
        body: dict[str, str] | None = None,
    ) -> httpx.Response | None:
        try:
            answer = await client.request(method, path, json=body)
        except httpx.TransportError:
            tally.unanswered += 1
            return None
        times.append(time.perf_counter() - due)
        tally.statuses[answer.status_code] += 1
        if answer.status_code in {429, 503} and "retry-after" not in answer.headers:
            tally.refused_without_time += 1
        return answer


def broken_promises(tally: Tally, unfinished: Sequence[str]) -> list[str]:
    """In sentences, what must not be."""
    broken = []
    if failed := sum(count for status, count in tally.statuses.items() if status >= 500):
        broken.append(f"{failed} answers were 5xx: {dict(tally.statuses)}.")
    if tally.unanswered:
        broken.append(f"{tally.unanswered} requests were not answered.")
    if tally.refused_without_time:
        broken.append(f"{tally.refused_without_time} refusals did not say when to come again.")
    if unfinished:
        broken.append(
            f"{len(unfinished)} of {len(tally.accepted)} accepted tasks were not done, {unfinished[0]} first."
        )
    return broken
