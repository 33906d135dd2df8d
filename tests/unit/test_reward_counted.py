"""The steady half of a reward model: words and states, fitted without dice."""

from __future__ import annotations

import random

import pytest
import torch

from worker.reward.counted import fit_counted
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

    # then a new answer with it is ahead, and what was never seen is worth nothing
    texts = [rendered("why", "why so?"), rendered("why", "what so?"), rendered("why", "zebra")]
    liked, other, unknown = found.scores(texts, torch.zeros(3, 2, 3)).tolist()
    assert liked > 0 > other
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


def test_the_same_groups_give_the_same_numbers() -> None:
    groups = [scored_group(str(n), [f"a {n}", f"b {n}"], [0.1, 0.9]) for n in range(9)]
    states = {text: torch.ones(2, 2) for group in groups for text in group.texts}

    one, other = fit_counted(groups, states), fit_counted(groups, states)

    assert one.gram_weights.tolist() == other.gram_weights.tolist()
    assert one.scores(["b 3"], torch.ones(1, 2, 2)).item() == pytest.approx(
        other.scores(["b 3"], torch.ones(1, 2, 2)).item(), abs=0
    )
