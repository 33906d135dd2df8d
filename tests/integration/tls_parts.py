"""TLS in front of servers that have none: the packaged Postgres and Valkey are built without it.

What is tested is our side of the wire, which is all that a setting of ours decides: Postgres' own opening (a client
asks for TLS in the clear, and goes on within it), client certificates, and servers that speak nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import trustme

ASKS = {80877103: b"S", 80877104: b"N"}  # Postgres: whether the server speaks TLS, GSS


@dataclass(frozen=True)
class Papers:
    """Files of an authority, of a client that it knows, and of an authority that nobody knows."""

    authority: trustme.CA
    ca: Path
    certificate: Path
    key: Path
    stranger: Path


def make_papers(folder: Path) -> Papers:
    """Made anew: nothing of it is worth keeping secret."""
    authority = trustme.CA()
    papers = Papers(authority, *(folder / name for name in ("ca.pem", "client.pem", "client.key", "stranger.pem")))
    authority.cert_pem.write_to_path(papers.ca)
    trustme.CA().cert_pem.write_to_path(papers.stranger)
    client = authority.issue_cert("client@example.org")
    client.cert_chain_pems[0].write_to_path(papers.certificate)
    papers.key.touch(mode=0o600)  # libpq insists
    client.private_key_pem.write_to_path(papers.key)
    return papers


@dataclass
class Front:
    """A server that speaks TLS only, asks for a client certificate, is named `localhost`, and hands on what it hears."""

    papers: Papers
    target: tuple[str, int]
    postgres: bool = False
    port: int = 0
    upstream: set[int] = field(default_factory=set)  # our ends of the connections behind it
    plain: int = 0  # connections that asked for no TLS

    async def serve(self, started: threading.Event, stop: asyncio.Event) -> None:
        """Until stopped."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.papers.ca))
        context.verify_mode = ssl.CERT_REQUIRED
        self.papers.authority.issue_cert("localhost").configure_cert(context)
        at_once = None if self.postgres else context
        server = await asyncio.start_server(lambda r, w: self._serve(r, w, context), "127.0.0.1", 0, ssl=at_once)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await stop.wait()
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError):
            if self.postgres and not await self._opened(reader, writer, context):
                self.plain += 1
                writer.close()
                return
            there, onward = await asyncio.open_connection(*self.target)
            self.upstream.add(onward.get_extra_info("sockname")[1])
            await asyncio.gather(_pump(reader, onward), _pump(there, writer))

    @staticmethod
    async def _opened(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext) -> bool:
        while True:
            said = ASKS.get(int.from_bytes((await reader.readexactly(8))[4:], "big"))
            if said is None:
                return False
            writer.write(said)
            if said == b"S":
                await writer.start_tls(context)
                return True


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextlib.contextmanager
def fronts(*all_of_them: Front) -> Iterator[None]:
    """Serve until the end of the block."""
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    started = [threading.Event() for _ in all_of_them]

    async def serve() -> None:
        await asyncio.gather(*(front.serve(one, stop) for front, one in zip(all_of_them, started, strict=True)))
        open_yet = asyncio.all_tasks() - {asyncio.current_task()}
        for task in open_yet:
            task.cancel()
        await asyncio.gather(*open_yet, return_exceptions=True)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    for one in started:
        assert one.wait(30)
    yield
    loop.call_soon_threadsafe(stop.set)
    thread.join(30)
