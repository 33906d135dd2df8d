"""What enters a model together."""

from __future__ import annotations

from uuid import uuid4

from db.candidates import Work
from worker.run import distinct


def work(key: bytes | None = None) -> Work:
    return Work(
        id=uuid4(), subtask_id=uuid4(), task_id=uuid4(), capability="c", request="", inputs=[], attachments=[],
        options={}, input_key=key,
    )  # fmt: skip


def test_a_batch_is_the_first_so_many() -> None:
    works = [work() for _ in range(5)]

    assert distinct(works, lambda item: item.input_key, 3) == works[:3]


def test_of_equal_inputs_the_first_goes() -> None:
    a, b, c, d = work(b"x"), work(b"y"), work(b"x"), work()

    assert distinct([a, b, c, d], lambda item: item.input_key, 8) == [a, b, d]


def test_a_model_that_does_not_cache_runs_them_all() -> None:
    works = [work(b"x"), work(b"x")]

    assert distinct(works, lambda _: None, 8) == works
