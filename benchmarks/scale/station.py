"""A process per database, so that what one costs in memory is not another's. It ends with the process that made it."""

from __future__ import annotations

import multiprocessing
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from db.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from benchmarks.harness import Figures

_SPAWN = multiprocessing.get_context("spawn")
STOP_WITHIN = 10.0  # seconds


class Station:
    """Runs measures on one database when asked."""

    def __init__(self, url: str, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._ours, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(theirs, url, folder), daemon=True)
        self._process.start()
        theirs.close()

    def run(self, *, warm_up: bool = False) -> Figures:
        """One turn, or a short one. Raises `BakeoffError` where it failed over there."""
        figures: Figures = self._ask("warm up" if warm_up else "run")
        return figures

    def scanning_plans(self) -> list[str]:
        """See `Bench.scanning_plans`. Raises `BakeoffError`."""
        found: list[str] = self._ask("plans")
        return found

    def _ask(self, order: str) -> Any:
        try:
            self._ours.send(order)
            return self._ours.recv()
        except (EOFError, OSError):
            raise BakeoffError("A process that measures ended; its last words are above.") from None

    def stop(self) -> None:
        """End it."""
        self._ours.close()
        self._process.join(STOP_WITHIN)
        if self._process.is_alive():
            self._process.kill()


def _serve(orders: Connection[Any, Any], url: str, folder: Path) -> None:
    from benchmarks.scale.measures import WARM_UP, Amounts, Bench  # noqa: PLC0415 - the parent, which only waits, needs none of it
    from benchmarks.scale.registry import settings_of  # noqa: PLC0415

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which stops this process in order
    bench = Bench(settings_of(url, folder))
    answers: dict[str, Callable[[], Any]] = {
        "warm up": lambda: bench.run(WARM_UP),
        "run": lambda: bench.run(Amounts()),
        "plans": bench.scanning_plans,
    }
    while True:
        try:
            order = orders.recv()
        except EOFError:
            return
        orders.send(answers[order]())
