"""What a task says about its answers: one vocabulary with the registry, nothing that could keep a judge busy."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from db.errors import InvalidRequest
from db.registry import JudgeEntry
from scheduler.requests import TaskOptions, parse_options
from tests.unit.test_judge_rubric import Marker
from tests.unit.test_judges import order, question
from worker.judges import Decision, Question, check_decision, create_judge
from worker.judges.checking import IsNumber
from worker.judges.expecting import Expect, lacks_components, merged
from worker.judges.passing import decide, sift


def expecting(*texts: str, **expect: Any) -> Question:
    return replace(question(*texts), expect=Expect.model_validate(expect) if expect else None)


def decided(asked: Question, method: str, model: Any = None, **params: Any) -> Decision:
    entry = JudgeEntry(name="j", method=method, model="m", params=params)
    return decide(lambda: create_judge(entry, model), sift(asked))


def tree(depth: int) -> dict[str, Any]:
    """A schema that comes to two to the power of `depth` schemas."""
    names = {str(n): {"allOf": [{"$ref": f"#/$defs/{n + 1}"}] * 2} for n in range(depth)}
    return {"$ref": "#/$defs/0", "$defs": {**names, str(depth): {"type": "object"}}}


# --- what may be said


@pytest.mark.parametrize(
    ("expect", "words"),
    [
        ({"cheks": []}, "options.expect.cheks is unknown; there are: checks, components."),
        ({}, "it holds nothing"),
        ({"checks": [{"check": "smell"}]}, "options.expect.checks.0: .*'smell'.*'json', 'number'"),
        ({"checks": [{"check": "json", "schemas": {}}]}, r"checks\.0\.schemas is unknown; there are: weight, check, schema\."),
        ({"checks": [{"check": "length", "least": 5, "most": 2}]}, "most = 2 is under least = 5"),
        ({"checks": [{"check": "json"}] * 33}, "at most 32 items"),
        ({"components": [{"description": "x", "weight": 0}]}, "components.0.weight: Input should be greater than 0"),
        ({"components": [{"asks": "x"}]}, "options.expect.components.0"),
        ({"components": [{"description": "x", "check": {"check": "date", "weight": 2}}]}, "the component has the weight"),
        ({"checks": [{"check": "matches", "pattern": r"(a+)\1"}]}, "no back references"),
        ({"checks": [{"check": "date", "formats": ["%d %d"]}]}, "a part of a date twice"),
        ({"checks": [{"check": "json", "schema": {"type": "objekt"}}]}, "it is no JSON schema"),
        ({"checks": [{"check": "json", "schema": {"$ref": "http://far.example/schema"}}]}, "only references like"),
        ({"checks": [{"check": "json", "schema": {"$ref": "#/$defs/x"}}]}, "which is not in it"),
        ({"checks": [{"check": "json", "schema": {"properties": {"a": {"pattern": "(?=b)"}}}}]}, "no look-around"),
        ({"checks": [{"check": "json", "schema": {"patternProperties": {"a": {}}}}]}, "'patternProperties', which no task"),
        ({"checks": [{"check": "json", "schema": tree(40)}]}, "more than 1000 schemas"),
        ({"checks": [{"check": "json", "schema": {"$ref": "#/$defs/a", "$defs": {
            "a": {"properties": {"next": {"$ref": "#/$defs/a"}}}}}}]}, "refers to itself"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_in_a_sentence(expect: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        parse_options({"expect": expect})


def test_a_schema_may_name_its_parts_and_a_property_may_be_called_pattern() -> None:
    schema = {
        "type": "object",
        "$id": "https://example.org/words",
        "properties": {"pattern": {"$ref": "#/$defs/word"}, "$id": {"type": "integer"}},
        "$defs": {"word": {"type": "string", "pattern": "^(x|x)+$"}},
    }
    held = expecting('{"pattern": "xx"}', '{"pattern": 1}', '{"pattern": "y"}',
                     checks=[{"check": "json", "schema": schema}])  # fmt: skip
    sifted = sift(held)
    assert [one.model for one in sifted.passing] == [held.answers[0].model]
    assert "'y' does not match '^(x|x)+$'" in sifted.faults[held.answers[2].id][0].why


def test_a_regular_expression_takes_time_in_proportion_to_the_answer() -> None:
    # given a pattern and an answer that a backtracking engine would not finish within the age of the universe
    # then this test ends at all
    held = expecting("a" * 50_000 + "!", "aa", checks=[{"check": "matches", "pattern": "^(a|a)*$"}])
    assert [one.text for one in sift(held).passing] == ["aa"]


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        ({"check": "length", "of": "sentences", "most": 1}, "." * 200_000 + "a"),
        ({"check": "mentions", "texts": [[f"w{i}-{j}" for j in range(20)] for i in range(80)], "never": True},
         "lorem " * 33_000),
        ({"check": "json", "schema": {"uniqueItems": True}}, json.dumps([{"a": n} for n in range(7_500)])),
        ({"check": "json", "schema": {"items": {"enum": [f"name {n}" for n in range(1_000)]}}},
         json.dumps(["name 999"] * 8_000)),
    ],
)  # fmt: skip
def test_no_check_takes_longer_than_its_words_and_the_answers(check: dict[str, Any], answer: str) -> None:
    # given what took minutes to hours while each part of one was set against each part of the other
    # then this test ends at all
    sift(expecting(answer, "short", checks=[check]))


def test_an_answer_that_is_too_large_for_its_schema_fails_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.judges.schemas.MOST_STEPS", 1_000)
    schema = {"items": {"allOf": [{"type": "integer"}] * 90}}
    held = expecting(json.dumps([1] * 100), "[1]", checks=[{"check": "json", "schema": schema}])
    sifted = sift(held)
    assert [one.text for one in sifted.passing] == ["[1]"]
    assert "more than 1000 steps" in sifted.faults[held.answers[0].id][0].why


def test_items_are_unique_where_json_tells_them_apart() -> None:
    schema = {"type": "array", "uniqueItems": True}
    texts = ['[1, "1", true, [1], {"a": 1}]', "[1, 1.0]", '[{"a": 1, "b": [2]}, {"b": [2.0], "a": 1}]']
    held = expecting(*texts, checks=[{"check": "json", "schema": schema}])
    assert [one.text for one in sift(held).passing] == texts[:1]


def test_numbers_out_of_reach_fail_an_answer_and_no_judge() -> None:
    # given an answer at which the arithmetic of a schema overflows, and a judge that marks by that check
    check = {"check": "json", "schema": {"multipleOf": 0.01}, "weight": 1}
    held = expecting("1" + "0" * 400, "2", checks=[check])
    assert order(decided(held, "checks")) == [1, 0]


def test_the_end_of_the_messages_time_is_no_fault_of_an_answer() -> None:
    # given a check in the middle of which the soft limit strikes
    class Struck(IsNumber):
        def met(self, text: str) -> float:  # noqa: ARG002 - the check's own
            raise SoftTimeLimitExceeded

    held = replace(expecting("1", "2"), expect=Expect.model_construct(checks=(Struck(check="number"),), components=()))
    with pytest.raises(SoftTimeLimitExceeded):
        sift(held)


def test_the_schema_of_the_options_is_plain_json_for_whoever_publishes_it() -> None:
    assert "IsNumber" in json.dumps(TaskOptions.model_json_schema(), allow_nan=False)


# --- checks before every judge


@pytest.mark.parametrize(
    ("check", "good", "bad", "why"),
    [
        ({"check": "json"}, "[]", "[", "it is no JSON: "),
        ({"check": "json", "schema": {"type": "object"}}, "{}", "[]", r"of another schema: \$: \[\] is not of type"),
        ({"check": "number", "most": 9}, "7", "11", "not a number of at most 9 and nothing else"),
        ({"check": "date"}, "2026-02-28", "tomorrow", "not a date written as iso"),
        ({"check": "language", "language": "de"}, "Das ist nicht der Hund von dem Mann.",
         "This is not the dog of the man.", "written in en, not in de"),
        ({"check": "length", "most": 2}, "a b", "a b c", "it has 3 words, not 0 to 2"),
        ({"check": "mentions", "texts": ["Rhine", ["Bonn", "Basel"]]}, "Bonn on the Rhine", "the Rhine",
         "does not say Bonn or Basel"),
        ({"check": "mentions", "texts": ["sorry"], "never": True}, "yes", "Sorry!", "it says sorry"),
        ({"check": "matches", "pattern": "^[A-Z]{2}$"}, "AB", "ab", r"does not match \^\[A-Z\]\{2\}\$"),
        ({"check": "python"}, "x = 1", "x = = 1", "its code is no Python: "),
    ],
)  # fmt: skip
def test_an_answer_that_fails_a_check_is_told_why(check: dict[str, Any], good: str, bad: str, why: str) -> None:
    held = expecting(bad, good, checks=[check])
    decision = decided(held, "scripted", prefer="first")
    assert order(decision) == [1, 0]
    (kept,) = [one for one in decision.orders[0]["checks"] if one["failed"]]
    assert kept["failed"] == [check["check"]]
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(kept["why"][0])


def test_those_that_fail_stand_behind_by_how_much_they_lack() -> None:
    held = expecting(
        "not at all what was asked", "[1, 2]", "[]", "{}",
        checks=[{"check": "json"}, {"check": "length", "of": "characters", "most": 3}],
    )  # fmt: skip
    decision = decided(held, "scripted", prefer="first")
    assert order(decision) == [2, 3, 1, 0]
    assert len(decision.scores) == 2


def test_an_answer_that_brings_a_check_down_fails_it() -> None:
    held = expecting('{"a": ' * 49 + "1" + "}" * 49, "1", checks=[{"check": "json", "schema": {"type": "integer"}}])
    assert [one.text for one in sift(held).passing] == ["1"]


@pytest.mark.parametrize("confidence", [math.nan, 1.5, -0.1])
def test_a_judge_that_is_sure_by_no_number_has_failed_and_harms_no_other_verdict(confidence: float) -> None:
    # given what no verdict can store, together with which none of a wave could be
    asked = question("a", "b")
    decision = Decision(ranking=tuple(one.id for one in asked.answers), scores={}, reason="", method="m",
                        confidence=confidence)  # fmt: skip
    with pytest.raises(ValueError, match="confidence is not a number"):
        check_decision(decision, [one.id for one in asked.answers])


# --- the same words as the registry


def test_a_tasks_checks_stand_over_the_registrys_of_their_kind() -> None:
    registry = Expect.model_validate(
        {"checks": [{"check": "length", "most": 5}, {"check": "length", "of": "characters", "most": 40},
                    {"check": "json"}]}
    ).checks  # fmt: skip
    own = Expect.model_validate({"checks": [{"check": "length", "most": 50}]})
    kept = [(one.check, getattr(one, "of", None), getattr(one, "most", None)) for one in merged(registry, own)]
    assert kept == [("length", "characters", 40), ("json", None, None), ("length", "words", 50)]
    assert merged(registry, None) == registry


def test_the_judge_by_rules_weighs_components_that_code_can_mark() -> None:
    river = {"description": "names the river", "weight": 3, "check": {"check": "mentions", "texts": ["Rhine"]}}
    short = {"description": "is short", "check": {"check": "length", "most": 2}}
    held = expecting("a long story", "the long river Rhine", components=[river, short])
    decision = decided(held, "checks")
    assert order(decision) == [1, 0]
    assert decision.scores[decision.ranking[0]] == pytest.approx((3 + 0.5) / 4)


def test_a_rubric_marks_by_code_what_it_can_and_asks_about_the_rest() -> None:
    # given three components, of which code marks two
    components = [
        {"description": "be red", "weight": 2},
        {"description": "be short", "weight": 1, "check": {"check": "length", "most": 2}},
    ]
    checks = [{"check": "mentions", "texts": ["rose"], "weight": 1}]
    marker = Marker({("be red", "grass"): 5})
    decision = decided(
        expecting("a rose", "green grass", components=components, checks=checks), "llm_rubric", marker,
        components=[{"description": "be of the registry"}],
    )  # fmt: skip
    assert len(marker.prompts) == 2
    assert not any("be of the registry" in prompt for prompt in marker.prompts)
    assert order(decision) == [1, 0]
    assert decision.scores[decision.ranking[0]] == pytest.approx((2 * 1 + 1 + 0) / 4, abs=0.01)
    marks = {one["component"]: (one["mark"], one["logprobs"]) for one in decision.orders[1]["read"]}
    assert marks["be short"] == (1.0, None)


def test_code_marks_the_whole_answer_where_the_model_reads_a_part() -> None:
    component = {"description": "be long", "check": {"check": "length", "of": "characters", "least": 3000}}
    held = expecting("x" * 3000, "y" * 1500, components=[component])
    decision = decided(held, "llm_rubric", Marker({}), max_answer_characters=100)
    assert sorted(decision.scores.values()) == [0.5, 1.0]


def test_a_rubric_with_nothing_to_mark_says_where_to_name_it() -> None:
    with pytest.raises(InvalidRequest, match=r"options\.expect\.components"):
        decided(question("a", "b"), "llm_rubric", Marker({}))
    entry = JudgeEntry(name="j", method="llm_rubric", model="m")
    assert lacks_components(entry, None)
    assert lacks_components(entry, Expect.model_validate({"checks": [{"check": "json"}]}))
    assert not lacks_components(entry, Expect.model_validate({"components": [{"description": "x"}]}))
