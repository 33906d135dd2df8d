"""The peers' environment: their libraries at exact pins, in a virtual environment of its own, and their commands."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from platformdirs import user_cache_dir

from benchmarks.harness import say
from benchmarks.overhead.driver import JUDGE, MODELS
from db.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = Path(__file__).parent / "peers" / "requirements.txt"
QUEUES = (*MODELS, JUDGE)
PIP_WITHIN = 900.0  # seconds

_PEERS = "benchmarks.overhead.peers"


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One set of workers, and the systems that they serve."""

    name: str
    worker: tuple[str, ...]  # arguments of Python; {queue} is one of `QUEUES`
    systems: Mapping[str, str]  # name to the driver's MODULE:CLASS
    backlog_only: tuple[str, ...] = ()  # systems whose latency says nothing that another's does not


PEERS = (
    Peer(
        name="celery",
        # Without what idle workers tell each other, which costs Redis and nobody needs here.
        worker=(
            *("-m", "celery", "-A", f"{_PEERS}.celery_chord_sql", "worker", "-Q", "{queue}", "-n", "{queue}@peers"),
            *("-P", "prefork", "-c", "1", "-l", "WARNING"),
            *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        ),
        systems={
            "celery_chord": f"{_PEERS}.celery_chord:Chord",
            "celery_chord_sql": f"{_PEERS}.celery_chord_sql:StoredChord",
        },
    ),
    Peer(
        name="dramatiq",
        # Its usual eight threads: with one, a consumer takes two messages and then sleeps for a while.
        worker=(
            *("-m", "dramatiq", f"{_PEERS}.dramatiq_group", "-Q", "{queue}", "-p", "1", "-t", "8"),
            *("--worker-shutdown-timeout", "1000"),
        ),
        systems={
            "dramatiq": f"{_PEERS}.dramatiq_group:StoredGroup",
            "dramatiq_bare": f"{_PEERS}.dramatiq_group:Group",
        },
        backlog_only=("dramatiq_bare",),
    ),
    Peer(
        name="procrastinate",
        worker=("-m", "procrastinate", "-a", f"{_PEERS}.procrastinate_jobs.app", "worker", "-q", "{queue}"),
        systems={"procrastinate": f"{_PEERS}.procrastinate_jobs:Jobs"},
    ),
    Peer(
        name="taskiq",
        worker=(
            *("-m", "taskiq", "worker", f"{_PEERS}.taskiq_list:broker_{{queue}}", "--workers", "1"),
            *("--log-level", "WARNING"),
        ),
        systems={"taskiq": f"{_PEERS}.taskiq_list:Kicks"},
    ),
)


def variables(database_url: str, redis_url: str) -> dict[str, str]:
    """The environment variables of a peer's processes."""
    outer = {name: value for name, value in os.environ.items() if not name.startswith(("BAKEOFF_", "VIRTUAL_ENV"))}
    return {
        **outer,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "PEERS_DATABASE_URL": database_url,
        "PEERS_REDIS_URL": redis_url,
    }


def peers_python() -> str:
    """The interpreter of the peers' environment, which is made where it is missing or of other pins.

    Raises `BakeoffError` where it cannot be made.
    """
    folder = Path(user_cache_dir("bakeoff")) / "bench-peers"
    made_of = folder / "made-of"
    pins = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()
    python = folder / "bin" / "python"
    if python.exists() and made_of.exists() and made_of.read_text() == pins:
        return str(python)
    say(f"Making the peers' environment in {folder}: once, up to a minute ...")
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(folder)], "Python's venv module, in Debian the package python3-venv,")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    _run(
        [*pip, "-r", str(REQUIREMENTS)], "A package index that has what benchmarks/overhead/peers/requirements.txt pins"
    )
    made_of.write_text(pins)
    return str(python)


def _run(command: list[str], needed: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_WITHIN, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BakeoffError(f"The peers' environment cannot be made: {error}. {needed} is needed.") from None
    if done.returncode != 0:
        last = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise BakeoffError(f"The peers' environment cannot be made. {needed} is needed. It said:\n{last}")
