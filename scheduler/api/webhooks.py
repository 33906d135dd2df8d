"""Webhooks, delivered by a thread of each API process: signed as Standard Webhooks has it, tried again with backoff.

Any number of processes deliver; rows decide who sends what. A delivery may arrive twice (its sender was killed after
the post and before the commit): `webhook-id` tells the receiver.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
from sqlalchemy.exc import SQLAlchemyError

from db.engine import transaction
from db.errors import BakeoffError, InvalidRequest
from db.logs import get_logger
from db.watching import TOLD
from db.webhooks import Due, claim_due, collect_ends, settle, stop_webhook
from scheduler.api.outbound import TIMEOUT, post
from worker.cleaning import clean_json

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from db.settings import Settings

log = get_logger(__name__)

LOOK = 1.0  # seconds
AT_ONCE = 8
LEASE = 3 * TIMEOUT
LONGEST_DELAY = 6 * 3600.0
MOST_ATTEMPTS = 10  # a day and a half
GONE = 410


def sign(secret: bytes, id_: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature` of Standard Webhooks: v1, and an HMAC of id, time and body."""
    signed = b".".join([id_.encode(), str(timestamp).encode(), body])
    return "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()


def delay_of(attempt: int, first: float) -> float:
    """Seconds until the next attempt: four times longer each time, with jitter, at most six hours."""
    return min(first * 4.0 ** (attempt - 1), LONGEST_DELAY) * random.uniform(0.8, 1.2)  # noqa: S311 - no secret


class Deliverer:
    """The thread."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._settings = settings
        self._engine = engine
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)

    def start(self) -> None:
        """Begin, where anybody may be posted to."""
        if self._settings.webhook_hosts:
            self._thread.start()

    def close(self) -> None:
        """Take nothing more; what is being sent is given a moment, and otherwise sent again by another process."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(TIMEOUT)

    def _run(self) -> None:
        with ThreadPoolExecutor(AT_ONCE, "webhook") as pool:
            while not self._stop.is_set():
                busy = False
                try:
                    with transaction(self._engine) as connection:
                        busy = collect_ends(connection) > 0
                    with transaction(self._engine) as connection:
                        due = claim_due(connection, AT_ONCE, LEASE)
                    list(pool.map(self._send, due))
                    busy = busy or len(due) == AT_ONCE
                except (BakeoffError, SQLAlchemyError) as error:
                    log.warning(f"Webhooks wait: {error}", action="webhooks_failed")
                    busy = False
                except Exception:
                    log.exception("Webhooks wait for a fault of ours", action="webhooks_fault")
                    busy = False
                self._stop.wait(0 if busy else LOOK)

    def _send(self, due: Due) -> None:
        """One attempt, and its outcome stored."""
        body = json.dumps(_payload(due), ensure_ascii=False).encode()
        now = int(time.time())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "bakeoff",
            "webhook-id": str(due.id),
            "webhook-timestamp": str(now),
            "webhook-signature": sign(due.secret, str(due.id), now, body),
        }
        answered: int | None = None
        error: str | None = None
        try:
            answered = post(self._settings, due.url, body, headers)
        except InvalidRequest as refused:
            error = str(refused)
        except (httpx.HTTPError, OSError) as failed:
            error = f"{type(failed).__name__}: {failed}"[:500]
        if answered is not None and not 200 <= answered < 300:
            error = f"It answered {answered}."
        retried = error is not None and answered != GONE and due.attempt < MOST_ATTEMPTS
        again_in = delay_of(due.attempt, self._settings.webhook_retry_delay) if retried else None
        with transaction(self._engine) as connection:
            settle(connection, due, answered=answered, error=error, again_in=again_in)
            if answered == GONE:
                stop_webhook(connection, due.webhook_id, "It answered 410 Gone.")
        if error is not None:
            log.warning(f"A webhook did not arrive: {error}", action="webhook_failed", delivery=str(due.id))


def _payload(due: Due) -> Any:
    return clean_json(
        {
            "type": f"task.{due.result['status']}",
            "timestamp": due.result["finished_at"],
            "data": {key: due.result[key] for key in TOLD},
        }
    )
