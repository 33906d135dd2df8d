"""A curation runner that is killed in a stage, before or after the commit of a transaction.

python -m tests.faults.crashing_runner STAGE NUMBER before|after curate run ...: at the NUMBER-th transaction of that
stage; where the stage has fewer, it ends as it would.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from scheduler.cli import main
from scheduler.curation import runner
from scheduler.curation.run import Run


def crash_at(stage: str, number: int, moment: str) -> None:
    """Let the real runner be killed there."""
    changing, note_stage = Run.changing, runner.note_stage  # type: ignore[attr-defined] # the name that it calls
    now: dict[str, Any] = {"stage": "", "left": number}

    def noting(connection: Any, job: Any, name: str) -> None:
        now["stage"] = name
        note_stage(connection, job, name)

    @contextmanager
    def crashing(self: Run) -> Iterator[Any]:
        entered = now["stage"]
        with changing(self) as connection:
            yield connection
            counts = entered == stage == now["stage"]
            now["left"] -= counts
            if counts and now["left"] == 0 and moment == "before":
                os.kill(os.getpid(), signal.SIGKILL)
        if counts and now["left"] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    runner.note_stage = noting  # type: ignore[attr-defined]
    Run.changing = crashing  # type: ignore[method-assign]


if __name__ == "__main__":
    crash_at(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    sys.argv = ["bakeoff", *sys.argv[4:]]
    main()
