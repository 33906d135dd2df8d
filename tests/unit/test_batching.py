"""A batch is halved where it is too much, and one bad input is alone with its error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from db.errors import Unreachable
from db.registry import ModelEntry
from db.states import ErrorKind
from worker.backends import Backend, Failure, Input, Output, Place
from worker.batching import DEVICE_LOST, GOOD_BATCHES, TIMEOUT, Ceilings, run_batch

Behaviour = Callable[[list[str]], Any]


class Fake(Backend):
    """Calls a function with the texts of a batch, and remembers the sizes."""

    def __init__(self, behaviour: Behaviour, max_batch: int = 8) -> None:
        model = ModelEntry(name="fake", capability="text-generation", backend="scripted", max_batch=max_batch)
        super().__init__(model, Place(weights=None))
        self.behaviour = behaviour
        self.sizes: list[int] = []

    def load(self) -> None:
        pass

    def run(self, inputs: Sequence[Input]) -> list[Output | Failure]:
        self.sizes.append(len(inputs))
        return self.behaviour([item.text for item in inputs])  # type: ignore[no-any-return]


def run(fake: Fake, count: int = 8, ceilings: Ceilings | None = None) -> list[str]:
    """The texts of the answers, the codes of the failures."""
    inputs = [Input(text=str(number)) for number in range(count)]
    answers = run_batch(fake, inputs, ceilings or Ceilings())
    return [answer.text if isinstance(answer, Output) else answer.code for answer in answers]


def echo(texts: list[str]) -> list[Output]:
    return [Output(text=text) for text in texts]


def at_most(limit: int, error: type[Exception] = MemoryError) -> Behaviour:
    def behaviour(texts: list[str]) -> list[Output]:
        if len(texts) > limit:
            raise error
        return echo(texts)

    return behaviour


def test_a_batch_that_fits_is_one_call() -> None:
    fake = Fake(echo)
    assert run(fake) == list("01234567")
    assert fake.sizes == [8]


def test_no_inputs_are_no_call() -> None:
    fake = Fake(echo)
    assert run(fake, 0) == []
    assert fake.sizes == []


def test_out_of_memory_halves_until_it_fits_and_remembers() -> None:
    fake, ceilings = Fake(at_most(2)), Ceilings()
    assert run(fake, 8, ceilings) == list("01234567")
    assert fake.sizes == [8, 4, 2, 2, 2, 2]  # what was planned with four is halved before it is tried
    assert run(fake, 8, ceilings) == list("01234567")
    assert fake.sizes[6:] == [2, 2, 2, 2]


def test_an_error_named_like_torch_s_out_of_memory_counts() -> None:
    fake, ceilings = Fake(at_most(4, type("OutOfMemoryError", (RuntimeError,), {}))), Ceilings()
    assert run(fake, 8, ceilings) == list("01234567")
    assert ceilings.of(fake.model) == 4


def test_a_single_input_that_does_not_fit_fails_alone_and_the_floor_is_one() -> None:
    fake, ceilings = Fake(at_most(0)), Ceilings()
    assert run(fake, 3, ceilings) == ["out_of_memory"] * 3
    assert ceilings.of(fake.model) == 1


def test_memory_failures_among_answers_are_tried_again_in_smaller_calls() -> None:
    def behaviour(texts: list[str]) -> list[Output | Failure]:
        short = Failure(kind=ErrorKind.MEMORY, code="short", message="")
        return [Output(text=text) if len(texts) <= 2 or int(text) < 4 else short for text in texts]

    fake, ceilings = Fake(behaviour), Ceilings()
    assert run(fake, 8, ceilings) == list("01234567")
    assert fake.sizes[0] == 8
    assert sum(fake.sizes[1:]) >= 4
    assert ceilings.of(fake.model) < 8


def test_one_input_too_large_for_the_memory_lowers_nobody_s_ceiling() -> None:
    def behaviour(texts: list[str]) -> list[Output | Failure]:
        short = Failure(kind=ErrorKind.MEMORY, code="short", message="")
        return [short if text == "5" else Output(text=text) for text in texts]

    fake, ceilings = Fake(behaviour), Ceilings()
    assert run(fake, 8, ceilings) == ["0", "1", "2", "3", "4", "short", "6", "7"]
    assert fake.sizes == [8, 1]
    assert ceilings.of(fake.model) == 8


def test_the_ceiling_rises_slowly_after_good_batches() -> None:
    fake, ceilings = Fake(at_most(4)), Ceilings()
    run(fake, 8, ceilings)
    fake.behaviour = echo
    for _ in range(GOOD_BATCHES - 2):  # two halves were good ones already
        assert ceilings.of(fake.model) == 4
        run(fake, 4, ceilings)
    assert ceilings.of(fake.model) == 5
    for _ in range(3 * GOOD_BATCHES):
        run(fake, ceilings.of(fake.model), ceilings)
    assert ceilings.of(fake.model) == 8


def test_small_batches_say_nothing_about_the_ceiling() -> None:
    fake, ceilings = Fake(at_most(4)), Ceilings()
    run(fake, 8, ceilings)
    for _ in range(2 * GOOD_BATCHES):
        run(fake, 1, ceilings)
    assert ceilings.of(fake.model) == 4


def test_one_bad_input_that_raises_fails_alone() -> None:
    def behaviour(texts: list[str]) -> list[Output]:
        if "5" in texts:
            raise ValueError("five is bad")
        return echo(texts)

    fake, ceilings = Fake(behaviour), Ceilings()
    assert run(fake, 8, ceilings) == ["0", "1", "2", "3", "4", "ValueError", "6", "7"]
    assert fake.sizes == [8, 4, 4, 2, 1, 1, 2]
    assert ceilings.of(fake.model) == 8


@pytest.mark.parametrize("error", [Unreachable("gone"), ConnectionError("gone"), TimeoutError("late")])
def test_a_server_that_is_away_is_not_asked_again_for_less(error: Exception) -> None:
    def behaviour(texts: list[str]) -> list[Output]:
        raise error

    fake = Fake(behaviour)
    assert run(fake) == [type(error).__name__] * 8
    assert fake.sizes == [8]


@pytest.mark.parametrize(
    ("returned", "codes"),
    [
        (None, ["no_text", "no_text"]),
        ([None, Output(text="a")], ["no_text", "a"]),
        (["text", Output(text="a")], ["wrong_type", "a"]),
        ([Output(text="a")], ["wrong_count", "wrong_count"]),
        ([], ["wrong_count", "wrong_count"]),
        ("ab", ["wrong_count", "wrong_count"]),
        (Output(text="a"), ["wrong_count", "wrong_count"]),
        ((Output(text="a"), Output(text="b")), ["a", "b"]),
    ],
)
def test_what_is_no_answer_is_a_failure(returned: Any, codes: list[str]) -> None:
    assert run(Fake(lambda _: returned), 2) == codes


def test_the_soft_limit_ends_the_batch_and_keeps_what_was_answered() -> None:
    def behaviour(texts: list[str]) -> list[Output]:
        if "4" in texts and len(texts) <= 4:
            raise SoftTimeLimitExceeded
        return at_most(4)(texts)

    fake = Fake(behaviour)
    assert run(fake) == ["0", "1", "2", "3", *[TIMEOUT] * 4]
    assert fake.sizes == [8, 4, 4]


def test_a_lost_device_is_asked_nothing_more() -> None:
    class AcceleratorError(RuntimeError):
        pass

    def behaviour(texts: list[str]) -> list[Output]:
        if "2" in texts and len(texts) == 2:
            raise AcceleratorError("CUDA error")
        return at_most(2)(texts)

    fake = Fake(behaviour)
    assert run(fake) == ["0", "1", *[DEVICE_LOST] * 6]
    assert fake.sizes == [8, 4, 2, 2]


@pytest.mark.parametrize("message", ["CUDA error: device-side assert triggered", "HIP error: illegal access"])
def test_an_older_torch_says_it_in_words(message: str) -> None:
    def behaviour(texts: list[str]) -> list[Output]:
        raise RuntimeError(message)

    fake = Fake(behaviour)
    assert run(fake, 4) == [DEVICE_LOST] * 4
    assert fake.sizes == [4]


def test_a_backend_that_guards_its_inputs_hides_no_lost_device() -> None:
    lost = Failure(kind=ErrorKind.MODEL, code="AcceleratorError", message="illegal access")
    fake = Fake(lambda _: [Output(text="a"), lost, Output(text="c")])
    assert run(fake, 3) == ["a", DEVICE_LOST, "c"]
    assert fake.sizes == [3]
