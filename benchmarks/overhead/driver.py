"""The submitting process of every system, ours and the peers': it takes commands on stdin and answers in JSON.

`python -m benchmarks.overhead.driver MODULE:CLASS`. It imports nothing but the standard library and that module, since
it runs in two environments. Its commands: `submit N`, `wait 0`, `singles N`. It ends when its stdin does, so it never
outlives the benchmark.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MODELS = ("m0", "m1", "m2")
JUDGE = "judge"
REQUEST_CHARS = 200
PATIENCE = 60.0  # seconds until something has gone wrong
LOOK = 0.002  # seconds between two looks at a single task; every system is looked at equally often
LOOK_AT_ALL = 0.05
SINGLES_WITHIN = 5.0  # seconds
PAUSE = 0.02  # seconds between two single tasks: everybody has gone back to waiting


def request(number: int) -> str:
    """A request of 200 characters, unlike any other."""
    return f"request {number:012d} ".ljust(REQUEST_CHARS, "x")


def answer(text: str) -> str:
    """What each no-op model answers: 400 characters."""
    return text + text


def pick(answers: Sequence[str]) -> int:
    """What the judge does: the place of the longest, of equals the first."""
    return max(range(len(answers)), key=lambda place: len(answers[place]))


class Submitter(ABC):
    """How one system is given tasks, and how it says that they are finished."""

    @abstractmethod
    def prepare(self) -> None:
        """Make what has to be there before the first task."""

    def submit(self, numbers: range) -> None:
        """Submit many, in the way that the system recommends for many."""
        for number in numbers:
            self.submit_one(number)

    @abstractmethod
    def submit_one(self, number: int) -> str:
        """Submit one task and return its key."""

    @abstractmethod
    def finished(self, key: str) -> bool:
        """Whether this task, the last one submitted, is finished."""

    @abstractmethod
    def all_finished(self) -> bool:
        """Whether every task submitted so far is finished."""


def serve(submitter: Submitter) -> None:
    """Do what is asked until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no answer
    submitter.prepare()
    answers.write("{}\n")
    number = time.time_ns() // 1000 % 10**12  # no two processes ask the same: an answer could come from a cache
    for line in sys.stdin:
        command, count = line.split()
        if command == "submit":
            said: dict[str, Any] = _submit(submitter, range(number, number + int(count)))
        elif command == "wait":
            said = {"finished": _until(submitter.all_finished, LOOK_AT_ALL)}
        else:
            said = {"milliseconds": _singles(submitter, range(number, number + int(count)))}
        number += int(count)
        answers.write(json.dumps(said) + "\n")


def _submit(submitter: Submitter, numbers: range) -> dict[str, float]:
    started = time.perf_counter()
    submitter.submit(numbers)
    return {"seconds": time.perf_counter() - started}


def _singles(submitter: Submitter, numbers: range) -> list[float | None]:
    """One after the other; of a slow system fewer, but at least one."""
    ends = time.monotonic() + SINGLES_WITHIN
    times: list[float | None] = []
    for number in numbers:
        times.append(_single(submitter, number))
        if time.monotonic() > ends:
            break
    return times


def _single(submitter: Submitter, number: int) -> float | None:
    """Milliseconds from before the submission to the look that found it finished; None where patience ended."""
    time.sleep(PAUSE)
    started = time.perf_counter()
    key = submitter.submit_one(number)
    if not _until(lambda: submitter.finished(key), LOOK):
        return None
    return (time.perf_counter() - started) * 1000


def _until(condition: Callable[[], bool], pause: float) -> bool:
    ends = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > ends:
            return False
        time.sleep(pause)
    return True


def main() -> None:
    """Serve the class that the command line names."""
    module, name = sys.argv[1].split(":")
    serve(getattr(importlib.import_module(module), name)())


if __name__ == "__main__":
    main()
