"""The API is killed, or asked to stop, while callers submit: what it accepted is in Postgres, once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from uuid import uuid4

import httpx
import psutil
import pytest

from scheduler.local.files import free_port
from tests.conftest import wait_until
from tests.faults.cluster import Cluster
from tests.faults.load import GIVE_UP, Load, Outcome
from tests.integration.api_parts import is_ready

pytestmark = [pytest.mark.integration, pytest.mark.faults]

Settled = Callable[..., Outcome]

COUNT = 200
CALLERS = 8


@dataclass
class Callers:
    """Callers that submit a number each until it is accepted, every try with the same idempotency key."""

    url: str
    source: str
    accepted: dict[int, str] = field(default_factory=dict)  # the task's id by its number
    answers: list[int] = field(default_factory=list)  # every status that was answered
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def submit_all(self) -> None:
        with httpx.Client(base_url=self.url, timeout=GIVE_UP) as client, ThreadPoolExecutor(CALLERS) as pool:
            list(pool.map(lambda number: self._submit(client, number), range(COUNT)))

    def _submit(self, client: httpx.Client, number: int) -> None:
        headers = {"Idempotency-Key": f"{self.source} {number}"}
        body = {"request": f"work {number}", "source": self.source}
        deadline = time.monotonic() + GIVE_UP
        while True:
            try:
                answer = client.post("/v1/tasks", json=body, headers=headers)
            except httpx.TransportError:
                assert time.monotonic() < deadline, f"number {number} was never accepted"
                time.sleep(0.05)
                continue
            with self._lock:
                self.answers.append(answer.status_code)
                if answer.status_code in {200, 202}:
                    self.accepted[number] = answer.json()["id"]
                    return
            time.sleep(0.05)


@contextmanager
def an_api(cluster: Cluster, *, processes: int) -> Iterator[str]:
    """A supervised API; the address at which it answers."""
    port = free_port()
    before = dict(cluster.settings)
    cluster.settings["BAKEOFF_API_WORKERS"] = str(processes)
    cluster.start("api", "api", "--port", str(port))
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: is_ready(url), 60, cluster.explain)
        yield url
    finally:
        cluster.retire("api")
        cluster.settings = before


def processes_of_api(cluster: Cluster) -> list[psutil.Process]:
    children = psutil.Process(cluster.pid("api")).children()
    return [child for child in children if "resource_tracker" not in " ".join(child.cmdline())]


@pytest.mark.parametrize("how", ["kill -9", "kill -9 of one of two", "asked to stop"])
def test_api_is_killed_while_callers_submit(cluster: Cluster, chance: Random, settled: Settled, how: str) -> None:
    source = f"killed api {uuid4()}"
    load = Load(cluster, source, COUNT, chance)
    fault_after = chance.randint(20, 150)
    with an_api(cluster, processes=2 if "two" in how else 1) as url:
        callers = Callers(url, source)
        calling = threading.Thread(target=callers.submit_all)
        calling.start()
        wait_until(lambda: len(callers.accepted) >= fault_after, GIVE_UP, cluster.explain)

        load.fault_is_now()
        if how == "asked to stop":
            assert cluster.ask_to_stop("api") == 0
        elif how == "kill -9":
            cluster.kill("api")
        else:
            os.kill(chance.choice(processes_of_api(cluster)).pid, signal.SIGKILL)

        calling.join(GIVE_UP * 2)
        assert len(callers.accepted) == COUNT
        outcome = settled(load)

    outcome.assert_sound()
    assert not [status for status in callers.answers if status >= 500]
    stored = cluster.query("SELECT id, request FROM task WHERE source = :source", source=source)
    assert {f"work {number}": task for number, task in callers.accepted.items()} == {
        row.request: str(row.id) for row in stored
    }
    assert len(stored) == COUNT
