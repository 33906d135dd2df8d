"""How many questions enter a judge together."""

from __future__ import annotations

from collections import deque
from uuid import uuid4

from db.verdicts import Attempted, ToJudge
from worker.pace import MOST, JudgePace, Speeds


def subtask(judge: str = "j", attempt: int = 0, candidates: int = 2) -> ToJudge:
    return ToJudge(
        id=uuid4(), task_id=uuid4(), capability="c", judge=judge, request="", attempt=attempt, max_attempts=3,
        failed=0, candidates=[Attempted(id=uuid4(), model="m", output="", rank=n) for n in range(candidates)],
    )  # fmt: skip


def sizes(pace: JudgePace, *waiting: ToJudge) -> list[int]:
    queue = deque(waiting)
    out = []
    while chunk := pace.next_of(queue):
        out.append(len(chunk))
    return out


def fast(seconds: float = 0.001) -> JudgePace:
    pace = JudgePace()
    pace.took("j", seconds)
    return pace


def test_nobody_knows_a_judge_that_was_not_asked_yet() -> None:
    assert sizes(JudgePace(), subtask(), subtask()) == [1, 1]


def test_a_fast_judge_gets_many_and_a_slow_one_gets_one() -> None:
    assert sizes(fast(), *(subtask() for _ in range(100))) == [100]
    assert sizes(fast(0.1), *(subtask() for _ in range(8))) == [5, 3]
    assert sizes(fast(5.0), subtask(), subtask()) == [1, 1]


def test_there_is_a_most() -> None:
    assert fast(0.0).size("j") == MOST


def test_what_cost_a_process_before_goes_alone() -> None:
    assert sizes(fast(), subtask(), subtask(), subtask(attempt=1), subtask(attempt=1)) == [2, 1, 1]


def test_what_asks_nothing_counts_for_nothing() -> None:
    single = [subtask(candidates=1) for _ in range(5)]
    assert sizes(JudgePace(), *single) == [5]
    assert sizes(JudgePace(), subtask(), *single, subtask(), subtask(candidates=1)) == [6, 2]


def test_a_chunk_asks_one_judge() -> None:
    assert sizes(fast(), subtask(), subtask("k"), subtask("k")) == [1, 1, 1]


def test_one_slow_question_slows_the_pace_and_is_forgotten_in_time() -> None:
    pace = fast(0.001)
    pace.took("j", 10.0)
    assert pace.size("j") == 1
    for _ in range(40):
        pace.took("j", 0.001)
    assert pace.size("j") > 10


def test_only_a_speed_that_changed_is_news() -> None:
    speeds = Speeds()
    speeds.took("m", 0.1)
    assert speeds.news("m") == 0.1
    speeds.told("m", 0.1)
    speeds.took("m", 0.11)
    assert speeds.news("m") is None

    for _ in range(10):
        speeds.took("m", 0.3)

    assert speeds.news("m") is not None


def test_a_model_that_does_nothing_is_not_told_about_for_ever() -> None:
    speeds = Speeds()
    speeds.took("m", 1e-6)
    speeds.told("m", 1e-6)
    for number in range(50):
        speeds.took("m", 1e-6 * (1 + number % 7))
        assert speeds.news("m") is None
