"""Selectors through the real queue: the parts that need no queue."""

from __future__ import annotations

import tomllib
from collections import Counter
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from db.errors import InvalidRequest, RegistryError
from db.registry import parse_registry
from db.verdicts import Attempted, ToJudge
from scheduler.evaluation.selectors.arms import CAPABILITY, Taught, teach
from scheduler.evaluation.selectors.command import print_queued
from scheduler.evaluation.selectors.queue import (
    ARMS,
    DRAWN,
    Asked,
    Options,
    agreement,
    ambiguous,
    by_lot,
    checked,
    counts,
    in_order,
    picks_of,
    published,
    questions,
    report_on,
    task_of,
)
from scheduler.evaluation.selectors.replaying import PROFILE, Answered, Candidate, registry_text
from scheduler.evaluation.selectors.rows import Row, Rows, split
from scheduler.selectors import NOTHING_KNOWN, Situation, choose
from worker.backends.replay import ReplayParams

MODELS = ("Fair", "Poor", "Strong One")


def rows(count: int = 20) -> Rows:
    """Strong One is always right, Fair every other time, Poor never."""
    made = [
        Row(id=f"r{n}", text=f"ask {n}", scores={"Fair": float(n % 2), "Poor": 0.0, "Strong One": 1.0})
        for n in range(count)
    ]
    return Rows(rows=tuple(made), models=MODELS)


def taught() -> Taught:
    return in_order(teach(split(rows().rows, 1)[0], MODELS), 1)


def answered(*models: str, winner: str | None = None, selector: str = "nearest", status: str = "done") -> Answered:
    candidates = [Candidate(model=name, proposed_by=(selector,), cached=False, status=status) for name in models]
    return Answered(subtask=uuid4(), candidates=tuple(candidates), winner=winner, fallback=False)


def to_judge(row: Row, models: dict[str, UUID]) -> ToJudge:
    candidates = [
        Attempted(id=one, model=name, output=name, rank=rank) for rank, (name, one) in enumerate(models.items())
    ]
    return ToJudge(
        id=uuid4(), task_id=uuid4(), capability=CAPABILITY, judge="judge", request=row.text, attempt=0, max_attempts=3,
        failed=0, candidates=candidates, inputs=[], results=None,
    )  # fmt: skip


# --- what is asked


def test_the_registry_replays_every_model_under_its_own_name_the_best_single_first(tmp_path: Path) -> None:
    file = tmp_path / 'a "quoted" set.jsonl'

    registry = parse_registry(tomllib.loads(registry_text(file, taught().entries, taught().names, "consensus")))

    assert registry.profiles[PROFILE].models == ["fair", "poor", "strong-one"]
    assert registry.judges["judge"].method == "consensus"
    best = min(registry.models.values(), key=lambda model: model.priority)
    assert ReplayParams.model_validate(best.params) == ReplayParams(file=file, model="Strong One")
    assert best.caches
    assert best.metadata == next(one.metadata for one in taught().entries if one.name == "strong-one")


def test_every_test_row_is_asked_under_every_arm_and_k() -> None:
    asked = list(questions(rows().rows[:2], (1, 3), 1))

    everything = {(arm, k, name) for arm in ARMS for k in (1, 3) for name in ("r0", "r1")}
    assert {(one.arm, one.k, one.row.id) for one in asked} == everything
    drawn = [one for one in asked if one.arm == DRAWN]
    assert all(one.selector == by_lot(one.row, 1) for one in drawn)
    assert all(one.selector == one.arm for one in asked if one.arm != DRAWN)


def test_models_drawn_for_a_row_are_the_same_every_time_and_every_model_is_drawn_alike() -> None:
    def first(name: str) -> str:
        selector = by_lot(Row(id=name, text="", scores={}), 1)
        return choose([selector], 1, taught().entries, Situation(capability=CAPABILITY))[0].model.name

    counted = Counter(first(f"r{number}") for number in range(300))

    assert first("r7") == first("r7")
    assert set(counted) == {"fair", "poor", "strong-one"}
    assert min(counted.values()) > 60


def test_a_row_whose_text_is_not_its_own_is_asked_by_its_id() -> None:
    twins = [Row(id=name, text=text, scores={}) for name, text in (("a", "same"), ("b", "same "), ("c", "own"))]

    plain, by_id = task_of(twins[2], ambiguous(twins)), task_of(twins[0], ambiguous(twins), candidates=2)

    assert (plain.request, plain.capability) == ("own", CAPABILITY)
    assert (by_id.request, by_id.capability) == ("same", None)  # what selectors read stays the row's text
    assert by_id.options["subtasks"][0]["inputs"] == [{"text": "a"}]
    assert by_id.options["candidates"] == 2


@pytest.mark.parametrize(("sizes", "expected"), [((), (1, 2, 3)), ((3, 1, 3), (1, 3))])
def test_every_k_is_asked_where_none_is_named(sizes: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert checked(rows(), Options(sizes=sizes)) == expected


def test_what_cannot_be_run_is_refused_before_anything_starts() -> None:
    many = Rows(rows=rows().rows, models=tuple(f"m{n}" for n in range(17)))

    with pytest.raises(InvalidRequest, match="--k 4 is not from 1 to 3"):
        checked(rows(), Options(sizes=(4,)))
    with pytest.raises(InvalidRequest, match="17 models, and a subtask asks 16"):
        checked(many, Options())
    with pytest.raises(RegistryError, match="model"):
        checked(rows(), Options(judge_method="llm_pairwise"))


# --- who won a fit row


def test_a_published_verdict_ranks_by_the_scores_of_the_set() -> None:
    ids = {"poor": uuid4(), "fair": uuid4(), "strong-one": uuid4()}
    row = Row(id="r", text="ask", scores={"Fair": 0.5, "Poor": 0.1, "Strong One": 0.9})

    verdict = published(to_judge(row, ids), row, taught().names, 1)

    assert verdict.ranking == [ids["strong-one"], ids["fair"], ids["poor"]]
    assert verdict.winner_id == ids["strong-one"]
    assert verdict.scores == {ids["poor"]: 0.1, ids["fair"]: 0.5, ids["strong-one"]: 0.9}
    assert not verdict.fallback  # the track record leaves fallbacks out


def test_equal_scores_are_ranked_by_lot_and_always_the_same_way() -> None:
    ids = {"fair": uuid4(), "strong-one": uuid4(), "poor": uuid4()}
    equal = [Row(id=f"r{n}", text="ask", scores={"Fair": 1.0, "Poor": 0.0, "Strong One": 1.0}) for n in range(200)]

    winners = [published(to_judge(row, ids), row, taught().names, 1).winner_id for row in equal]
    again = [published(to_judge(row, dict(reversed(ids.items()))), row, taught().names, 1).winner_id for row in equal]

    assert winners == again
    assert set(winners) == {ids["fair"], ids["strong-one"]}
    assert 70 < Counter(winners)[ids["fair"]] < 130


# --- what came out


def test_an_answer_counts_with_an_oracle_with_the_judge_and_as_chosen_offline() -> None:
    row = split(rows().rows, 1)[1][0]
    found = [(Asked(arm="nearest", k=2, row=row, selector="nearest"), answered("poor", "fair", winner="poor"))]

    picks = {pick.arm: pick.models for pick in picks_of(found, taught())}

    assert picks == {
        "nearest": ["Poor", "Fair"],
        "nearest judged": ["Poor"],
        "nearest offline": ["Strong One", "Fair"],
    }


def test_a_task_that_nobody_judged_has_no_pick_of_the_judge() -> None:
    row = split(rows().rows, 1)[1][0]
    found = [(Asked(arm=DRAWN, k=1, row=row, selector="benchmark:lot0"), answered("poor", selector="priority"))]

    assert [pick.arm for pick in picks_of(found, taught())] == [DRAWN]


def test_agreement_is_the_share_of_rows_chosen_alike() -> None:
    test = split(rows().rows, 1)[1]
    asked = [Asked(arm="track_record", k=2, row=row, selector="track_record") for row in test[:2]]
    chosen = [answered("fair", "strong-one"), answered("strong-one", "fair", selector="track_record")]

    shares = agreement(list(zip(asked, chosen, strict=True)), taught(), taught().history)["track_record"]["2"]
    blind = agreement(list(zip(asked, chosen, strict=True)), taught(), NOTHING_KNOWN)["track_record"]["2"]

    assert shares == {"own": 0.5, "offline": 1.0, "proposed": 0.5}  # the order counts for one's own history only
    assert blind["own"] == 0.5  # without a history `priority` fills up, and the registry's order is the fit rows'


def test_what_went_wrong_is_counted() -> None:
    lost = answered("poor", "fair", status="error")

    assert counts([answered("fair", winner="fair"), lost]) == {
        "tasks": 2, "candidates": 3, "cached": 0, "failed": 2, "unjudged": 1,
    }  # fmt: skip


def test_the_report_is_printed_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    test = split(rows().rows, 1)[1]
    found = [
        (
            Asked(arm=arm, k=1, row=row, selector=by_lot(row, 1) if arm == DRAWN else arm),
            answered("poor", winner="poor"),
        )
        for arm in ("nearest", DRAWN)
        for row in test
    ]

    print_queued(report_on(rows(), Options(), found, taught(), taught().history, {"start": 1.0, "test": 2.0}))

    said = capsys.readouterr().out
    assert "10 fit rows taught by scores, 10 test rows" in said
    lines = [line.split() for line in said.splitlines()]
    assert ["nearest", "oracle", "0.000", "0.000"] in lines
    assert ["nearest", "offline", "1.000", "0.000"] in lines
    assert ["nearest", "own", "0%"] in lines
    assert "20 tasks, 20 candidates (0 from stored outputs, 0 failed)" in said
