"""Whether a source's backlog has to be counted at a submission: far below its bound, not every time.

Counting 100,000 open tasks takes Postgres 10 ms, ten times what storing one does. So a process that found a source far
from its bound remembers how far, for a second; near the bound every submission is counted in the statement that stores
it. Several processes together may pass the mark where counting begins by what they submit within that second.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection

from db.tasks import count_open

REMEMBERED = 1.0  # seconds
FAR = 0.9  # of the bound


@dataclass
class _Room:
    left: int
    until: float


class Admission:
    """What this process knows of sources' backlogs."""

    def __init__(self) -> None:
        self._rooms: dict[str, _Room] = {}
        self._lock = threading.Lock()

    def bound(self, connection: Connection, sources: Iterable[str], most: int) -> int | None:
        """The bound that the storing statement must check, or None where every source is far below it."""
        wanted = Counter(sources)
        for source, count in wanted.items():
            if not self._takes(source, count):
                left = int(FAR * most) - count_open(connection, source, most)
                self._learn(source, left - count)
                if left < count:
                    return most
        return None

    def _takes(self, source: str, count: int) -> bool:
        with self._lock:
            room = self._rooms.get(source)
            if room is None or room.until < time.monotonic() or room.left < count:
                return False
            room.left -= count
            return True

    def _learn(self, source: str, left: int) -> None:
        now = time.monotonic()
        with self._lock:
            self._rooms = {name: room for name, room in self._rooms.items() if room.until >= now}
            self._rooms[source] = _Room(left, now + REMEMBERED)


#: Of this process.
ADMISSION = Admission()
