"""Memory of a tree of processes, and whether any of them is left at the end."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable

_EVERY = 0.5  # seconds


class Watch:
    """Looks at a process and all its descendants twice a second.

    Memory is PSS (shared pages are counted once, divided among those who share them); where the system does not tell
    it, RSS, which counts them for each process and so says too much.
    """

    def __init__(self, root: Callable[[], int | None]) -> None:
        self._root = root
        self._seen: set[psutil.Process] = set()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.peak_bytes = 0
        self.peak_processes = 0

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()

    def left(self) -> list[psutil.Process]:
        """Processes once seen that still run; psutil compares id and start time, so a reused id is no match."""
        return [process for process in self._seen if _runs(process)]

    def _run(self) -> None:
        while not self._done.wait(_EVERY):
            self.look()

    def look(self) -> None:
        """One sample."""
        root = self._root()
        if root is None:
            return
        try:
            first = psutil.Process(root)
            tree = {first, *first.children(recursive=True)}
        except psutil.NoSuchProcess:
            return
        # A process whose parent ended is nobody's descendant, but still ours.
        self._seen |= tree
        alive = [process for process in self._seen if _runs(process)]
        total = sum(_memory(process) for process in alive)
        if total > self.peak_bytes:
            self.peak_bytes, self.peak_processes = total, len(alive)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _memory(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (psutil.AccessDenied, AttributeError):
        pass
    except psutil.NoSuchProcess:
        return 0
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0
