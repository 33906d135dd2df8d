"""`python -m benchmarks.workers`: tasks per second with 1, 2 and 4 workers of one model, and the scheduler's own limit.

The model sleeps, so that two cores carry four of them: what is missing to so many times one sleeper is what the queue
costs. The limit is what one scheduler plans and sends per second while nothing else runs: the workers of models that do
nothing are stopped (SIGSTOP) for as long as it takes.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import CpuMeter, Figures, Options, main, medians, say
from db.errors import BakeoffError
from db.states import TaskState
from scheduler.local.cluster import Cluster
from scheduler.submit import NewTask, submit_many
from scheduler.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from uuid import UUID

WORKERS = (1, 2, 4)
SLEEP = 0.1  # seconds per input
BATCH = 16  # inputs of a sleeper's message
MESSAGES = 3  # per worker and run: 5 seconds
LINEAR = 0.9  # of ideal, the least

WAVES = (1, BATCH, 32)  # subtasks of a wave, for the scheduler's limit
WINDOW = 32  # messages that wait for an idle model: the scheduler sends them all, whatever the workers do

GLANCE = 0.002  # seconds between two looks at a queue's length
PATIENCE = 120.0  # seconds for one run

SETTINGS = {"BAKEOFF_WAVE_SIZE": "1024"}  # the models' `max_batch` decides

_HEAD = """
[profiles.demo]
models = [{names}]

[judges.nobody] # a single candidate wins unjudged
method = "scripted"
"""

_MODEL = """
[capabilities."text-generation/{name}"]
input = "text"
instruction = "Answer the request."
judge = "nobody"
candidates = 1

[models.{name}]
capability = "text-generation/{name}"
backend = "scripted"
memory_mb = 64
max_batch = {batch}
"""
_SLEEPS = f'params = {{ rules = [{{ match = "", sleep = {SLEEP} }}] }}\n'


def registry() -> str:
    """The registry as TOML: the sleeper, and a model that does nothing per size of a wave."""
    idle = {f"idle-{wave}": wave for wave in WAVES}
    names = ", ".join(f'"{name}"' for name in ("sleeper", *idle))
    tables = [_MODEL.format(name=name, batch=wave) + f"window = {WINDOW}\n" for name, wave in idle.items()]
    return "".join([_HEAD.format(names=names), *tables, _MODEL.format(name="sleeper", batch=BATCH), _SLEEPS])


class Bench:
    """The installation, and rounds of tasks through it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def start(self) -> None:
        """Servers, a scheduler, a judge, and the worker of the models that do nothing."""
        self.cluster.start_servers()
        self.cluster.add("scheduler", "scheduler")
        self.cluster.add("judge", "worker", "--judge", "--name", "judge")
        self.cluster.add("idle", "worker", *(f"idle-{wave}" for wave in WAVES), "--name", "idle")
        self.cluster.wait_ready()

    def have_sleepers(self, count: int) -> None:
        """Start sleepers until there are so many, and wait for them."""
        for number in range(1, count + 1):
            name = f"sleeper-{number}"
            if name not in self.cluster.members:
                self.cluster.add(name, "worker", "sleeper", "--name", name)
        self.cluster.wait_ready()

    def submit(self, model: str, count: int) -> list[UUID]:
        """Submit so many tasks for one model."""
        capability = f"text-generation/{model}"
        new = [NewTask(request=f"request {number}", capability=capability) for number in range(count)]
        return submit_many(self.cluster.settings(), new)

    def wait(self, tasks: Sequence[UUID]) -> None:
        """Until all of these tasks are done. Raises `BakeoffError` where one is not, or it takes too long."""
        states = wait_for(self.cluster.settings(), tasks, PATIENCE)
        if undone := [state for state in states.values() if state != TaskState.DONE]:
            raise BakeoffError(f"{len(undone)} of {len(tasks)} tasks ended {undone[0]}.")

    def sleep(self, workers: int) -> Figures:
        """One run of the sleeper."""
        count = workers * MESSAGES * BATCH
        started = time.perf_counter()
        self.wait(self.submit("sleeper", count))
        rate = count / (time.perf_counter() - started)
        return {"tasks_per_s": rate, "ratio": rate / (workers / SLEEP)}

    def dispatch(self, wave: int) -> Figures:
        """One burst: everything is planned and sent, nothing runs."""
        count = WINDOW * wave
        meter = CpuMeter({"scheduler": [self.cluster.members["scheduler"].process.pid]})
        with self._stopped("idle"):
            tasks = self.submit(f"idle-{wave}", count)
            started = time.perf_counter()  # it sees nothing before the commit
            self._wait_sent(f"model.idle-{wave}")
            seconds = time.perf_counter() - started
            cpu = meter.seconds()["scheduler"]
        self.wait(tasks)
        return {"tasks_per_s": count / seconds, "cpu_ms_per_task": cpu / count * 1000}

    def _wait_sent(self, queue: str) -> None:
        """Until all messages are on the queue, but for the one that the stopped worker was waiting for."""
        deadline = time.perf_counter() + PATIENCE
        with self.cluster.redis_client() as client:
            while client.llen(queue) < WINDOW - 1:
                if time.perf_counter() > deadline:
                    raise BakeoffError(f"The scheduler did not send {WINDOW} messages within {PATIENCE:g} s.")
                time.sleep(GLANCE)

    @contextmanager
    def _stopped(self, name: str) -> Iterator[None]:
        group = self.cluster.members[name].process.pid
        os.killpg(group, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(group, signal.SIGCONT)


def measure(options: Options) -> dict[str, Figures]:
    """`{workers: {tasks_per_s, ideal, ratio, runs}}`, and under `scheduler` the limit, by size of a wave."""
    with tempfile.TemporaryDirectory(prefix="bakeoff-workers-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # Postgres runs as somebody else where we are root
        cluster = Cluster(folder, registry(), SETTINGS)
        bench = Bench(cluster)
        try:
            bench.start()
            limits = {wave: _limit(bench, wave, options.runs) for wave in WAVES}
            figures = {str(workers): _scaling(bench, workers, options.runs) for workers in WORKERS}
        finally:
            cluster.stop()
    return {**figures, "scheduler": _named(limits, figures)}


def _scaling(bench: Bench, workers: int, runs: int) -> Figures:
    bench.have_sleepers(workers)
    bench.wait(bench.submit("sleeper", workers * BATCH))  # each takes its first message
    done = medians([bench.sleep(workers) for _ in range(runs)])
    say(f"{workers} workers: {done['tasks_per_s']:.1f} tasks/s, {done['ratio']:.3f} of ideal")
    return {"ideal": workers / SLEEP, **done}


def _limit(bench: Bench, wave: int, runs: int) -> Figures:
    bench.dispatch(wave)  # warms up
    done = medians([bench.dispatch(wave) for _ in range(runs)])
    say(f"scheduler, waves of {wave}: {done['tasks_per_s']:.0f} tasks/s")
    return done


def _named(limits: Mapping[int, Figures], figures: Mapping[str, Figures]) -> Figures:
    """The limit at the sleeper's size of a wave, how many sleepers that feeds, and where scaling stopped before it."""
    limit = limits[BATCH]["tasks_per_s"]
    return {
        "scheduler_limit_tasks_per_s": limit,
        "feeds_workers": int(limit * SLEEP),
        "linear": all(entry["ratio"] >= LINEAR for entry in figures.values()),
        "by_wave": {str(wave): entry for wave, entry in limits.items()},
    }


def draw(figures: Mapping[str, Figures], plot: Any) -> None:
    """Tasks per second over workers, ideal and limit; beside it the scheduler's limit over the size of a wave."""
    scaling, limit = plot.subplots(1, 2)
    shown = {int(name): entry for name, entry in figures.items() if name != "scheduler"}
    scaling.plot(list(shown), [entry["ideal"] for entry in shown.values()], "--", color="black", label="ideal")
    scaling.plot(list(shown), [entry["tasks_per_s"] for entry in shown.values()], "o-", label="measured")
    named = figures["scheduler"]["scheduler_limit_tasks_per_s"]
    scaling.axhline(named, color="tab:red", label=f"one scheduler: {named:.0f} tasks/s")
    scaling.set(xscale="log", yscale="log", xticks=list(shown), xticklabels=[str(workers) for workers in shown])
    scaling.set(xlabel="workers of one model", ylabel="tasks/s", title=f"A model that sleeps {SLEEP:g} s per input")
    scaling.minorticks_off()
    scaling.legend()
    waves = figures["scheduler"]["by_wave"]
    bars = limit.bar(list(waves), [entry["tasks_per_s"] for entry in waves.values()], width=0.5)
    limit.bar_label(bars, fmt="{:.0f}")
    limit.set(xlabel="subtasks of a wave", ylabel="tasks/s", title="What one scheduler plans and sends")


if __name__ == "__main__":
    sys.exit(main("workers", __doc__, measure, draw))
