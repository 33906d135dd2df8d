"""Other systems: three ways to submit, each at its own steady pace, each key until it is accepted.

A submission that was refused, or whose answer was lost, is made again with the same idempotency key, so a client never
has to know which of the two it was.
"""

from __future__ import annotations

import json
import threading
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import psycopg
from celery import Celery
from kombu.exceptions import KombuError
from sqlalchemy import text

from db.engine import engine_of, transaction
from scheduler.local.cluster import AWAY
from scheduler.submit import NewTask, submit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from db.settings import Settings
    from scheduler.local.cluster import Cluster

PAUSE = 0.5  # seconds between two tries of a submission that was refused
UNCONFIRMED = 10.0  # seconds after which a message by name is sent again: Redis may have forgotten it
REFUSALS = (*AWAY, KombuError, OSError)


class Client(ABC):
    """One way to submit. `accepted` holds the keys that are known to be committed."""

    way: str

    def __init__(self, settings: Settings, rate: float, seed: int) -> None:
        self.settings = settings
        self.submitted = 0
        self.refused = 0
        self.accepted: set[str] = set()
        self._rate = rate
        self._seed = seed
        self._waiting: list[str] = []
        self._no_more = threading.Event()
        self._thread = threading.Thread(target=self._run, name=self.way, daemon=True)

    @abstractmethod
    def offer(self, key: str, request: str) -> bool:
        """Submit once. Returns whether it is known to be committed. Raises one of `REFUSALS`."""

    def confirmed(self, keys: Iterable[str]) -> set[str]:  # noqa: ARG002 - of those that wait to hear
        """Keys that turned out to be committed since."""
        return set()

    def start(self) -> None:
        """Begin to submit."""
        self._thread.start()

    def no_more(self) -> None:
        """Submit nothing new; what waits is still tried."""
        self._no_more.set()

    @property
    def waiting(self) -> int:
        """Submissions that are not known to be accepted."""
        return self.submitted - len(self.accepted)

    def _run(self) -> None:
        due = time.monotonic()
        while not (self._no_more.is_set() and not self._waiting):
            now = time.monotonic()
            if now >= due and not self._no_more.is_set():
                due = max(due + 1 / self._rate, now - PAUSE)  # a client that was held up does not flood
                self.submitted += 1
                self._try(f"{self.way}-{self.submitted}")
            elif self._waiting:
                self._again()
                time.sleep(min(PAUSE, 0.5 / self._rate))
            else:
                time.sleep(min(0.05, max(0.0, due - now)))

    def _again(self) -> None:
        """Look after those that were refused, or not confirmed yet."""
        waiting, self._waiting = self._waiting, []
        try:
            known = self.confirmed(waiting)
        except REFUSALS:
            known = set()
        self.accepted |= known
        for key in waiting:
            if key not in known:
                self._try(key)

    def _try(self, key: str) -> None:
        try:
            accepted = self.offer(key, f"request {self._seed} {key} of a steady client.")
        except REFUSALS:
            self.refused += 1
            accepted = False
        if accepted:
            self.accepted.add(key)
        else:
            self._waiting.append(key)


class PythonClient(Client):
    """`scheduler.submit.submit`."""

    way = "python"

    def offer(self, key: str, request: str) -> bool:
        submit(self.settings, NewTask(request=request, source=self.way, idempotency_key=key))
        return True


class SqlClient(Client):
    """A row, inserted by somebody who knows nothing but SQL."""

    way = "sql"

    def offer(self, key: str, request: str) -> bool:
        with psycopg.connect(self.settings.dsn, connect_timeout=3) as connection:
            connection.execute(
                """
                INSERT INTO task (request, source, idempotency_key) VALUES (%s, %s, %s)
                ON CONFLICT (source, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
                """,
                (request, self.way, key),
            )
        return True


class CeleryClient(Client):
    """`bakeoff.submit` by name. It counts as accepted when its row is there."""

    way = "celery"

    def __init__(self, settings: Settings, rate: float, seed: int) -> None:
        super().__init__(settings, rate, seed)
        self._app = Celery("other", broker=settings.broker)
        self._app.conf.update(
            task_publish_retry=False,
            broker_transport_options={"socket_timeout": 2, "socket_connect_timeout": 2, "max_retries": 1},
        )
        self._sent: dict[str, float] = {}
        self.sent_again = 0

    def offer(self, key: str, request: str) -> bool:
        before = self._sent.get(key)
        if before is not None and time.monotonic() - before < UNCONFIRMED:
            return False
        self._app.send_task(
            "bakeoff.submit",
            kwargs={"request": request, "source": self.way, "idempotency_key": key},
            queue="intake",
            ignore_result=True,
        )
        self.sent_again += before is not None
        self._sent[key] = time.monotonic()
        return False

    def confirmed(self, keys: Iterable[str]) -> set[str]:
        with transaction(engine_of(self.settings.dsn, "benchmark")) as connection:
            rows = connection.execute(
                text(
                    "SELECT idempotency_key FROM task WHERE source = :source AND idempotency_key IN "
                    "(SELECT jsonb_array_elements_text(CAST(:keys AS jsonb)))"
                ),
                {"source": self.way, "keys": json.dumps(list(keys))},
            )
            return set(rows.scalars())


def clients(cluster: Cluster, rate: float, seed: int) -> list[Client]:
    """One of each kind, which together submit `rate` tasks per second."""
    settings = cluster.settings()
    return [kind(settings, rate / 3, seed) for kind in (PythonClient, SqlClient, CeleryClient)]
