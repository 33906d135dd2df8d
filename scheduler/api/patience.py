"""How long a connection may take to say what it wants, and to read what it is told: uvicorn itself waits for ever."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

WITHIN = 20.0  # seconds for the head of a request, from the connection or from its first byte
UNREAD = 120.0  # seconds in which at least something of an answer is taken; the kernel takes it in large steps


class Impatient(H11Protocol):
    """Closes a connection that sends half a head and then nothing or a byte now and then, or never reads its answer."""

    within = WITHIN
    unread = UNREAD
    _closing: asyncio.TimerHandle | None = None
    _watching: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._closing = self.loop.call_later(self.within, self._close)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._be_calm()
        elif self._closing is None and self.conn.trailing_data[0]:
            self._closing = self.loop.call_later(self.within, self._close)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._be_calm()
        self._watch_no_longer()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._watch_no_longer()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """See uvicorn."""
        super().timeout_keep_alive_handler()
        self._close()

    def _close(self) -> None:
        """Once what is written has been read, for which nobody waits for ever."""
        self.transport.close()
        self._watch()

    def _watch(self) -> None:
        self._watch_no_longer()
        if left := self.transport.get_write_buffer_size():
            self._watching = self.loop.call_later(self.unread, self._look, left)

    def _look(self, before: int) -> None:
        if self.transport.get_write_buffer_size() >= before:
            self.transport.abort()
        else:
            self._watch()

    def _watch_no_longer(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None

    def _be_calm(self) -> None:
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
