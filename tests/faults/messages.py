"""A broker that delivers every message twice."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import uuid4

import redis

WATCHED = ("model.", "judge", "intake")


@dataclass
class Copies:
    """How many messages were seen, and how many copies of them were sent."""

    seen: set[str] = field(default_factory=set)
    sent: set[str] = field(default_factory=set)


@contextmanager
def every_message_twice(url: str) -> Iterator[Copies]:
    """Send a copy of each message, under another delivery tag, as soon as it is on its queue."""
    copies, stop, watching = Copies(), threading.Event(), threading.Event()
    thread = threading.Thread(target=_copy, args=(url, copies, watching, stop), daemon=True)
    thread.start()
    assert watching.wait(5)
    try:
        yield copies
    finally:
        stop.set()
        with redis.Redis.from_url(url) as client:
            client.ping()  # MONITOR wakes for it
        thread.join(5)


def _copy(url: str, copies: Copies, watching: threading.Event, stop: threading.Event) -> None:
    with redis.Redis.from_url(url) as client, client.monitor() as monitor:
        watching.set()
        for event in monitor.listen():
            if stop.is_set():
                return
            command, _, rest = str(event["command"]).partition(" ")
            queue, _, text = rest.partition(" ")
            if command != "LPUSH" or not queue.startswith(WATCHED):
                continue
            message = json.loads(text)
            tag = message["properties"]["delivery_tag"]
            if tag in copies.seen or tag in copies.sent:
                continue
            copies.seen.add(tag)
            message["properties"]["delivery_tag"] = copy = str(uuid4())
            copies.sent.add(copy)
            client.lpush(queue, json.dumps(message))
