"""How well rewards agree with people: pairs, groups, chances."""

from __future__ import annotations

import math
import random

import pytest

from scheduler.rewarding.baselines import surface
from scheduler.rewarding.figures import accuracy, calibrated, figures, fitted_scale, hits, longest, spearman
from scheduler.rewarding.plots import Line, lines
from worker.reward.pairs import Group, scored_group


def some_groups(count: int = 30) -> list[Group]:
    dice = random.Random(5)  # noqa: S311
    groups = []
    for number in range(count):
        texts = [f"{'word ' * dice.randrange(1, 9)}{number} {place}?" for place in range(5)]
        groups.append(scored_group(str(number), texts, [dice.randrange(11) / 10 for _ in texts]))
    return groups


def human(groups: list[Group]) -> dict[str, list[float]]:
    return {group.id: list(group.scores or ()) for group in groups}


def test_rewards_like_the_human_scores_are_right_everywhere_and_keep_what_an_oracle_keeps() -> None:
    groups = some_groups()

    found = figures(groups, human(groups), {"surface": longest(groups)})

    assert found["pairwise_accuracy"] == 1.0
    assert found["interval"] == [1.0, 1.0]
    assert found["pairs"] == sum(len(group.pairs) for group in groups)
    assert found["spearman_between_images"] == pytest.approx(1.0)
    assert found["kept_human_score"] == found["kept_oracle"] > found["kept_random"]
    assert found["against"]["longest"] == found["against"]["surface"]
    assert found["against"]["random"]["difference"] == 0.5


def test_a_model_that_knows_nothing_is_a_coin_beside_a_coin() -> None:
    groups = some_groups()
    nothing = {group.id: [0.0] * len(group.texts) for group in groups}

    found = figures(groups, nothing, {})

    assert found["pairwise_accuracy"] == found["random"] == 0.5
    assert found["against"]["random"]["interval"] == [0.0, 0.0]


def test_an_image_whose_scores_all_tie_still_counts_among_those_kept() -> None:
    groups = [*some_groups(9), scored_group("tied", ["a", "b"], [0.95, 0.95])]
    rewards = human(groups)

    found = figures(groups, rewards, {})

    # three of ten are kept, and the tied one is the best of all
    means = sorted((sum(own) / len(own) for own in rewards.values()), reverse=True)
    assert found["kept_human_score"] == pytest.approx(sum(means[:3]) / 3)
    assert found["groups"] == 9


def test_pairs_without_scores_have_no_figures_between_groups() -> None:
    groups = [Group(id=str(n), texts=("long text", "text"), pairs=((0, 1),)) for n in range(5)]

    found = figures(groups, longest(groups), {})

    assert found["longest"] == 1.0
    assert found["kept_human_score"] is None


def test_the_rank_correlation_shares_ranks_of_equals() -> None:
    assert spearman([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx(1.0)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)
    assert spearman([1, 1, 2, 2], [1, 1, 2, 2]) == pytest.approx(1.0)
    assert spearman([1, 1, 1], [1, 2, 3]) == 0.0


def test_the_scale_makes_differences_log_odds() -> None:
    # given people who choose by chances of sigma(2 x difference)
    dice = random.Random(1)  # noqa: S311
    groups, rewards = [], {}
    for number in range(3000):
        ahead = dice.uniform(0, 1.5)
        better = (0, 1) if dice.random() < 1 / (1 + math.exp(-2 * ahead)) else (1, 0)
        groups.append(Group(id=str(number), texts=("a", "b"), pairs=(better,)))
        rewards[str(number)] = [ahead, 0.0]

    # when the scale is fitted
    scale = fitted_scale(groups, rewards)
    found = calibrated(groups, {id_: [scale * value for value in own] for id_, own in rewards.items()})

    # then it is about 2, and chances can be believed
    assert 1.7 < scale < 2.3
    assert all(abs(one["sure"] - one["right"]) < 0.06 for one in found["reliability"])


def test_surface_features_find_what_can_be_counted() -> None:
    dice = random.Random(3)  # noqa: S311
    groups = []
    for number in range(60):
        texts = [f"{dice.choice(('what', 'why'))} {' '.join(dice.sample('abcdefghij', 4))}?" for _ in range(4)]
        groups.append(scored_group(str(number), texts, [0.9 if text.startswith("why") else 0.2 for text in texts]))

    rewards = surface(groups)

    assert rewards is not None
    assert accuracy(hits(groups, rewards)) > 0.95
    assert surface(groups[:2]) is None


def test_a_plot_names_what_it_draws_and_escapes_it() -> None:
    drawn = lines("Loss <b>", "nats", [Line(label="a & b", values=(0.7, 0.6)), Line(label="all", values=(0.5,))])

    assert drawn.startswith("<svg")
    assert "Loss &lt;b&gt;" in drawn
    assert "a &amp; b" in drawn
    assert drawn.count("<polyline") == 2
