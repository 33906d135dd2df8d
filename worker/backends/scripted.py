"""A fake model for tests, ours and yours: answers, delays and failures from a table.

`params.rules` is a list tried in order; a rule applies when `match` (a regular expression) is found in the
input's text or in the file's name. Without a rule that applies the answer is `params.answer`, or an echo of the
input. A text may hold `{text}`, `{name}` and `{model}`.

    [models.fake-a]
    backend = "scripted"
    [models.fake-a.params]
    answer = "{model} heard {name}"
    rules = [{ match = "slow", sleep = 2.0 }, { match = "bad", fail = "input" }]
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from db.registry import ModelEntry
from db.states import ErrorKind
from worker.backends import Backend, BadInput, Failure, Input, Output, Place, failure_from
from worker.params import Params, checked_params


class Rule(Params):
    """What happens to an input. `sleep` in seconds, before anything else."""

    match: str = ""
    answer: str | None = None
    sleep: float = Field(0.0, ge=0, le=3600)
    fail: Literal["input", "model", "memory", "exit", "kill"] | None = None
    times: int | None = Field(None, ge=0, description="fail only this often, then answer; per process")


class ScriptedParams(Params):
    """The registry's `params` of a scripted model. `load_sleep` and `sleep` in seconds."""

    answer: str = "{text}{name}"
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
                time.sleep(rule.sleep)
                if rule.fail is not None and self._still_fails(number, rule):
                    return self._fail(rule.fail)
                return self._say(rule.answer if rule.answer is not None else self._params.answer, item.text, name)
        return self._say(self._params.answer, item.text, name)

    def _still_fails(self, number: int, rule: Rule) -> bool:
        self._failures[number] = self._failures.get(number, 0) + 1
        return rule.times is None or self._failures[number] <= rule.times

    def _fail(self, how: str) -> Failure:
        if how == "exit":
            os._exit(70)
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "input":
            return failure_from(BadInput("the script says that this input is bad"))
        kind = ErrorKind.MEMORY if how == "memory" else ErrorKind.MODEL
        return Failure(kind=kind, code="scripted", message=f"{self.model.name} fails as the script says")

    def _say(self, template: str, text: str, name: str) -> Output:
        said = template.replace("{text}", text).replace("{name}", name).replace("{model}", self.model.name)
        return Output(text=said, usage={"output_chars": len(said)})
