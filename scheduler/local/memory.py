"""Does a choice of models fit into this machine? Asked before anything starts, answered with the sum."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from db.errors import RefusedNow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from db.registry import ModelEntry

MIB = 1024 * 1024


def free_mb() -> int:
    """MiB that new processes can have: of the machine, and of the container where there is one."""
    free = [psutil.virtual_memory().available, *_of_control_groups(Path("/proc/self/cgroup"))]
    return max(0, min(free)) // MIB


def refuse_if_too_large(models: Sequence[ModelEntry], *, beside_mb: int = 0, free: int | None = None) -> int:
    """The MiB that these models need together with what runs beside them.

    Raises `RefusedNow` with the sum when there is less free.
    """
    free = free_mb() if free is None else free
    needed = sum(model.memory_mb for model in models) + beside_mb
    if needed > free:
        largest = sorted(models, key=lambda model: -model.memory_mb)
        parts = ", ".join(f"{model.name} {model.memory_mb} MB" for model in largest)
        beside = f", servers and scheduler {beside_mb} MB" if beside_mb else ""
        raise RefusedNow(
            f"These models need {needed} MB of memory ({parts}{beside}) and {free} MB are free. Choose a profile "
            "with fewer or smaller models, free some memory, or run some models on another machine with "
            "`bakeoff worker MODEL`."
        )
    return needed


def _of_control_groups(own: Path) -> list[int]:
    """Bytes left below the limit of each control group (version 2) that this process is in."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    left = []
    root = Path("/sys/fs/cgroup")
    for line in lines:
        if line.startswith("0::"):
            folder = root / line.removeprefix("0::").strip("/")
            while folder.is_relative_to(root):
                left += _left_in(folder)
                folder = folder.parent
    return left


def _left_in(folder: Path) -> list[int]:
    try:
        limit = (folder / "memory.max").read_text(encoding="utf-8").strip()
        used = int((folder / "memory.current").read_text(encoding="utf-8"))
        stat = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError):
        return []
    # Cached pages of files are given back when somebody needs the memory.
    return [] if limit == "max" else [int(limit) - used + int(stat.get("inactive_file", 0))]
