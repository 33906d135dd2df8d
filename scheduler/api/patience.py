"""How long a connection may take to say what it wants: uvicorn itself waits for ever."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

WITHIN = 20.0  # seconds for the head of a request, from the connection or from its first byte


class Impatient(H11Protocol):
    """Closes a connection that sends half a head and then nothing, or a byte now and then."""

    within = WITHIN
    _closing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._closing = self.loop.call_later(self.within, transport.close)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._be_calm()
        elif self._closing is None and self.conn.trailing_data[0]:
            self._closing = self.loop.call_later(self.within, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._be_calm()
        super().connection_lost(exc)

    def _be_calm(self) -> None:
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
