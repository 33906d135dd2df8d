"""The model called directly: a process of its own that loads one backend and answers how long calls of it took.

The parent talks to it in lines of JSON: `{"samples": FILE, "size": N}` in, `{"seconds": S, "cpu_seconds": S}` out.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TextIO

from benchmarks.batching.samples import read_samples
from db.errors import BakeoffError
from db.registry import read_registry
from worker.backends import Failure, Place, create_backend
from worker.weights import locate

if TYPE_CHECKING:
    from types import TracebackType

    from worker.backends import Backend, Input


#: What the process of the direct calls and the worker have in common. Without a fixed threshold, glibc gives a batch's
#: memory back and takes it anew for the next one in some processes and not in others, by luck: up to a fifth of the
#: time.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),  # bytes
    "MALLOC_MMAP_THRESHOLD_": str(1 << 25),
}


@dataclass(frozen=True, kw_only=True)
class Took:
    """What some calls took. Where `cpu_seconds` is well below `seconds`, something else had the core meanwhile."""

    seconds: float
    cpu_seconds: float


class Direct:
    """The parent's end. One thread computes, as in the worker that it is compared with."""

    def __init__(self, registry: Path, model: str, cache: Path) -> None:
        """Start loading; the first question waits for it. `registry` is a file."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.batching.direct", str(registry), model, str(cache)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **ENVIRONMENT},
        )

    def call(self, samples: Path, size: int) -> Took:
        """What it takes to answer the samples of a file in calls of `size`. Raises `BakeoffError`."""
        if self._process.stdin is None or self._process.stdout is None:
            raise BakeoffError("The process that calls the model directly has no pipes.")
        try:
            self._process.stdin.write(json.dumps({"samples": str(samples), "size": size}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise BakeoffError("The process that calls the model directly ended; see above.") from None
        answer = self._process.stdout.readline()
        if not answer:
            raise BakeoffError("The process that calls the model directly ended; see above.")
        return Took(**json.loads(answer))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()


def _timed(backend: Backend, inputs: list[Input], size: int) -> Took:
    """All calls, timed. Raises `BakeoffError` for an input without an answer: it took no time."""
    started, cpu = time.perf_counter(), time.process_time()
    answers = [answer for at in range(0, len(inputs), size) for answer in backend.run(inputs[at : at + size])]
    took = Took(seconds=time.perf_counter() - started, cpu_seconds=time.process_time() - cpu)
    failures = [answer.message for answer in answers if isinstance(answer, Failure)]
    if failures or len(answers) != len(inputs):
        raise BakeoffError(
            f"{backend.model.name} answered {len(answers) - len(failures)} of {len(inputs)}: {failures[:1]}"
        )
    return took


def _serve(questions: TextIO, answers: TextIO, arguments: list[str]) -> None:
    registry, name, cache = arguments
    known = read_registry(Path(registry))
    entry = known.model(name)
    backend = create_backend(entry, Place(weights=locate(entry, Path(cache)), device=entry.device, threads=1))
    backend.load()
    for line in questions:
        question: dict[str, Any] = json.loads(line)
        capability = known.capabilities[entry.capability]
        inputs = [sample.as_input(capability) for sample in read_samples(Path(question["samples"]))]
        backend.run(inputs[:1])  # what lay idle since the last question is slow for a moment; that is nobody's figure
        print(json.dumps(asdict(_timed(backend, inputs, question["size"]))), file=answers, flush=True)


if __name__ == "__main__":
    pipe, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no answer
    with contextlib.suppress(BrokenPipeError):  # nobody wants to know any more
        _serve(sys.stdin, pipe, sys.argv[1:])
