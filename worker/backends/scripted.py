"""A fake model for tests, ours and yours: answers, delays and failures from a table.

`params.rules` is a list tried in order; a rule applies when `match` (a regular expression) is found in the
input's text or in the file's name. Without a rule that applies the answer is `params.answer`, or an echo of the
input. A text may hold `{text}`, `{name}`, `{model}`, and `{number}`: from 0 to 1, decided by model and input alone.

    [models.fake-a]
    backend = "scripted"
    [models.fake-a.params]
    answer = "{model} heard {name}"
    rules = [{ match = "slow", sleep = 2.0 }, { match = "bad", fail = "input" }]

A rule may `fail` in the ways that models do:

| `fail` | what happens |
|---|---|
| `input`, `model`, `memory` | this input fails, of that kind |
| `nothing` | the answer holds no text |
| `raise` | `run` raises, for the whole batch |
| `quote` | the same, and what it says quotes the input and the file's name, as engines do |
| `device` | `run` raises what torch raises when a device's context is lost |
| `exit`, `kill` | the process ends: by itself, by SIGKILL |
| `hang` | sleeps without end |
| `hang-gil` | holds the interpreter's lock: for `sleep` seconds, without it for ever |
| `allocate` | takes memory without end |
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from db.registry import ModelEntry
from db.states import ErrorKind
from worker.backends import Backend, BadInput, Failure, Input, Output, Place, failure_from
from worker.params import Params, checked_params

Way = Literal["input", "model", "memory", "nothing", "raise", "quote", "device", "exit", "kill", "hang", "hang-gil",
              "allocate"]  # fmt: skip


class AcceleratorError(RuntimeError):
    """Named like torch's own."""


class Rule(Params):
    """What happens to an input. `sleep` in seconds, before anything else."""

    match: str = ""
    answer: str | None = None
    answer_mb: int = Field(0, ge=0, le=1000, description="an answer of this many million characters")
    sleep: float = Field(0.0, ge=0, le=3600)
    fail: Way | None = None
    times: int | None = Field(None, ge=0, description="fail only this often, then answer; per process")
    fail_while: Path | None = Field(None, description="fail only while this file exists")


class ScriptedParams(Params):
    """The registry's `params` of a scripted model. `load_sleep` and `sleep` in seconds."""

    answer: str = "{text}{name}"
    vector: int = Field(0, ge=0, le=4096, description="numbers of a vector in `detail`, decided by the input alone")
    sleep: float = Field(0.0, ge=0, le=3600)
    load_sleep: float = Field(0.0, ge=0, le=3600)
    load_fails: bool = False
    rules: tuple[Rule, ...] = ()


class Scripted(Backend):
    """Says what the table says."""

    def __init__(self, model: ModelEntry, place: Place) -> None:
        super().__init__(model, place)
        self._params = checked_params(model, ScriptedParams)
        self._failures: dict[int, int] = {}

    def load(self) -> None:
        """Take as long as the table says."""
        time.sleep(self._params.load_sleep)
        if self._params.load_fails:
            raise RuntimeError("the script says that it cannot be loaded")

    def run(self, inputs: Sequence[Input]) -> list[Output | Failure]:
        """One answer or failure per input."""
        time.sleep(self._params.sleep)
        return [self._one(item) for item in inputs]

    def _one(self, item: Input) -> Output | Failure:
        name = item.files[0].name if item.files else ""
        for number, rule in enumerate(self._params.rules):
            if re.search(rule.match, item.text) or (name and re.search(rule.match, name)):
                if rule.fail != "hang-gil":
                    time.sleep(rule.sleep)
                if rule.fail is not None and self._still_fails(number, rule):
                    if rule.fail == "quote":
                        raise RuntimeError(f"the script cannot read {item.text!r} of {name!r}")
                    return self._fail(rule.fail, rule.sleep)
                if rule.answer_mb:
                    return Output(text="x" * (rule.answer_mb * 1_000_000))
                return self._say(rule.answer if rule.answer is not None else self._params.answer, item.text, name)
        return self._say(self._params.answer, item.text, name)

    def _still_fails(self, number: int, rule: Rule) -> bool:
        if rule.fail_while is not None and not rule.fail_while.exists():
            return False
        self._failures[number] = self._failures.get(number, 0) + 1
        return rule.times is None or self._failures[number] <= rule.times

    def _fail(self, how: Way, seconds: float) -> Output | Failure:
        if how in ENDS:
            ENDS[how](seconds)
        if how == "nothing":
            return Output(text=None)  # type: ignore[arg-type] # the point
        if how == "raise":
            raise RuntimeError("the script says that the batch fails")
        if how == "device":
            raise AcceleratorError("the script says that the device is lost")
        if how == "input":
            return failure_from(BadInput("the script says that this input is bad"))
        kind = ErrorKind.MEMORY if how == "memory" else ErrorKind.MODEL
        return Failure(kind=kind, code="scripted", message=f"{self.model.name} fails as the script says")

    def _say(self, template: str, text: str, name: str) -> Output:
        number = f"{drawn_number(self.model.name, text):.4f}"
        said = template.replace("{number}", number).replace("{text}", text)
        said = said.replace("{name}", name).replace("{model}", self.model.name)
        vector = [2 * drawn_number(text, str(place)) - 1 for place in range(self._params.vector)]
        return Output(text=said, detail={"vector": vector} if vector else {}, usage={"output_chars": len(said)})


def drawn_number(*texts: str) -> float:
    """A number from 0 to 1 that looks drawn by lot and is the same for the same texts, on every machine."""
    digest = hashlib.sha256("\n".join(texts).encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _hang(_: float) -> None:
    while True:
        time.sleep(3600)


def _hold_the_lock(seconds: float) -> None:
    libc = ctypes.PyDLL(None)  # unlike CDLL, it keeps the interpreter's lock during a call
    if seconds:
        libc.usleep(int(seconds * 1_000_000))
        return
    mutex = ctypes.create_string_buffer(256)  # zeros are a fresh mutex; who locks it twice waits for itself
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)


def _allocate(_: float) -> None:
    held = []
    while True:
        held.append(b"x" * 32_000_000)


#: What ends, or stops, the whole process.
ENDS: dict[str, Callable[[float], None]] = {
    "exit": lambda _: os._exit(70),
    "kill": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "hang": _hang,
    "hang-gil": _hold_the_lock,
    "allocate": _allocate,
}
