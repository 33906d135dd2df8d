"""The socket of the API: answers leave at once, and a port that is taken is said in a sentence."""

from __future__ import annotations

import socket

import pytest
import uvicorn

from db.errors import RefusedNow
from scheduler.cli.api import listen


def test_what_is_accepted_sends_at_once() -> None:
    with listen(uvicorn.Config("x:y", port=0, log_config=None)) as listening:
        listening.listen()
        with socket.create_connection(listening.getsockname()):
            accepted, _ = listening.accept()
            with accepted:
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def test_a_port_that_is_taken_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(RefusedNow, match=f"127.0.0.1:{port}"):
            listen(uvicorn.Config("x:y", port=port, log_config=None))
