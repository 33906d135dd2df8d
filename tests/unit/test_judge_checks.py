"""The judge that goes by rules first: what fails a hard check cannot win."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter

from db.errors import RegistryError
from db.registry import JudgeEntry
from tests.unit.test_judges import Reader, order, question
from worker.judges import Decision, create_judge
from worker.judges.checking import AnyCheck, Check
from worker.judges.language import language_of


def check(**given: Any) -> Check:
    found: Check = TypeAdapter(AnyCheck).validate_python(given)
    return found


def decide(*texts: str, checks: list[dict[str, Any]], reader: Any = None, **params: Any) -> Decision:
    entry = JudgeEntry(name="ruled", method="checks", model="reader", params={"checks": checks, **params})
    return create_judge(entry, reader).decide(question(*texts))


# --- single checks ------------------------------------------------------------------------------------------------

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@pytest.mark.parametrize(
    ("given", "good", "bad"),
    [
        ({"check": "json"}, '{"a": [1, 2]}', "{'a': 1}"),
        ({"check": "json"}, '```json\n{"a": 1}\n```', "Here it is: {}"),
        ({"check": "json"}, "[1]", '{"a": NaN}'),
        ({"check": "json"}, "[1]", "[" * 100_000),
        ({"check": "json", "schema": SCHEMA}, '{"n": 3}', '{"n": "3"}'),
        ({"check": "number"}, " $1,250.50 ", "about 3"),
        ({"check": "number", "least": 0, "most": 10}, "7", "11"),
        ({"check": "number"}, "-2e3", "nan"),
        ({"check": "date"}, "2026-02-28", "2026-02-30"),
        ({"check": "date", "formats": ["%d.%m.%Y", "%d %B %Y"]}, "3 May 2026", "2026-05-03"),
        ({"check": "language", "language": "de"}, "Der Hund ist nicht in dem Haus.", "The dog is not in the house."),
        ({"check": "language", "language": "ja"}, "これは日本語の文章です。", "这是一个中文句子，没有别的。"),  # noqa: RUF001
        ({"check": "length", "most": 3}, "one two three", "one two three four"),
        ({"check": "length", "of": "characters", "least": 5}, "12345", "1234"),
        ({"check": "length", "of": "sentences", "least": 2, "most": 2}, "It is 3.5 m. Go!", "One."),
        ({"check": "mentions", "texts": ["Paris", ["euro", "€"]]}, "In PARIS you pay in euro.", "Parisian euro prices"),
        ({"check": "mentions", "texts": ["sorry"], "never": True}, "Here you are.", "Sorry, I cannot."),
        ({"check": "matches", "pattern": "[A-Z]{2}-\\d+"}, "ticket AB-12", "ticket ab-12"),
        ({"check": "matches", "pattern": "yes|no", "whole": True}, "yes", "yes, sir"),
        ({"check": "python"}, "```python\nprint(1)\n```", "```python\nprint(1\n```"),
        ({"check": "python"}, "def f():\n    return 1", "The code is below."),
        ({"check": "python"}, "x = 1", "(" * 5000 + ")" * 5000),
    ],
)
def test_a_check_tells_good_from_bad(given: dict[str, Any], good: str, bad: str) -> None:
    assert check(**given).met(good) == 1
    assert check(**given).met(bad) == 0


def test_code_is_read_and_never_run(tmp_path: Any) -> None:
    # given code that would leave a trace
    trace = tmp_path / "trace"
    assert check(check="python").met(f"open({str(trace)!r}, 'w')") == 1
    assert not trace.exists()


def test_a_weighted_check_is_met_in_part() -> None:
    assert check(check="length", most=10, weight=1).met("w " * 20) == pytest.approx(0.5)
    assert check(check="mentions", texts=["a", "b"], weight=1).met("only a") == pytest.approx(0.5)


def test_a_text_too_short_to_tell_has_no_language() -> None:
    assert language_of("OK 12") is None
    assert check(check="language", language="fr").met("OK 12") == 1


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"check": "smell"}, "checks"),
        ({"check": "matches", "pattern": "("}, "pattern"),
        ({"check": "language", "language": "xx"}, "language"),
        ({"check": "length", "least": 5, "most": 4}, "least"),
        ({"check": "json", "schema": {"type": "thing"}}, "schema"),
    ],
)
def test_a_wrong_check_is_refused_with_its_key(given: dict[str, Any], key: str) -> None:
    with pytest.raises(RegistryError, match=rf"judges\.ruled\.params\.checks.*{key}"):
        decide("a", "b", checks=[given])


# --- the judge ----------------------------------------------------------------------------------------------------


def test_what_fails_a_hard_check_cannot_win() -> None:
    # given the selectors' first answer in prose, and JSON behind it
    decision = decide("Sure! The answer is 1.", '{"n": 1}', "{}", checks=[{"check": "json", "schema": SCHEMA}])
    # then the JSON that fits wins, and those that fail keep their order
    assert order(decision) == [1, 0, 2]
    assert decision.scores[decision.ranking[0]] > decision.scores[decision.ranking[1]]
    assert "1 of 3 answers meet every hard check" in decision.reason
    assert decision.orders[0]["checks"][0]["failed"] == ("json",)


def test_weighted_checks_rank_those_that_pass_and_rank_breaks_ties() -> None:
    weighted = [{"check": "mentions", "texts": ["red"], "weight": 2}, {"check": "length", "most": 3, "weight": 1}]
    decision = decide("blue", "red and much too long a text", "red", "green", checks=weighted)
    assert order(decision) == [2, 1, 0, 3]
    assert decision.scores[decision.ranking[0]] == 1


def test_another_judge_decides_among_those_that_pass() -> None:
    # given a judge behind that finds the answer most likely which fails
    reader = Reader(likely=["likely but no number", "7"])
    decision = decide(
        "5", "likely but no number", "7", checks=[{"check": "number"}], reader=reader, then={"method": "nll"}
    )
    # then it is asked about the others only
    assert order(decision) == [2, 0, 1]
    assert reader.continuations == ["5", "7"]
    assert decision.model == "reader@1"
    assert decision.method == "checks"
    assert decision.scores[decision.ranking[2]] < min(decision.scores[id_] for id_ in decision.ranking[:2])


def test_one_that_passes_needs_no_other_judge() -> None:
    reader = Reader()
    decision = decide("no", "8", checks=[{"check": "number"}], reader=reader, then={"method": "nll"})
    assert order(decision) == [1, 0]
    assert reader.continuations == []


def test_where_none_passes_the_fewest_failures_stand_first_and_the_verdict_says_so() -> None:
    checks = [{"check": "number"}, {"check": "length", "most": 2}]
    decision = decide("far too many words", "two words", checks=checks)
    assert order(decision) == [1, 0]
    assert "No answer meets every hard check" in decision.reason
    assert decision.confidence is None


def test_the_judge_behind_is_checked_like_any_other() -> None:
    with pytest.raises(RegistryError, match="llm_smell"):
        decide("a", "b", checks=[{"check": "json"}], then={"method": "llm_smell"})
    with pytest.raises(RegistryError, match=r"judges\.ruled\.params\.per"):
        decide("a", "b", checks=[{"check": "json"}], reader=Reader(), then={"method": "nll", "params": {"per": "x"}})
