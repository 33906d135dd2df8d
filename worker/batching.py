"""One batch through a model: halved where it is too much, one bad input alone with its error, never an exception.

What a batch ran out of memory with is remembered per model, for as long as the process lives.
"""

from __future__ import annotations

import gc
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

from db.errors import Unreachable
from db.logs import get_logger
from db.registry import ModelEntry
from db.states import ErrorKind
from worker.backends import Backend, Failure, Input, Output, failure_from

log = get_logger(__name__)

Answers = list[Output | Failure]

TIMEOUT = "timeout"
DEVICE_LOST = "device_lost"
LATE = Failure(kind=ErrorKind.MODEL, code=TIMEOUT, message="The message ran into its time limit.")

#: By name, so that nobody imports torch to ask. After one of these every later call on the device fails.
FATAL_ERRORS = frozenset({"AcceleratorError"})
FATAL_WORDS = ("CUDA error:", "HIP error:", "device-side assert")

GOOD_BATCHES = 20  # at the ceiling, one after the other, before it rises by a quarter


@dataclass
class Ceilings:
    """How many inputs each model of this process takes at once, where that is fewer than its `max_batch`."""

    _ceilings: dict[str, int] = field(default_factory=dict)
    _good: dict[str, int] = field(default_factory=dict)

    def of(self, model: ModelEntry) -> int:
        """Inputs of one call at most."""
        return min(self._ceilings.get(model.name, model.max_batch), model.max_batch)

    def lower(self, model: ModelEntry, size: int) -> None:
        """A call of `size` inputs ran out of memory: half of it is the most from now on."""
        self._ceilings[model.name] = max(1, min(self.of(model), size // 2))
        self._good.pop(model.name, None)

    def went_well(self, model: ModelEntry, size: int) -> None:
        """A call of `size` inputs fitted. What was short may have been another process's doing: rise slowly."""
        ceiling = self._ceilings.get(model.name)
        if ceiling is None or size < ceiling:
            return
        self._good[model.name] = self._good.get(model.name, 0) + 1
        if self._good[model.name] >= GOOD_BATCHES:
            del self._good[model.name]
            self._ceilings[model.name] = ceiling + max(1, ceiling // 4)
            if self._ceilings[model.name] >= model.max_batch:
                del self._ceilings[model.name]


@dataclass(frozen=True)
class _Call:
    """What one call of a model came to: an answer for each input, and whether it makes sense to ask again for less."""

    answers: Answers
    raised: bool = False
    hopeless: bool = False  # fewer inputs would change nothing

    @property
    def out_of_memory(self) -> list[int]:
        return [place for place, answer in enumerate(self.answers) if _short_of_memory(answer)]

    def to_repeat(self) -> list[int]:
        """Positions that a smaller call may still answer."""
        if self.hopeless or len(self.answers) == 1:
            return []
        return list(range(len(self.answers))) if self.raised else self.out_of_memory

    def last_word(self) -> Failure | None:
        """The failure after which nothing more is asked of this model: no time is left, or no device."""
        last = (answer for answer in self.answers if isinstance(answer, Failure) and ends_the_message(answer))
        return next(last, None)


def ends_the_message(answer: Output | Failure) -> bool:
    """Whether no further batch of the message should be tried in this process."""
    return isinstance(answer, Failure) and answer.code in {TIMEOUT, DEVICE_LOST}


def run_batch(backend: Backend, inputs: Sequence[Input], ceilings: Ceilings) -> Answers:
    """An answer or a failure for each input, in their order. Never raises what a backend raises."""
    model = backend.model
    answers: dict[int, Output | Failure] = {}
    pending = deque([list(range(len(inputs)))] if inputs else [])
    while pending:
        indices = pending.popleft()
        if len(indices) > (ceiling := ceilings.of(model)):
            pending.extendleft(reversed(_parts(indices, ceiling)))
            continue
        call = _call(backend, [inputs[index] for index in indices])
        # The except block is left: nothing holds the failed call's memory any more.
        repeated = [indices[place] for place in call.to_repeat()]
        answers.update(
            (index, answer) for index, answer in zip(indices, call.answers, strict=True) if index not in repeated
        )
        _remember(ceilings, model, call)
        if repeated:
            _free_memory()
            pending.extendleft(reversed(_parts(repeated, len(indices) // 2)))
        elif (word := call.last_word()) is not None:
            answers.update((index, word) for index in range(len(inputs)) if index not in answers)
            pending.clear()
    return [answers[index] for index in range(len(inputs))]


def _remember(ceilings: Ceilings, model: ModelEntry, call: _Call) -> None:
    size, short = len(call.answers), len(call.out_of_memory)
    if size > 1 and (short > 1 or (short and call.raised)):
        ceilings.lower(model, size)
        log.warning(
            f"{model.name} ran out of memory with {size} inputs: {ceilings.of(model)} at once from now on",
            action="batch_ceiling_lowered",
            model=model.name,
            ceiling=ceilings.of(model),
        )
    elif not short and not call.raised:
        ceilings.went_well(model, size)


def _call(backend: Backend, inputs: Sequence[Input]) -> _Call:
    count = len(inputs)
    try:
        call = _Call(_checked(backend.run(inputs), count))
    except SoftTimeLimitExceeded:
        return _Call([LATE] * count, raised=True, hopeless=True)
    except Exception as error:
        failure, hopeless = _failure(error)
        if hopeless or count == 1:
            log.exception("A batch failed", action="batch_failed", model=backend.model.name, inputs=count)
        else:
            log.warning(
                f"A batch is halved: {failure.code}",
                action="batch_halved", model=backend.model.name, said=failure.message,
            )  # fmt: skip
        return _Call([failure] * count, raised=True, hopeless=hopeless)
    return _Call([_told(answer) for answer in call.answers], hopeless=any(map(_is_last, call.answers)))


def _is_last(answer: Output | Failure) -> bool:
    return isinstance(answer, Failure) and answer.code in {*FATAL_ERRORS, SoftTimeLimitExceeded.__name__}


def _told(answer: Output | Failure) -> Output | Failure:
    """The answer; what a backend that guards each of its inputs caught itself is called by our names."""
    if not isinstance(answer, Failure) or not _is_last(answer):
        return answer
    return _device_lost(answer.message) if answer.code in FATAL_ERRORS else LATE


def _failure(error: Exception) -> tuple[Failure, bool]:
    """The failure of a whole call, and whether a smaller one would end the same way."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & FATAL_ERRORS or any(word in str(error) for word in FATAL_WORDS):
        return _device_lost(failure_from(error).message), True
    # A server that is away is away for half as many inputs, too.
    return failure_from(error), isinstance(error, Unreachable | ConnectionError | TimeoutError)


def _device_lost(reason: str) -> Failure:
    return Failure(kind=ErrorKind.MODEL, code=DEVICE_LOST, message=f"The device's context is lost: {reason}")


def _checked(answers: Any, count: int) -> Answers:
    """What `run` returned, with failures in place of what is no answer: a plug-in may return anything."""
    if answers is None:
        answers = [None] * count
    if not isinstance(answers, list | tuple):
        answers = [answers] * count if count == 1 else [answers]
    if len(answers) != count:
        message = f"{len(answers)} answers came for {count} inputs."
        return [Failure(kind=ErrorKind.MODEL, code="wrong_count", message=message)] * count
    return [answer if isinstance(answer, Output | Failure) else _no_answer(answer) for answer in answers]


def _no_answer(value: object) -> Failure:
    if value is None:
        return Failure(kind=ErrorKind.MODEL, code="no_text", message="The model returned nothing.")
    message = f"The model returned {type(value).__name__}, no output."
    return Failure(kind=ErrorKind.MODEL, code="wrong_type", message=message)


def _short_of_memory(answer: Output | Failure) -> bool:
    return isinstance(answer, Failure) and answer.kind is ErrorKind.MEMORY


def _parts(indices: list[int], size: int) -> list[list[int]]:
    size = max(1, size)
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def _free_memory() -> None:
    """Give back what the failed call left; torch only where a backend has imported it."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
