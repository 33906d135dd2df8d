"""Connections that send half a head or read nothing are closed; those that ask, wait, read slowly and ask again are not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn

from scheduler.api.patience import Impatient

pytestmark = pytest.mark.api  # it waits for time-outs


class Hasty(Impatient):
    within = 1.5
    unread = 4.0


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body, waits longer than a head may take, and answers."""
    while (await receive()).get("more_body"):
        pass
    await asyncio.sleep(2)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


PIECES = 48  # megabytes: more than the kernel keeps for a connection


class Large:
    """An answer of many pieces, and whether it is still being given."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def __call__(self, _: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        for number in range(PIECES):
            await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": number < PIECES - 1})
        self.ended.set()


@contextlib.asynccontextmanager
async def served(application: Any = application) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    config = uvicorn.Config(application, port=0, http=Hasty, lifespan="off", log_config=None, timeout_keep_alive=5)
    server = uvicorn.Server(config)
    listening = config.bind_socket()
    task = asyncio.create_task(server.serve([listening]))
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    reader, writer = await asyncio.open_connection(*listening.getsockname()[:2])
    yield reader, writer
    writer.close()
    server.should_exit = True
    await task


ASK = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize("first", [b"", ASK], ids=["at first", "after an answer"])
@pytest.mark.parametrize("part", [b"", b"GET / HTTP/1.1\r\nHost: loc"], ids=["nothing", "half a head"])
def test_half_a_head_is_not_waited_for(first: bytes, part: bytes) -> None:
    async def told() -> bytes:
        async with served() as (reader, writer):
            if first:
                writer.write(first)
                await asyncio.wait_for(reader.readuntil(b"ok"), 30)
            writer.write(part)
            return await asyncio.wait_for(reader.read(), 30)  # to its end

    assert asyncio.run(told()) == b""


def test_a_slow_answer_a_slow_body_and_a_second_question_are() -> None:
    async def told() -> list[bytes]:
        async with served() as (reader, writer):
            found = []
            for request in (ASK, b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\na"):
                writer.write(request)
                await asyncio.sleep(2)
                writer.write(b"b" if request != ASK else b"")
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
                found.append(head.splitlines()[0] + await reader.readexactly(2))
                await asyncio.sleep(2)  # idle in between
            return found

    assert asyncio.run(told()) == [b"HTTP/1.1 200 OKok"] * 2


def test_an_answer_that_nobody_reads_is_not_held_for_ever() -> None:
    async def told() -> None:
        large = Large()
        async with served(large) as (reader, writer):
            writer.write(ASK)
            await reader.readuntil(b"\r\n\r\n")  # and not a byte more than asyncio reads ahead
            await asyncio.wait_for(large.ended.wait(), 60)

    asyncio.run(told())


def test_an_answer_that_is_read_slowly_comes_whole() -> None:
    async def told() -> int:
        async with served(Large()) as (reader, writer):
            writer.write(ASK)
            await reader.readuntil(b"\r\n\r\n")
            got = 0
            while piece := await reader.read(1 << 16):
                got += len(piece)
                await asyncio.sleep(0.008)  # more than `unread` for all of it
            return got

    assert asyncio.run(told()) >= PIECES << 20
