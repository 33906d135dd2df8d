"""Arms of `bakeoff evaluate pipeline`: whose answers are taken, what that costs, what the figures are."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

from scheduler.evaluation.pipeline.arms import (
    ARMS,
    BEST_SINGLE,
    DOWNLOADS,
    JUDGED,
    ORACLE,
    RANDOM,
    ItemRun,
    Said,
    best_by,
    outcome_of,
    picks_of,
    run_of,
    unanswered,
)
from scheduler.evaluation.pipeline.items import ANSWER, HEAR, READ, STEPS, Item, draw_items
from scheduler.evaluation.pipeline.report import all_picks, arm_figures, halves, planner_figures, step_figures

MODELS = {READ: ["r1", "r2"], HEAR: ["h1", "h2"], ANSWER: ["a1", "a2"]}
DICE = Random(1)  # noqa: S311 - not cryptography
FIXED = {READ: "r1", HEAR: "h1", ANSWER: "a1"}


def item_of(number: int = 0) -> Item:
    return draw_items(number + 1, 1, Path("inputs"))[number]


def subtask(
    name: str, outputs: dict[str, str | None], winner: str | None, needs: tuple[str, ...] = ()
) -> dict[str, Any]:
    candidates = [
        {"model": model, "status": "error" if text is None else "done", "output": text, "seconds": 1.0}
        for model, text in outputs.items()
    ]
    verdict = None if winner is None else {"winner": winner, "seconds": 0.5}
    return {"name": name, "capability": STEPS[name], "candidates": candidates, "verdict": verdict, "needs": list(needs)}


def story_of(item: Item, *, right: dict[str, str], winners: dict[str, str]) -> dict[str, Any]:
    """A task in which one model of each step is right, and the verdicts went to `winners`."""
    truth = {READ: item.shown, HEAR: item.said, ANSWER: item.answer}
    return {
        "subtasks": [
            subtask(
                step,
                {model: f"{truth[step] if model == right[step] else 7}" for model in MODELS[step]},
                winners[step],
                (READ, HEAR) if step == ANSWER else (),
            )
            for step in STEPS
        ]
    }


@pytest.fixture
def run() -> ItemRun:
    """The second models are right; the judge found that at the first two steps only."""
    item = item_of()
    right = {READ: "r2", HEAR: "h2", ANSWER: "a2"}
    return run_of(item, story_of(item, right=right, winners={READ: "r2", HEAR: "h2", ANSWER: "a1"}))


def test_the_judged_arm_ends_as_the_verdicts_went_and_costs_all_calls_and_the_judge(run: ItemRun) -> None:
    outcome = outcome_of(JUDGED, run, picks_of(JUDGED, run, FIXED, DICE))

    assert (outcome.right, outcome.calls, outcome.seconds) == (False, 6, 6 + 3 * 0.5)


def test_the_oracle_is_right_where_any_candidate_is(run: ItemRun) -> None:
    picks = picks_of(ORACLE, run, FIXED, DICE)

    assert (picks.read, picks.hear) == ("r2", "h2")
    assert unanswered(run, picks) == []  # the judge's picks were the same, and everybody answered those
    assert outcome_of(ORACLE, run, picks).right


def test_of_several_right_ones_the_oracle_keeps_the_winner() -> None:
    # given two readings of the right number, of which the judge took the second
    item = item_of()
    read = subtask(READ, {"r1": f"ticket {item.shown}", "r2": f"Ticket {item.shown}"}, "r2")
    heard = subtask(HEAR, {"h1": "nothing", "h2": f"{item.said}"}, "h1")
    run = run_of(item, {"subtasks": [read, heard]})
    # when
    picks = picks_of(ORACLE, run, FIXED, DICE)
    # then
    assert (picks.read, picks.hear) == ("r2", "h2")


def test_an_arm_of_fixed_models_asks_for_the_answer_to_what_its_own_models_said(run: ItemRun) -> None:
    # given
    picks = picks_of(DOWNLOADS, run, FIXED, DICE)
    ((read, heard, model),) = unanswered(run, picks)
    assert (read, heard, model) == ("7", "7", "a1")
    # when its answer is in
    run.answers[read, heard, model] = Said(text=str(run.item.answer), seconds=2.0)
    outcome = outcome_of(DOWNLOADS, run, picks)
    # then
    assert (outcome.right, outcome.calls, outcome.seconds) == (True, 3, 4.0)


def test_a_random_arm_draws_among_the_candidates(run: ItemRun) -> None:
    drawn = {picks_of(RANDOM, run, FIXED, DICE) for _ in range(60)}

    assert len(drawn) == 8


def test_a_step_that_failed_leaves_nothing_to_answer_from() -> None:
    # given a recording that nobody could hear
    item = item_of()
    story = {"subtasks": [subtask(READ, {"r1": "291"}, "r1"), subtask(HEAR, {"h1": None}, None)]}
    run = run_of(item, story)
    # then no arm is right, nothing more is asked, and what was asked is paid for
    for arm in ARMS:
        picks = picks_of(arm, run, FIXED, DICE)
        assert unanswered(run, picks) == []
        outcome = outcome_of(arm, run, picks)
        assert (outcome.right, outcome.calls) == (False, 2)


def test_best_single_models_are_those_of_the_other_half() -> None:
    # given items of which one half is right by the first models, the other by the second
    first, second = ({READ: f"r{n}", HEAR: f"h{n}", ANSWER: f"a{n}"} for n in (1, 2))
    parts = halves(8, seed=5)
    runs = [
        run_of(item_of(n), story_of(item_of(n), right=first if n in parts[0] else second, winners=first))
        for n in range(8)
    ]
    # when
    picks = all_picks([BEST_SINGLE], runs, MODELS, FIXED, seed=5)[BEST_SINGLE]
    # then
    assert sorted(parts[0] + parts[1]) == list(range(8))
    assert {picks[n].read for n in parts[0]} == {"r2"}
    assert {picks[n].read for n in parts[1]} == {"r1"}
    assert best_by([runs[n] for n in parts[0]], MODELS) == first


def test_figures_compare_every_arm_with_the_best_single_models(run: ItemRun) -> None:
    # given
    outcomes = {arm: [outcome_of(arm, run, picks_of(arm, run, FIXED, DICE))] * 4 for arm in (BEST_SINGLE, ORACLE)}
    # when
    figures = arm_figures(outcomes, [run] * 4)
    # then
    assert (figures[ORACLE]["right"], figures[ORACLE]["difference"], figures[ORACLE]["interval"]) == (1, 1, [1, 1])
    assert "difference" not in figures[BEST_SINGLE]
    assert figures[ORACLE]["by_operation"]["add"] == 1


def test_steps_say_how_often_each_model_the_winner_and_anybody_is_right(run: ItemRun) -> None:
    found = step_figures([run], MODELS)

    assert found[READ] == {"models": {"r1": 0, "r2": 1}, JUDGED: 1, "any": 1}
    assert (found[ANSWER][JUDGED], found[ANSWER]["any"]) == (0, 1)


def test_a_planners_plan_is_right_by_its_shape_and_its_answer_is_that_of_the_last_steps() -> None:
    # given a plan of the right shape under other names, and one that reads nothing
    item = item_of()
    right = {READ: "r2", HEAR: "h2", ANSWER: "a2"}
    good = story_of(item, right=right, winners=right)
    for step in good["subtasks"]:
        step["name"] = f"s-{step['name']}"
        step["needs"] = [f"s-{name}" for name in step["needs"]]
    bad = {"subtasks": [subtask(ANSWER, {"a1": "7"}, "a1")]}
    run = run_of(item, story_of(item, right=right, winners=right))
    # when
    figures = planner_figures([run, run], [good, bad])
    # then
    assert (figures["right_plans"], figures["right"], figures["right_by_given_plans"]) == (0.5, 0.5, 1)
    assert figures["refused"] == 0
