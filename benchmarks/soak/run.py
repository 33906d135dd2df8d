"""A soak from start to end: start everything, a calm quarter, faults, drain, stop, and what it came to."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.live import Live
from rich.text import Text

from benchmarks.soak import witness
from benchmarks.soak.clients import clients
from benchmarks.soak.faults import Fault, Injector, faults
from benchmarks.soak.registry import members, registry, settings
from benchmarks.soak.report import Figures, Phase, percentiles, shown
from scheduler.local.cluster import AWAY, Cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console

CALM_SHARE = 0.25
TICK = 0.05  # seconds
LOOK = 1.0  # seconds between two looks at the queue
SAY = 15.0  # seconds between two lines, where the output is no terminal


@dataclass(frozen=True, kw_only=True)
class Options:
    """What can be said on the command line. Times are seconds but for `minutes`."""

    minutes: float
    kill_every: float
    seed: int
    rate: float  # tasks per second
    drain: float
    wave: int  # subtasks that leave together at most
    json: Path | None
    keep: bool

    @property
    def seconds(self) -> float:
        """Length of the load."""
        return self.minutes * 60

    @property
    def calm(self) -> float:
        """Length of the part without faults."""
        return self.seconds * CALM_SHARE


def run(options: Options, console: Console) -> int:
    """Run a soak; returns 0 only where every promise was kept."""
    console.print(
        f"Soak of {options.minutes:g} min, {options.rate:g} tasks/s, a fault every {options.kill_every:g} s after the "
        f"first {options.calm:g} s; seed {options.seed}"
    )
    console.print(
        " ".join(f"{name}={value}" for name, value in settings(options.wave).items()), style="dim", soft_wrap=True
    )
    folder = Path(tempfile.mkdtemp(prefix="bakeoff-soak-"))
    sound = False
    try:
        figures = _measure(options, console, folder)
        sound = not figures.problems
    finally:
        _tidy(folder, console, keep=options.keep or not sound)
    console.print(shown(figures))
    if options.json is not None:
        options.json.write_text(json.dumps({**figures.as_json(), "minutes": options.minutes}, indent=2) + "\n")
    for problem in figures.problems:
        console.print(problem, style="bold red")
    console.print("Every promise was kept." if sound else "Not every promise was kept.")
    return 0 if sound else 1


def _tidy(folder: Path, console: Console, *, keep: bool) -> None:
    if keep:
        console.print(f"Kept, logs and data: {folder}", soft_wrap=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _measure(options: Options, console: Console, folder: Path) -> Figures:
    folder.chmod(0o755)  # Postgres runs as somebody else where we are root
    cluster = Cluster(folder, registry(options.wave), settings(options.wave))
    left: Sequence[Any] = ()
    try:
        cluster.start_servers()
        witness.install(cluster)
        for name, arguments in members().items():
            cluster.add(name, *arguments)
        cluster.wait_ready()
        figures = Soak(options, console, cluster).run()
    finally:
        left = cluster.stop()
    return replace(figures, orphans=[f"{process.pid} {process.name()}" for process in left])


class Soak:
    """The load, the faults, and what is seen meanwhile."""

    def __init__(self, options: Options, console: Console, cluster: Cluster) -> None:
        self._options = options
        self._console = console
        self._cluster = cluster
        self._injector = Injector(cluster)
        self._clients = clients(cluster, options.rate, options.seed)
        self._faults = faults(options.seed)
        self._latest: Fault | None = None
        self._peak_redis = self._peak_backlog = self._open = 0
        self._started = self._looked = self._said = time.monotonic()
        self._live: Live | None = None

    def run(self) -> Figures:
        """Load, faults, drain."""
        began = datetime.now(UTC)
        for client in self._clients:
            client.start()
        with self._watched():
            self._pass(self._options.calm)
            first_fault = datetime.now(UTC)
            self._pass(self._options.seconds - self._options.calm, self._faults)
            self._injector.heal()
            drained = self._drain()
        self._explain()
        return self._figures(began, first_fault, drained)

    # --- what happens

    def _pass(self, seconds: float, planned: Iterator[Fault] | None = None) -> None:
        """Let so much time pass, with a fault now and then."""
        end = time.monotonic() + seconds
        due = time.monotonic()
        while (now := time.monotonic()) < end:
            if planned is not None and now >= due:
                self._fault(next(planned))
                due += self._options.kill_every
            self._tick()

    def _fault(self, fault: Fault) -> None:
        self._latest = fault
        made = self._injector.make(fault)
        with (self._cluster.folder / "faults.log").open("a") as file:
            file.write(f"{datetime.now(UTC).isoformat()} {'' if made else 'missed: '}{fault}\n")

    def _drain(self) -> float:
        """Until everything is final, or the patience is over. Returns the seconds that it took."""
        for client in self._clients:
            client.no_more()
        began = time.monotonic()
        while (passed := time.monotonic() - began) < self._options.drain:
            if self._all_final():
                break
            self._tick()
        return passed

    def _all_final(self) -> bool:
        if any(client.waiting for client in self._clients):
            return False
        with contextlib.suppress(*AWAY):
            return not self._cluster.query("SELECT FROM task WHERE finished_at IS NULL LIMIT 1")
        return False

    def _tick(self) -> None:
        self._cluster.supervise()
        self._injector.tick()
        if time.monotonic() - self._looked >= LOOK:
            self._looked = time.monotonic()
            self._look()
        time.sleep(TICK)

    # --- what is seen

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, auto_refresh=False, transient=True) as self._live:
            yield

    def _look(self) -> None:
        with contextlib.suppress(*AWAY), self._cluster.redis_client() as client:
            self._peak_redis = max(self._peak_redis, int(client.info("memory")["used_memory"]))
        with contextlib.suppress(*AWAY):
            self._open = self._cluster.query("SELECT count(*) AS n FROM task WHERE finished_at IS NULL")[0].n
            self._peak_backlog = max(self._peak_backlog, self._open)
        self._say()

    def _say(self) -> None:
        if self._live is not None:
            self._live.update(Text(self._status()), refresh=True)
        elif time.monotonic() - self._said >= SAY:
            self._said = time.monotonic()
            self._console.print(self._status(), soft_wrap=True)

    def _status(self) -> str:
        passed = time.monotonic() - self._started
        submitted = sum(client.submitted for client in self._clients)
        made = sum(self._injector.made.values())
        latest = f"; the latest: {self._latest.kind} ({self._latest.target})" if self._latest else ""
        return f"{passed:4.0f} s: {submitted} submitted, {self._open} open, {made} faults{latest}"

    # --- what it came to

    def _explain(self) -> None:
        """Leave the rows that a reader of the logs will ask for."""
        for name in ("OPEN", "FAILED", "CHANGES"):
            rows = self._cluster.query(getattr(witness, name))
            for row in rows:
                self._console.print(f"{name.lower()}: {row}", soft_wrap=True)

    def _figures(self, began: datetime, first_fault: datetime, drained: float) -> Figures:
        ended = datetime.now(UTC)
        query = self._cluster.query
        (row,) = query(witness.FIGURES)
        stored = {entry.key: entry.final for entry in query(witness.STORED)}
        waits = query(witness.WAITS, first_fault=first_fault)
        (pause,) = query(witness.LONGEST_PAUSE, first_fault=first_fault)
        return Figures(
            seed=self._options.seed,
            settings=settings(self._options.wave),
            rate=self._options.rate,
            submitted=self._sum(lambda client: client.submitted),
            accepted=self._sum(lambda client: len(client.accepted)),
            refused=self._sum(lambda client: client.refused + getattr(client, "sent_again", 0)),
            states={entry.status: entry.n for entry in query(witness.STATES)},
            lost=self._sum(lambda client: sum(not stored.get(key, False) for key in client.accepted)),
            **row._mapping,  # noqa: SLF001 - the documented name
            calm=_phase(waits, calm=True, seconds=(first_fault - began).total_seconds()),
            faulty=_phase(waits, calm=False, seconds=(ended - first_fault).total_seconds()),
            drain_seconds=drained,
            longest_pause=pause.seconds,
            faults=dict(self._injector.made),
            missed=dict(self._injector.missed),
            restarts={member.name: member.starts - 1 for member in self._cluster.members.values()},
            peak_redis_bytes=self._peak_redis,
            peak_backlog=self._peak_backlog,
        )

    def _sum(self, of: Callable[[Any], int]) -> int:
        return sum(of(client) for client in self._clients)


def _phase(waits: Sequence[Any], *, calm: bool, seconds: float) -> Phase:
    ours = [wait.seconds for wait in waits if wait.calm is calm]
    return Phase(seconds=seconds, finished=len(ours), wait=percentiles(ours))
