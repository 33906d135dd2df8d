from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from db.errors import InvalidRequest
from db.registry import ModelEntry
from db.track import Judged, Preferred
from scheduler.selectors import SELECTORS, Chosen, History, Situation, checked_selectors, choose, enough, learns
from scheduler.selectors.history import history_of
from scheduler.selectors.run_log import Entry, RunLog

HERE = Situation(capability="text-generation")


def model(name: str, priority: int = 100, **metadata: Any) -> ModelEntry:
    return ModelEntry(name=name, capability="text-generation", backend="scripted", priority=priority, metadata=metadata)


def names(models: list[ModelEntry]) -> list[str]:
    return [model.name for model in models]


def chosen(choices: list[Chosen]) -> dict[str, list[tuple[str, int]]]:
    return {one.model.name: [(str(by["selector"]), int(str(by["rank"]))) for by in one.proposed_by] for one in choices}


PAPER = [  # the top of each list is another one
    model("popular", 5, downloads=900, likes=10, trending=0.1),
    model("loved", 4, downloads=500, likes=80, trending=0.2),
    model("rising", 3, downloads=100, likes=20, trending=7.0),
    model("obscure", 1),
]


def test_published_figures_rank_and_leave_out_who_has_none() -> None:
    assert names(SELECTORS["downloads"](PAPER, HERE)) == ["popular", "loved", "rising"]
    assert names(SELECTORS["likes"](PAPER, HERE)) == ["loved", "rising", "popular"]
    assert names(SELECTORS["trending"](PAPER, HERE)) == ["rising", "loved", "popular"]


def test_distinct_selectors_propose_distinct_models() -> None:
    choices = choose(["downloads", "likes", "trending"], 3, PAPER, HERE)

    assert list(chosen(choices)) == ["popular", "loved", "rising"]
    assert chosen(choices)["loved"][0] == ("likes", 0)


def test_a_model_that_two_propose_is_chosen_once_and_the_turn_goes_on() -> None:
    # given: the most downloaded is the most liked too
    models = [model("both", downloads=9, likes=9), model("second", downloads=8, likes=1), model("third", likes=5)]

    choices = choose(["downloads", "likes"], 3, models, HERE)

    assert chosen(choices) == {
        "both": [("downloads", 0), ("likes", 0)],
        "second": [("downloads", 1)],
        "third": [("likes", 1)],
    }


def test_a_later_selector_is_recorded_where_it_comes_across_what_another_chose() -> None:
    models = [model("a", downloads=9, likes=1), model("b", downloads=8, likes=5), model("c", likes=3)]

    choices = choose(["downloads", "likes"], 3, models, HERE)

    # then: downloads goes on with its next, which likes had as its first
    assert chosen(choices)["b"] == [("likes", 0), ("downloads", 1)]


def test_priority_fills_up_when_the_named_ones_know_no_more() -> None:
    choices = choose(["downloads"], 4, PAPER, HERE)

    assert list(chosen(choices)) == ["popular", "loved", "rising", "obscure"]
    assert chosen(choices)["obscure"] == [("priority", 0)]


def test_no_more_than_k_and_no_more_than_there_are() -> None:
    assert len(choose(["downloads", "likes", "trending"], 2, PAPER, HERE)) == 2
    assert len(choose(["priority"], 9, PAPER, HERE)) == 4
    assert choose(["priority"], 3, [], HERE) == []


def test_a_name_that_is_given_twice_has_one_turn() -> None:
    assert chosen(choose(["likes", "likes"], 1, PAPER, HERE)) == {"loved": [("likes", 0)]}


def test_an_unknown_selector_is_named_with_those_there_are() -> None:
    with pytest.raises(InvalidRequest, match=r"'popularity' is unknown; there are: benchmark, downloads"):
        checked_selectors(["likes", "popularity"])
    with pytest.raises(InvalidRequest, match="'benchmark:' is unknown"):
        choose(["benchmark:"], 1, PAPER, HERE)


def test_known_selectors_pass_each_once() -> None:
    assert checked_selectors(["likes", "benchmark:glue/accuracy", "likes"]) == ("likes", "benchmark:glue/accuracy")


def test_a_named_benchmark_ranks_by_that_score() -> None:
    models = [model("a", scores={"mmlu": 60, "glue": 0.9}), model("b", scores={"mmlu": 70}), model("c")]

    assert names(choose_by("benchmark:mmlu", models)) == ["b", "a"]
    assert names(choose_by("benchmark:glue", models)) == ["a"]


def choose_by(selector: str, models: list[ModelEntry]) -> list[ModelEntry]:
    """Only what the selector itself proposes."""
    return [
        one.model for one in choose([selector], len(models), models, HERE) if one.proposed_by[0]["selector"] == selector
    ]


def test_without_a_name_the_score_that_most_models_have_counts() -> None:
    models = [model("a", scores={"mmlu": 60, "glue": 0.9}), model("b", scores={"mmlu": 70}), model("c")]

    assert names(SELECTORS["benchmark"](models, HERE)) == ["b", "a"]


@pytest.mark.parametrize("score", ["librispeech/test-wer", "Test CER (+LM)", "loss", "word error rate"])
def test_a_score_that_counts_errors_ranks_the_lowest_first(score: str) -> None:
    models = [model("bad", scores={score: 9.5}), model("good", scores={score: 2.5})]

    assert names(choose_by(f"benchmark:{score}", models)) == ["good", "bad"]


def test_a_figure_that_is_no_number_counts_as_none() -> None:
    assert names(SELECTORS["downloads"]([model("a", downloads="many"), model("b", downloads=True)], HERE)) == []
    assert names(SELECTORS["benchmark"]([model("a", scores="good"), model("b", scores={"x": None})], HERE)) == []


def test_what_a_language_model_named_is_taken_in_its_order() -> None:
    here = Situation(capability="text-generation", proposals={"llm": ["rising", "gone", "popular", "rising"]})

    assert names(SELECTORS["llm"](PAPER, here)) == ["rising", "popular"]
    assert names(SELECTORS["llm"](PAPER, HERE)) == []


# --- what learns from this system's own verdicts


def played(winner: str, loser: str, times: int, text: str = "") -> list[Judged]:
    return [Judged(request=text, ranking=((winner,), (loser,))) for _ in range(times)]


def situation(judged: list[Judged], preferred: list[Preferred] | None = None, **more: Any) -> Situation:
    return Situation(capability="text-generation", history=history_of(judged, preferred or []), **more)


MODELS = [model("good"), model("fair"), model("poor"), model("new")]
SEASON = played("good", "fair", 8) + played("fair", "good", 4) + played("fair", "poor", 9) + played("poor", "fair", 3)


def test_the_track_record_ranks_who_was_judged_and_leaves_out_who_was_not() -> None:
    assert names(SELECTORS["track_record"](MODELS, situation(SEASON))) == ["good", "fair", "poor"]


def test_one_lucky_game_does_not_beat_many() -> None:
    # given: `new` won its only game, against the weakest
    judged = SEASON + played("new", "poor", 1)

    assert names(SELECTORS["track_record"](MODELS, situation(judged)))[0] == "good"


def test_a_person_outweighs_several_verdicts() -> None:
    judged = played("fair", "good", 4)
    said = [Preferred(better="good", worse="fair", origin="human")]

    assert names(SELECTORS["track_record"](MODELS, situation(judged)))[0] == "fair"
    assert names(SELECTORS["track_record"](MODELS, situation(judged, said)))[0] == "good"


def test_a_model_that_fails_loses_to_those_that_answer() -> None:
    judged = [Judged(request="", ranking=(("good",),), failed=("fair",))] * 5

    assert names(SELECTORS["track_record"](MODELS, situation(judged))) == ["good", "fair"]


def test_a_verdict_about_one_model_alone_says_nothing() -> None:
    history = history_of([Judged(request="hi", ranking=(("good",),))])

    assert history.strengths.names == ()
    assert history.log.entries == ()


def test_exploring_repeats_with_its_seed_and_gives_the_new_its_chance() -> None:
    here = [situation(SEASON, seed=seed) for seed in range(300)]

    first = Counter(names(SELECTORS["explore"](MODELS, one))[0] for one in here)

    assert names(SELECTORS["explore"](MODELS, here[7])) == names(SELECTORS["explore"](MODELS, here[7]))
    assert 60 < first["new"] < 200  # nothing is known of it
    assert first["good"] > first["fair"] > first["poor"]


def test_the_more_is_known_the_less_is_tried() -> None:
    few = Counter(
        names(SELECTORS["explore"](MODELS[:2], situation(played("good", "fair", 2), seed=s)))[0] for s in range(200)
    )
    many = Counter(
        names(SELECTORS["explore"](MODELS[:2], situation(played("good", "fair", 60), seed=s)))[0] for s in range(200)
    )

    assert few["fair"] > 20
    assert many["fair"] == 0


CODE = "write a python function that sorts a list of numbers"
POEM = "compose a short poem about the autumn sea"


def two_trades() -> list[Judged]:
    return played("good", "fair", 6, CODE) + played("fair", "good", 5, POEM)


def test_the_nearest_inputs_say_who_is_right_here() -> None:
    asked_code = situation(two_trades(), text="a python function that reverses a list")
    asked_poem = situation(two_trades(), text="a poem about autumn")

    assert names(SELECTORS["nearest"](MODELS, asked_code)) == ["good", "fair"]
    assert names(SELECTORS["nearest"](MODELS, asked_poem)) == ["fair", "good"]


def test_an_input_like_none_before_goes_by_the_mean() -> None:
    assert names(SELECTORS["nearest"](MODELS, situation(two_trades(), text="")))[0] == "good"
    assert names(SELECTORS["nearest"](MODELS, situation(two_trades(), text="zebra crossing")))[0] == "good"


def test_who_said_what_the_winner_said_is_as_good() -> None:
    history = history_of([Judged(request="x", ranking=(("fair", "good"), ("poor",)), failed=("new",))])

    assert history.log.entries[0].scores == {"good": 1.0, "fair": 1.0, "poor": pytest.approx(1 / 3), "new": 0.0}


def test_only_selectors_that_learn_need_a_history() -> None:
    assert learns(["downloads", "explore"])
    assert not learns(["downloads", "benchmark:mmlu", "llm"])


# --- how many are needed


def choices_of(*wanted: str) -> list[Chosen]:
    return [Chosen(model=model(name), proposed_by=[]) for name in wanted]


def log_of(*outcomes: dict[str, float], text: str = "anything") -> Situation:
    log = RunLog([Entry(text=text, scores=scores) for scores in outcomes])
    return Situation(capability="text-generation", text=text, history=History(log=log))


def test_models_that_are_right_together_do_not_count_twice() -> None:
    # given: a and b right on the same half, c on the other
    together = [{"a": 1.0, "b": 1.0, "c": 0.0}, {"a": 0.0, "b": 0.0, "c": 1.0}] * 20

    assert enough(choices_of("a", "b"), log_of(*together), 0.95) == 1
    assert enough(choices_of("a", "b", "c"), log_of(*together), 0.95) == 3
    assert enough(choices_of("a", "c", "b"), log_of(*together), 0.95) == 2


def test_the_target_says_how_much_may_be_missed() -> None:
    mostly = [{"a": 1.0, "b": 0.0}] * 18 + [{"a": 0.0, "b": 1.0}] * 2

    assert enough(choices_of("a", "b"), log_of(*mostly), 0.85) == 1
    assert enough(choices_of("a", "b"), log_of(*mostly), 0.95) == 2


def test_near_inputs_count_more_than_others() -> None:
    easy = [Entry(text="add two small numbers", scores={"a": 1.0, "b": 1.0})] * 30
    hard = [Entry(text="prove the theorem of Fermat", scores={"a": 0.0, "b": 1.0})] * 30
    history = History(log=RunLog([*easy, *hard]))

    def needed(text: str) -> int:
        return enough(choices_of("a", "b"), Situation(capability="text-generation", text=text, history=history), 0.85)

    assert needed("Add two small numbers.") == 1
    assert needed("Prove the theorem of Fermat!") == 2


def test_where_the_log_is_short_the_track_record_says_it() -> None:
    clear = situation(played("a", "b", 15))
    open_race = situation(played("a", "b", 5) + played("b", "a", 5))

    assert enough(choices_of("a", "b"), clear, 0.9) == 1
    assert enough(choices_of("a", "b"), open_race, 0.9) == 2


def test_where_nothing_is_known_all_are_needed() -> None:
    assert enough(choices_of("a", "b", "c"), HERE, 0.5) == 3
    assert enough(choices_of("good", "new"), situation(SEASON), 0.5) == 2
    assert enough([], HERE, 0.9) == 0


def test_an_entry_that_a_model_did_not_try_counts_by_its_mean() -> None:
    # given: b was never tried where a was; it is right half of the time
    apart = [{"a": 1.0}] * 10 + [{"a": 0.0}] * 10 + [{"b": 1.0}] * 10 + [{"b": 0.0}] * 10

    covered = log_of(*apart).history.log.coverage(["a", "b"], "")

    assert covered == [pytest.approx(0.5, abs=0.02), pytest.approx(0.75, abs=0.02)]
