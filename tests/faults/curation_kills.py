"""A curation job that is killed in stage after stage, and one that nobody disturbs: what both leave behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conftest import Installation

KILLED = -9
ASKING = ("questions", "answers", "rewrite", "review", "ifd", "diversity")
STAGES = ("load", "validate", "exact", "near", "leakage", *ASKING)


def killed_run(system: Installation, stage: str, number: int, moment: str, recipe: str) -> int:
    """Run the job until it is killed there; returns its exit code, 0 where it came to its end before."""
    command = [
        sys.executable,
        "-m",
        "tests.faults.crashing_runner",
        stage,
        str(number),
        moment,
        "curate",
        "run",
        recipe,
    ]
    environment = {**system.environment, "BAKEOFF_LEASE_SECONDS": "0.3"}  # so long it holds the job after its death
    return subprocess.run(command, env=environment, capture_output=True, timeout=300, check=False).returncode


def finished(system: Installation, recipe: str, folder: Path) -> dict[str, bytes]:
    """Run a job to its end; the files that it leaves, by name."""
    done = system.run("curate", "run", recipe, "--out", str(folder), timeout=600)
    assert done.code == 0, done.err + system.logs()
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def everywhere() -> list[tuple[str, int, str]]:
    """In every stage before and after its first commit.

    Where models are asked, the first one changes nothing: before the second one tasks are stored and nobody has noted it.
    """
    alone = [(stage, 1, moment) for stage in STAGES if stage not in ASKING for moment in ("before", "after")]
    moments = ((2, "before"), (2, "after"), (4, "after"))
    return alone + [(stage, number, moment) for stage in ASKING for number, moment in moments]
