"""The writing side of `up.json`, and the lock that lets one `up` run per home folder."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

import psutil
from pydantic import ValidationError

from db.errors import RefusedNow
from db.instance import FILE_NAME, Instance, ProcessRef, read_instance
from scheduler.local import files
from scheduler.local.processes import end_group

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK_NAME = "up.lock"


def write_instance(home: Path, instance: Instance) -> None:
    """Replace `up.json`: it holds passwords, so only its owner can read it."""
    files.write_private(home / FILE_NAME, instance.model_dump_json(indent=2) + "\n")


def forget_instance(home: Path) -> None:
    """Remove `up.json` after a stop in order."""
    (home / FILE_NAME).unlink(missing_ok=True)


@contextlib.contextmanager
def only_up(home: Path) -> Iterator[None]:
    """Hold the lock of this home; it ends with the process. Raises `RefusedNow` when another `up` has it."""
    files.make_folder(home)
    path = home / LOCK_NAME
    try:
        handle = files.try_lock(path)
    except PermissionError:
        raise RefusedNow(f"{home} belongs to another user; set BAKEOFF_HOME to a folder of your own.") from None
    if handle is None:
        other = _noted(path)
        who = f" (pid {other.pid})" if other else ""
        raise RefusedNow(
            f"Bakeoff is already running{who} in {home}; stop it with `bakeoff down`, "
            "or set BAKEOFF_HOME to run a second one."
        )
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, ProcessRef.of(os.getpid()).model_dump_json().encode(), 0)
        yield
    finally:
        os.close(handle)


def supervisor_of(home: Path) -> ProcessRef | None:
    """The `up` that runs in this home now, also while it is still starting; None when there is none."""
    path = home / LOCK_NAME
    if not path.exists():
        return None
    handle = files.try_lock(path)
    if handle is not None:
        os.close(handle)
        return None
    return _noted(path)


def stop_leftovers(home: Path, grace: float = 5.0) -> list[str]:
    """Stop what a killed `up` left running; returns the names. Call it with the lock held, or after a kill."""
    instance = read_instance(home)
    if instance is None:
        return []
    left = [child for child in instance.children if child.alive()]
    for child in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(child.pid).send_signal(signal.SIGTERM)
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline and any(child.alive() for child in left):
        time.sleep(0.05)
    for child in left:
        if child.alive():
            end_group(child.pid)  # `spawn` made it the leader of a session of its own
    return [child.name for child in left]


def _noted(path: Path) -> ProcessRef | None:
    try:
        return ProcessRef.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
