"""The benchmark's servers and whose turn it is on them: one system's processes at a time, the same servers for all."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import redis

from benchmarks.overhead.environment import PEERS, QUEUES, Peer, peers_python, variables
from benchmarks.overhead.fleet import Driver, Running, Workers
from benchmarks.overhead.ours import USUAL_WAVE, Ours
from db.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.harness import Figures

SINGLES = 40
FIRST_BACKLOG = 64  # tasks, or 6 full waves, that tell how fast a system is before the first run
DATABASE = "peers"
REDIS_DATABASE = 1


@dataclass
class Bench:
    """Runs one system after the other."""

    ours: Ours
    _rates: dict[str, float] = field(default_factory=dict)

    def measure(self, running: Running, seconds: float, *, idle: bool = True) -> Figures:
        """Latency of single tasks, then a backlog that lasts about so many seconds, by the rate of the run before."""
        running.warm_up()
        figures = running.idle(SINGLES) if idle else {}
        with self._redis(0) as client:
            if running.name not in self._rates:
                first = running.backlog(max(FIRST_BACKLOG, 6 * running.wave), client)
                self._rates[running.name] = first["tasks_per_s"]
            self._analyze()
            figures |= running.backlog(int(self._rates[running.name] * seconds), client)
        self._rates[running.name] = figures["tasks_per_s"]
        return figures

    @contextlib.contextmanager
    def peer(self, peer: Peer) -> Iterator[dict[str, Running]]:
        """A peer's workers, and a driver for each system that they serve."""
        python = peers_python()
        redis_url = self.ours.redis.url.removesuffix("/0") + f"/{REDIS_DATABASE}"
        env = variables(self._peers_url(), redis_url)
        folder = self.ours.folder
        with self._redis(REDIS_DATABASE) as client:
            client.flushdb()
        with contextlib.ExitStack() as stack:
            drivers = {}
            for name, submitter in peer.systems.items():  # first: they make the tables
                drivers[name] = Driver(python, submitter, env, folder / f"{name}.log")
                stack.callback(drivers[name].close)
            commands = {
                f"{peer.name}-{queue}": [python, *(part.format(queue=queue) for part in peer.worker)]
                for queue in QUEUES
            }
            workers = Workers(commands, env, folder)
            stack.callback(workers.stop)
            groups = {"workers": workers.pids}
            yield {
                name: Running(name=name, driver=driver, groups=groups, servers=self.ours.servers)
                for name, driver in drivers.items()
            }

    @contextlib.contextmanager
    def our_workers(self) -> Iterator[None]:
        """Our workers; schedulers come and go with `our_wave`."""
        try:
            self.ours.start_workers()
            yield
        finally:
            self.ours.end()

    @contextlib.contextmanager
    def our_wave(self, wave: int = USUAL_WAVE) -> Iterator[Running]:
        """A scheduler, and a driver."""
        self.ours.start_scheduler(wave)
        running = self.ours.running(our_name(wave), wave)
        try:
            yield running
        finally:
            running.driver.close()

    def _analyze(self) -> None:
        """Statistics of a queue that was just empty, as autovacuum makes them, but not at a random moment."""
        for url in (self.ours.postgres.url, self._peers_url()):
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("ANALYZE")

    def _peers_url(self) -> str:
        return self.ours.postgres.url.rsplit("/", 1)[0] + f"/{DATABASE}"

    def _redis(self, database: int) -> redis.Redis:
        return redis.Redis.from_url(self.ours.redis.url, db=database, socket_timeout=5, decode_responses=True)


def our_name(wave: int) -> str:
    """What our system is called with waves of this size."""
    return f"ours_wave_{wave}"


def peers_of(names: set[str]) -> list[Peer]:
    """Those peers that serve one of these systems."""
    return [peer for peer in PEERS if names & set(peer.systems)]


@contextlib.contextmanager
def bench() -> Iterator[Bench]:
    """Both servers in a folder of their own, which is kept where the benchmark fails."""
    folder = Path(tempfile.mkdtemp(prefix="bakeoff-bench-"))
    folder.chmod(0o755)  # Postgres runs as somebody else where we are root
    ours, keep = Ours(folder), False
    try:
        with _started(ours):
            yield Bench(ours)
    except BakeoffError as error:
        keep = True
        raise BakeoffError(f"{str(error).rstrip('.')}. Logs are kept in {folder}") from error
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _started(ours: Ours) -> Iterator[None]:
    try:
        ours.start_servers()
        with psycopg.connect(ours.postgres.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {DATABASE}")
        yield
    finally:
        ours.stop()
