"""What the learning selectors are made of: strengths and nearness."""

from __future__ import annotations

import math
import time
from random import Random

import pytest

from scheduler.selectors.nearness import Nearness
from scheduler.selectors.run_log import Entry, RunLog
from scheduler.selectors.strength import (
    PRIOR_SD,
    Strengths,
    cholesky,
    fit_strengths,
    games_of,
    solve_lower,
    solve_upper,
)


def season(strengths: dict[str, float], games: int, seed: int = 1) -> dict[tuple[str, str], float]:
    random = Random(seed)  # noqa: S311
    wins: dict[tuple[str, str], float] = {}
    for _ in range(games):
        a, b = random.sample(sorted(strengths), 2)
        won = random.random() < 1 / (1 + math.exp(strengths[b] - strengths[a]))
        pair = (a, b) if won else (b, a)
        wins[pair] = wins.get(pair, 0.0) + 1
    return wins


def test_strengths_come_back_from_games_played_with_them() -> None:
    true = {"a": 1.5, "b": 0.5, "c": -0.5, "d": -1.5}

    fitted = fit_strengths(season(true, 4000))

    for name, strength in true.items():
        mean, sd = fitted.of(name)
        assert mean == pytest.approx(strength, abs=0.2)
        assert abs(fitted.of("a")[0] - fitted.of(name)[0] - (true["a"] - strength)) < 0.25
        assert 0 < sd < PRIOR_SD


def test_uncertainty_shrinks_with_games_and_is_the_prior_without() -> None:
    few, many = fit_strengths({("a", "b"): 2, ("b", "a"): 2}), fit_strengths({("a", "b"): 200, ("b", "a"): 200})

    assert few.of("a")[1] > many.of("a")[1]
    assert many.of("stranger") == (0.0, PRIOR_SD)


def test_a_model_that_never_lost_has_a_finite_strength() -> None:
    mean, sd = fit_strengths({("a", "b"): 1000.0}).of("a")

    assert 2 < mean < 10
    assert 0 < sd < PRIOR_SD


def test_no_games_no_strengths() -> None:
    assert fit_strengths({}) == Strengths()
    assert fit_strengths({("a", "a"): 3}).of("a") == (0.0, pytest.approx(PRIOR_SD))


def test_draws_follow_the_posterior_and_know_what_depends_on_what() -> None:
    # given: a and b are equal after many games between themselves; neither met anybody else
    fitted = fit_strengths({("a", "b"): 300, ("b", "a"): 300})
    random = Random(3)  # noqa: S311

    drawn = [fitted.draw(["a", "b"], random) for _ in range(2000)]

    spread = math.sqrt(sum(one["a"] ** 2 for one in drawn) / 2000)
    apart = math.sqrt(sum((one["a"] - one["b"]) ** 2 for one in drawn) / 2000)
    assert spread == pytest.approx(fitted.of("a")[1], rel=0.1)
    assert apart < 0.2 < spread  # their level is unknown, their difference is not


def test_a_ranking_of_n_weighs_as_much_as_n_minus_1_games() -> None:
    assert games_of([["a"], ["b"]]) == {("a", "b"): 1.0}
    assert sum(games_of([["a"], ["b"], ["c"], ["d"]]).values()) == pytest.approx(3)
    assert games_of([]) == {}


def test_equals_do_not_play_each_other() -> None:
    assert set(games_of([["a", "b"], ["c"]])) == {("a", "c"), ("b", "c")}


def test_the_triangle_solves_what_the_matrix_says() -> None:
    matrix = [[4.0, 1.0, 0.5], [1.0, 3.0, -0.2], [0.5, -0.2, 2.0]]
    root = cholesky(matrix)

    x = solve_upper(root, solve_lower(root, [1.0, 2.0, 3.0]))

    assert [sum(a * b for a, b in zip(row, x, strict=True)) for row in matrix] == pytest.approx([1.0, 2.0, 3.0])


def test_forty_models_are_fitted_in_a_moment() -> None:
    true = {f"m{number}": Random(number).gauss(0, 1) for number in range(40)}  # noqa: S311
    wins = season(true, 6000)
    began = time.process_time()

    fit_strengths(wins).of("m1")

    assert time.process_time() - began < 1.5


def test_the_text_with_the_same_rare_words_is_nearest() -> None:
    near = Nearness(["the cat sat on the mat", "stock prices fell sharply", "a dog and a cat played"])

    places = [place for place, _ in near("Cat on a mat?", 3)]

    assert places[0] == 0
    assert 1 not in places


def test_the_same_text_is_as_near_as_can_be() -> None:
    near = Nearness(["how do I boil an egg", "who wrote Hamlet"])

    assert near("How do I boil an EGG", 1) == [(0, pytest.approx(1.0))]


def test_words_are_those_of_any_script_and_numbers_are_one_word() -> None:
    near = Nearness(["Привет, мир", "pay 54 dollars", "nothing of that"])

    assert near("мир", 1)[0][0] == 0
    assert near("dollars 99", 1) == [(1, pytest.approx(near("dollars 54", 1)[0][1]))]


def test_nothing_is_near_to_nothing() -> None:
    assert Nearness([])("hello", 5) == []
    assert Nearness(["hello"])("", 5) == []
    assert Nearness(["", "hello"])("hello", 5)[0][0] == 1


def test_a_word_that_stands_everywhere_brings_nothing_near() -> None:
    near = Nearness([f"please describe subject{number}x" for number in range(200)])

    assert near("please", 5) == []


def test_five_thousand_entries_are_searched_in_milliseconds() -> None:
    random = Random(5)  # noqa: S311
    words = ["".join(random.choices("abcdefghij", k=6)) for _ in range(4000)]
    texts = [" ".join(words[int(random.paretovariate(0.6)) % 4000] for _ in range(40)) for _ in range(5000)]
    log = RunLog([Entry(text=text, scores={"a": 1.0, "b": 0.0}) for text in texts])
    log.prepare()
    began = time.process_time()

    for text in texts[:20]:
        log.expected(["a", "b"], text)

    assert (time.process_time() - began) / 20 < 0.03
