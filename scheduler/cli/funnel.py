"""A curation job while it runs: per stage what came, passed and fell, how fast it goes, and how long it has left.

On a terminal it is a table on standard error that redraws itself; elsewhere a line per stage, and one every ten seconds
within a stage.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy.exc import SQLAlchemyError

from db.curation import read_job
from db.curation_report import funnel
from db.engine import engine_of, transaction
from db.errors import BakeoffError
from scheduler.cli.live import drawing
from scheduler.cli.output import errors, is_live, seconds, table

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from rich.console import RenderableType

    from db.settings import Settings

LOOK = 1.0  # seconds between two readings of the funnel: it counts the records of the whole job
SAY = 10.0  # seconds between two lines of one stage, where nothing can be drawn anew
WINDOW = 30.0  # seconds that the rate is taken from


class Pace:
    """How fast one stage goes, from what it said in the last seconds."""

    def __init__(self) -> None:
        self.stage, self.done, self.total = "", 0, 0
        self._said: deque[tuple[float, int]] = deque()

    def note(self, stage: str, done: int, total: int, now: float) -> bool:
        """Take in how far a stage is; True where it is another stage than before."""
        new = stage != self.stage
        if new or done < self.done:
            self._said.clear()
        self.stage, self.done, self.total = stage, done, total
        self._said.append((now, done))
        while now - self._said[0][0] > WINDOW:
            self._said.popleft()
        return new

    @property
    def rate(self) -> float | None:
        """Records per second; None before two reports."""
        if not self._said:
            return None
        (began, before), (ended, after) = self._said[0], self._said[-1]
        return (after - before) / (ended - began) if ended > began and after > before else None

    @property
    def left(self) -> float | None:
        """Seconds until the stage is through, at this rate."""
        return None if self.rate is None else (self.total - self.done) / self.rate

    def __str__(self) -> str:
        rate = "" if self.rate is None else f", {_rate(self.rate)}"
        left = "" if not self.left else f", {seconds(self.left)} left"
        return f"{self.stage}: {self.done} of {self.total}{rate}{left}"


class Funnel:
    """`with Funnel(settings, name) as report: run_job(settings, name, report)` shows the job while it runs."""

    def __init__(self, settings: Settings, name: str) -> None:
        self._settings, self._name = settings, name
        self._pace = Pace()
        self._stages: list[dict[str, Any]] = []
        self._stopped = threading.Event()
        self._said_at = 0.0
        self._live: AbstractContextManager[Any] | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        if is_live(errors):
            from rich.live import Live

            self._reader.start()
            self._live = drawing(Live(console=errors, refresh_per_second=2, get_renderable=self._drawn, transient=True))
            self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        if self._live is not None:
            self._live.__exit__(None, None, None)
            self._reader.join(2 * LOOK)

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Take in how far a stage is: what a job reports to."""
        now = time.monotonic()
        new = self._pace.note(stage, done, total, now)
        if self._live is None and (new or now - self._said_at >= SAY):
            self._said_at = now
            errors.print(f"{self._name}: {self._pace}", soft_wrap=True)

    def _read(self) -> None:
        while not self._stopped.is_set():
            try:
                with transaction(engine_of(self._settings.dsn, "cli")) as connection:
                    job = read_job(connection, self._name)
                    self._stages = funnel(connection, job.id, job.recipe["stages"])
            except (BakeoffError, SQLAlchemyError):
                pass  # the run itself says what is wrong
            self._stopped.wait(LOOK)

    def _drawn(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        out = table("stage", "done", "of", "dropped", "rate", "time left", wrap=())
        for one in self._stages:
            now = one["stage"] == self._pace.stage
            rate, left = (self._pace.rate, self._pace.left) if now else (None, None)
            out.add_row(
                Text(one["stage"], style="cyan" if now else ""),
                str(one["came"] - one["waiting"]),
                str(one["came"]),
                str(sum(one["dropped"].values())),
                "" if rate is None else _rate(rate),
                seconds(left),
            )
        kept = self._stages[-1]["passed"] if self._stages else 0
        at = str(self._pace) if self._pace.stage else "starting"
        return Group(out, Text(f"{self._name} at {at}; {kept} kept so far", style="dim"))


def _rate(rate: float) -> str:
    return f"{rate:.0f}/s" if rate >= 10 else f"{rate:.2g}/s"
