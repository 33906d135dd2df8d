"""The steady half of a reward model: words and states, fitted without dice."""

from __future__ import annotations

import random

import pytest
import torch

from worker.reward.counted import FARTHEST, fit_counted
from worker.reward.pairs import scored_group
from worker.reward.text import rendered


def test_words_that_people_like_are_found_in_the_answer_and_not_in_the_instruction() -> None:
    # given groups in which an answer with “why” is better, and an instruction that is full of them
    dice = random.Random(1)  # noqa: S311
    groups = []
    for number in range(40):
        texts = [rendered("why why", f"{dice.choice(('why', 'what'))} {number} {place}?") for place in range(4)]
        groups.append(scored_group(str(number), texts, [0.9 if "\nwhy" in text else 0.2 for text in texts]))
    states = {text: torch.zeros(2, 3) for group in groups for text in group.texts}

    # when they are fitted
    found = fit_counted(groups, states)

    # then a new answer with it is ahead, and a question alone of words that were never seen is worth nothing
    texts = [rendered("why", "why so?"), rendered("why", "what so?"), rendered("", "zebra")]
    liked, other, unknown = found.scores(texts, torch.zeros(3, 2, 3)).tolist()
    assert liked > other
    assert unknown == 0.0


def test_states_count_where_words_say_nothing() -> None:
    # given texts whose words are all alike, and a state that says which is better
    dice = random.Random(2)  # noqa: S311
    states, groups = {}, []
    for number in range(30):
        texts = [f"{number}x{place}" for place in range(3)]
        good = [dice.random() < 0.5 for _ in texts]
        for text, one in zip(texts, good, strict=True):
            states[text] = torch.tensor([[1.0 if one else -1.0, dice.random()], [0.0, 0.0]])
        groups.append(scored_group(str(number), texts, [0.8 if one else 0.1 for one in good]))

    found = fit_counted(groups, states)

    high, low = found.scores(["new", "new"], torch.tensor([[[1.0, 0.5], [0, 0]], [[-1.0, 0.5], [0, 0]]])).tolist()
    assert high > low
    assert found.grams == {"?": 0}


def test_the_form_of_answers_is_learnt_and_that_of_questions_is_not() -> None:
    # given groups in which the longer answer is better, of words that no two share
    dice = random.Random(3)  # noqa: S311
    said = [" ".join(f"w{dice.random()}" for _ in range(length)) for length in range(2, 12) for _ in range(8)]
    dice.shuffle(said)
    both = [said[place : place + 2] for place in range(0, len(said), 2)]

    def gap(asked: str) -> float:
        groups = [
            scored_group(str(number), [rendered(asked, text) for text in own], [min(1.0, len(t) / 300) for t in own])
            for number, own in enumerate(both)
        ]
        found = fit_counted(groups, {text: torch.zeros(2, 3) for group in groups for text in group.texts})
        texts = [rendered(asked, "stone and cloud and paper and more light"), rendered(asked, "stone")]
        longer, shorter = found.scores(texts, torch.zeros(2, 2, 3)).tolist()
        return float(longer - shorter)

    # then a longer answer is ahead, and a longer question is not
    assert gap("Say something") > 0
    assert gap("") == 0.0


def test_a_feature_that_was_rare_in_training_decides_no_score_alone() -> None:
    # given one better answer in eighty that holds a sum, so that its feature hardly differs
    groups = [
        scored_group(str(n), [rendered("q", f"yes {n}"), rendered("q", f"no {n}")], [0.9, 0.2]) for n in range(40)
    ]
    groups.append(scored_group("sum", [rendered("q", "yes 1 + 1 = 2"), rendered("q", "no")], [0.9, 0.2]))
    states = {text: torch.zeros(2, 3) for group in groups for text in group.texts}
    found = fit_counted(groups, states)
    one, many = (rendered("q", "1 + 1 = 2 " * times) for times in (5, 5000))

    # then a thousand times as many sums are worth no more than a feature may count
    place = found.form.index("sums_right")
    most = FARTHEST * float(found.form_weights.abs().sum())
    assert torch.isfinite(found.form_scales[place])
    scores = found.scores([one, many], torch.zeros(2, 2, 3))
    assert all(abs(value) <= most + float(found.gram_weights.abs().sum()) for value in scores.tolist())


def test_the_same_groups_give_the_same_numbers() -> None:
    groups = [scored_group(str(n), [f"a {n}", f"b {n}"], [0.1, 0.9]) for n in range(9)]
    states = {text: torch.ones(2, 2) for group in groups for text in group.texts}

    one, other = fit_counted(groups, states), fit_counted(groups, states)

    assert one.gram_weights.tolist() == other.gram_weights.tolist()
    assert one.scores(["b 3"], torch.ones(1, 2, 2)).item() == pytest.approx(
        other.scores(["b 3"], torch.ones(1, 2, 2)).item(), abs=0
    )
