"""Judges in a row: an error is not a tie, the next one is asked."""

from __future__ import annotations

from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from db.errors import RegistryError, Unreachable
from db.registry import JudgeEntry
from tests.unit.test_judges import Reader, order, question
from worker.judges import Judge, create_judge


def relay(*judges: dict[str, Any], reader: Any = None) -> Judge:
    return create_judge(JudgeEntry(name="row", method="relay", model="reader", params={"judges": judges}), reader)


def scripted(fail: str) -> dict[str, Any]:
    return {"method": "scripted", "params": {"fail_on": ".", "fail": fail}}


CONSENSUS = {"method": "consensus"}


@pytest.mark.parametrize("fail", ["raise", "unreachable", "garbage"])
def test_where_one_fails_the_next_decides_and_the_verdict_says_so(fail: str) -> None:
    # given a judge that fails, in one way or another, before one that asks nobody
    decision = relay(scripted(fail), CONSENSUS).decide(question("8", "7", "7"))
    # then the second one's decision stands, under its own name
    assert order(decision) == [1, 2, 0]
    assert decision.method == "consensus"
    assert decision.orders[-1]["failed"][0]["method"] == "scripted"
    assert "scripted (" in decision.reason


def test_while_the_first_works_nobody_else_is_asked() -> None:
    reader = Reader()
    decision = relay(CONSENSUS, {"method": "nll"}, reader=reader).decide(question("8", "7", "7"))
    assert decision.method == "consensus"
    assert reader.prompts == []
    assert "failed" not in str(decision.orders)


def test_where_all_fail_the_last_error_counts() -> None:
    with pytest.raises(Unreachable):
        relay(scripted("raise"), scripted("unreachable")).decide(question("a", "b"))


def test_the_end_of_a_messages_time_is_no_failure_of_a_judge() -> None:
    class Late(Reader):
        def continuation_logprobs(self, prompt: str, continuations: Any) -> list[float]:  # noqa: ARG002 - it is late
            raise SoftTimeLimitExceeded

    with pytest.raises(SoftTimeLimitExceeded):
        relay({"method": "nll"}, CONSENSUS, reader=Late()).decide(question("a b c", "d e f"))


def test_a_row_of_one_or_of_strangers_is_refused() -> None:
    with pytest.raises(RegistryError, match=r"judges\.row\.params\.judges"):
        relay(CONSENSUS)
    with pytest.raises(RegistryError, match="smell"):
        relay(CONSENSUS, {"method": "smell"})
