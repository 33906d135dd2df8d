"""Health of a container of ours, for HEALTHCHECK and probes: ends with 0 when well, with 1 and a sentence when not.

    health.py              Postgres and Redis answer
    health.py alive        and a process of this container has said so in the table `worker` a moment ago
    health.py ready        and it is ready: its model is loaded
    health.py api PORT     the API answers, and can work: Postgres answers it, and has the schema of its version
    health.py flower PORT  Flower answers

`alive` reads what the process itself wrote, because a worker that consumes nothing still answers a Celery ping.
"""

# ruff: noqa: INP001 - a script of the image, no package

from __future__ import annotations

import socket
import sys
import urllib.request

from db.engine import engine_of, transaction
from db.errors import BakeoffError
from db.settings import load_settings
from db.states import WorkerState
from db.workers import live_workers

SERVED = {"api": "readyz", "flower": "healthcheck"}


def problem(question: str, port: int) -> str | None:
    """What is wrong, or None."""
    if question in SERVED:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{SERVED[question]}", timeout=5):  # raises for an error
            return None
    settings = load_settings()
    with transaction(engine_of(settings.dsn, "health")) as connection:
        here = [
            worker
            for worker in live_workers(connection, settings.worker_timeout)
            if worker.host == socket.gethostname()
        ]
    if question == "":
        import redis  # noqa: PLC0415 - the probes of a worker run every few seconds and need it not

        redis.Redis.from_url(settings.broker, socket_timeout=5, socket_connect_timeout=5).ping()
        return None
    if not here:
        return f"Nothing in this container has said in {settings.worker_timeout:g} s that it is alive."
    if question == "ready" and here[0].status != WorkerState.READY:
        return f"{here[0].name} is {here[0].status}: {here[0].error or 'its model is not loaded yet'}."
    return None


def main() -> int:
    """Ask one question; print a problem."""
    question = sys.argv[1] if len(sys.argv) > 1 else ""
    if question not in {"", "alive", "ready", *SERVED} or (question in SERVED) != (len(sys.argv) > 2):
        print("health.py: ask nothing, `alive`, `ready`, `api PORT` or `flower PORT`.", file=sys.stderr)
        return 2
    try:
        found = problem(question, int(sys.argv[2]) if question in SERVED else 0)
    except BakeoffError as error:
        found = str(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, the container is not well
        found = f"{type(error).__name__}: {error}"
    if found:
        print(found, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
