"""How long to wait before something that ended is started again."""

from __future__ import annotations

import time

FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0  # seconds
STEADY = 60.0  # seconds of running after which earlier failures are forgiven


class Backoff:
    """Doubles with each failure in a row."""

    def __init__(self) -> None:
        self.failures = 0
        self._next = 0.0

    def failed(self, lived: float) -> float:
        """It ended after so many seconds; returns the delay until it is due."""
        self.failures = 1 if lived >= STEADY else self.failures + 1
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(self.failures - 1, 10))
        self._next = time.monotonic() + delay
        return delay

    def due(self) -> bool:
        """Whether the delay is over."""
        return time.monotonic() >= self._next
