"""One system that runs: its driver, its workers, what they do in a second and what that costs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil
import redis

from benchmarks.harness import CpuMeter, Figures, percentile
from db.errors import BakeoffError
from scheduler.local.processes import end_group, open_log, spawn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

SETTLE = 0.2  # seconds for acknowledgements after the last task


class Driver:
    """A process of `benchmarks.overhead.driver`."""

    def __init__(self, python: str, submitter: str, env: Mapping[str, str], log: Path) -> None:
        """`submitter`: MODULE:CLASS."""
        self._log = log
        with open_log(log) as errors:
            self._process = subprocess.Popen(
                [python, "-m", "benchmarks.overhead.driver", submitter],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=dict(env),
                text=True,
                start_new_session=True,
            )
        self._read()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def ask(self, command: str, count: int = 0) -> dict[str, Any]:
        """What it answers to a command."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # the answer says it
                self._process.stdin.write(f"{command} {count}\n")
                self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """End it."""
        self._process.kill()  # it holds nothing, and Celery's takes long to say goodbye
        self._process.wait()

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        if not line:
            raise BakeoffError(f"A driver ended; its log is {self._log}")
        said: dict[str, Any] = json.loads(line)
        return said


class Workers:
    """Peers' worker processes."""

    def __init__(self, commands: Mapping[str, Sequence[str]], env: Mapping[str, str], folder: Path) -> None:
        """`commands`: name to command line."""
        self._processes = [
            spawn(command, log=folder / f"{name}.log", env=env, folder=str(folder))
            for name, command in commands.items()
        ]
        self.pids = tuple(process.pid for process in self._processes)

    def stop(self) -> None:
        """Kill them: their queues are empty, and saying goodbye takes some of them seconds."""
        for process in self._processes:
            end_group(process.pid)
            process.wait()


@dataclass(frozen=True, kw_only=True)
class Running:
    """A system with its processes: `groups` holds their ids by what they are for."""

    name: str
    driver: Driver
    groups: Mapping[str, tuple[int, ...]]  # workers, scheduler
    servers: Mapping[str, tuple[int, ...]]  # redis, postgres
    wave: int = 1  # tasks that leave together at most

    def warm_up(self) -> None:
        """One task through everything: afterwards all are ready."""
        self.singles(1)

    def singles(self, count: int) -> list[float]:
        """Milliseconds from submission to the stored result of single tasks, one after the other."""
        times = self.driver.ask("singles", count)["milliseconds"]
        if None in times:
            raise BakeoffError(f"{self.name}: a task did not finish")
        return list(times)

    def idle(self, count: int) -> Figures:
        """p50 and p95 of single tasks."""
        times = self.singles(count)
        return {"idle_p50_ms": percentile(times, 0.5), "idle_p95_ms": percentile(times, 0.95)}

    def backlog(self, count: int, client: redis.Redis) -> Figures:
        """Submit while the others stand still, then let them go: nobody's submission competes with anybody's work."""
        meter = CpuMeter({**self.groups, **self.servers, "submitter": (self.driver.pid,)})
        with _paused([pid for pids in self.groups.values() for pid in pids]):
            submitting = self.driver.ask("submit", count)["seconds"]
        started = time.perf_counter()
        finished = self.driver.ask("wait")["finished"]
        seconds = time.perf_counter() - started
        if not finished:
            raise BakeoffError(f"{self.name}: {count} tasks did not finish")
        time.sleep(SETTLE)
        cpu = {name: spent / count * 1000 for name, spent in meter.seconds().items()}
        senders = (self.driver.pid, *self.groups.get("scheduler", ()))
        return {
            "tasks_per_s": count / seconds,
            "cpu_ms_per_task": sum(cpu.values()),
            "cpu_ms": cpu,
            "submit_per_s": count / submitting,
            "subscriptions": subscriptions(client, senders),
            "tasks": count,
        }


def subscriptions(client: redis.Redis, pids: Sequence[int]) -> int:
    """Channels and patterns that connections of these processes are subscribed to."""
    ports = set()
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            ports |= {connection.laddr.port for connection in psutil.Process(pid).net_connections() if connection.laddr}
    ours = [entry for entry in client.client_list() if int(entry["addr"].rsplit(":", 1)[1]) in ports]
    return sum(int(entry[kind]) for entry in ours for kind in ("sub", "psub", "ssub") if kind in entry)


@contextlib.contextmanager
def _paused(roots: Sequence[int]) -> Iterator[None]:
    """Stop these process trees for a while."""
    stopped = []
    for root in roots:
        os.kill(root, signal.SIGSTOP)  # before its children: it starts no others then
        stopped += [root, *(child.pid for child in psutil.Process(root).children(recursive=True))]
    for pid in stopped:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in reversed(stopped):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
