"""The bench of judges on little sets of the published forms: how they are split, what is asked, what is counted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from db.registry import JudgeEntry, Registry
from scheduler.evaluation.judges import command
from scheduler.evaluation.judges.bench import Bench
from scheduler.evaluation.judges.cases import splits
from scheduler.evaluation.judges.evaluation import judge_entry
from scheduler.evaluation.judges.metrics import by_group, group_interval, standard_error
from scheduler.evaluation.judges.pairs import judge_figures
from scheduler.evaluation.judges.raw import raw_choices
from scheduler.evaluation.judges.replies import Remembering, Replies
from scheduler.evaluation.judges.rows import ASSISTANT, read_set
from scheduler.evaluation.judges.selection import outcomes, pooled, selection_figures
from tests.unit.judge_sets import duels, sums, written
from worker.judges import Decision


class Liking:
    """A language model that finds answers likely which hold a word."""

    identity = "liking@1"

    def __init__(self, word: str) -> None:
        self.word = word

    def option_logprobs(self, prompts: Sequence[str], options: Sequence[str]) -> list[list[float]]:
        return [[0.0] * len(options) for _ in prompts]

    def continuation_logprobs(self, prompt: str, continuations: Sequence[str]) -> list[float]:  # noqa: ARG002
        return [-1.0 if self.word in text else -9.0 for text in continuations]


def bench(method: str, kind: Any = ASSISTANT, model: Remembering | None = None, **options: Any) -> Bench:
    entry = JudgeEntry(name=method, method=method, params=options.pop("params", {}))
    return Bench(entry=entry, model=model, kind=kind, **options)


# --- splits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["auto", "parts", "folds"])
def test_no_group_is_both_learned_from_and_reported(tmp_path: Path, how: Any) -> None:
    rows = [row | {"id": f"{row['id']} {copy}"} for row in duels(60) for copy in range(3)]
    read = read_set(written(tmp_path, rows))
    _, parts = splits(read, how)
    for part in parts:
        assert not {row.group for row in part.learn} & {row.group for row in part.report}
    reported = [row.id for part in parts for row in part.report]
    assert len(reported) == len(set(reported))
    if how != "parts":
        assert len(reported) == 180  # a small set: every row is predicted in its turn


def test_a_large_set_reports_what_it_kept(tmp_path: Path) -> None:
    how, parts = splits(read_set(written(tmp_path, duels(500))), "auto")
    assert (how, len(parts)) == ("fit and tune, report", 1)
    assert len(parts[0].report) == pytest.approx(150, abs=40)


def test_rows_to_fit_on_lose_what_is_reported(tmp_path: Path) -> None:
    read = read_set(written(tmp_path / "a", duels(40)))
    other = read_set(written(tmp_path / "b", duels(60)))
    _, (part,) = splits(read, "auto", other)
    assert (len(part.report), len(part.learn)) == (40, 20)


# --- replies ----------------------------------------------------------------------------------------------------------


def test_a_second_run_asks_no_model(tmp_path: Path) -> None:
    def never() -> Any:
        raise AssertionError("the model was loaded")

    replies = Replies(tmp_path)
    first = Remembering("m@1", lambda: Liking("x"), replies)
    said = first.continuation_logprobs("p", ["x", "y"]), first.option_logprobs(["p"], ["A", "B"])
    assert (first.calls, first.asked) == (3, 3)
    replies.close()
    second = Remembering("m@1", never, Replies(tmp_path))
    assert (second.continuation_logprobs("p", ["x", "y"]), second.option_logprobs(["p"], ["A", "B"])) == said
    assert (second.calls, second.asked) == (3, 0)


@pytest.mark.parametrize(
    ("identity", "prompt", "texts"), [("m@2", "p", ["x"]), ("m@1", "q", ["x"]), ("m@1", "p", ["z"])]
)
def test_another_model_prompt_or_answer_is_asked(tmp_path: Path, identity: str, prompt: str, texts: list[str]) -> None:
    replies = Replies(tmp_path)
    Remembering("m@1", lambda: Liking("x"), replies).continuation_logprobs("p", ["x"])
    other = Remembering(identity, lambda: Liking("x"), replies)
    other.continuation_logprobs(prompt, texts)
    assert other.asked == 1


# --- selection --------------------------------------------------------------------------------------------------------


def test_a_jury_learns_whom_to_believe_when(tmp_path: Path) -> None:
    # given sums where two weak models that agree are right and the strong one is not
    read = read_set(written(tmp_path, sums()))
    _, parts = splits(read, "auto")
    one = bench("jury", read.kind)
    found = selection_figures(outcomes(one.run(parts), read.kind))
    # then all of the gap is recovered, and the figures hang together
    assert found["best_single"] == found["best_single_hindsight"] == pytest.approx(0.75)
    assert found["oracle"] == 1.0
    assert found["chosen"] > 0.95
    assert found["recovered_interval"][0] > 0.5
    assert found["support"] == 120
    assert found["random"] < found["best_single"] < found["chosen"] <= found["oracle"]
    assert found["vote"] == 1.0  # where two agree they are right, and where nobody does the first is


def test_a_judge_that_fails_leaves_the_selectors_first(tmp_path: Path) -> None:
    read = read_set(written(tmp_path, sums(40)))
    _, parts = splits(read, "auto")
    one = bench("scripted", read.kind, params={"fail_on": "I add"})
    found = selection_figures(outcomes(one.run(parts), read.kind))
    assert (found["failed"], found["chosen"]) == (40, found["best_single"])
    assert "RuntimeError" in one.errors[0]


def test_sets_are_pooled_by_sums_of_gains_over_sums_of_gaps(tmp_path: Path) -> None:
    read = read_set(written(tmp_path, sums()))
    _, parts = splits(read, "auto")
    perfect = outcomes(bench("jury", read.kind).run(parts), read.kind)
    useless = outcomes(bench("scripted", read.kind, params={"prefer": "first"}).run(parts), read.kind)
    found = pooled({"a": perfect, "b": useless})
    assert found["recovered"] == pytest.approx(sum(o.arms["chosen"] - o.arms["best_single"] for o in perfect) / 60)
    assert found["support"] == 240
    assert pooled({"b": useless})["recovered"] == 0.0


def test_a_limit_and_a_clock_cut_what_is_reported(tmp_path: Path) -> None:
    read = read_set(written(tmp_path, sums()))
    _, parts = splits(read, "auto")
    assert len(bench("consensus", read.kind, limit=7).run(parts)) == 7
    assert len(bench("consensus", read.kind, seconds=0.0).run(parts)) <= 1


# --- pairs ------------------------------------------------------------------------------------------------------------


def test_a_jury_learns_that_the_shorter_one_is_better(tmp_path: Path) -> None:
    read = read_set(written(tmp_path, duels()))
    _, parts = splits(read, "auto")
    one = bench("jury")
    found = judge_figures(one.run(parts))
    assert found["accuracy"] > 0.95
    assert found["accuracy_shorter_better"] == found["accuracy"]
    assert (found["longest"], found["order_consistency"], found["decisive"]) == (0.0, 1.0, 1.0)
    assert (found["support"], found["groups"]) == (120, 120)


def test_a_tie_counts_half_and_an_error_counts_as_wrong(tmp_path: Path) -> None:
    read = read_set(written(tmp_path, [row | {"output_1": "same", "output_2": "same"} for row in duels(20)]))
    _, parts = splits(read, "folds")
    tied, failing = bench("consensus"), bench("scripted", params={"fail_on": "same"})
    found = judge_figures(tied.run(parts))
    assert (found["accuracy"], found["decisive"]) == (0.5, 0.0)
    failed = judge_figures(failing.run(parts))
    assert (failed["accuracy"], failed["unparseable"]) == (0.0, 1.0)


def test_a_judge_that_goes_by_rank_is_not_consistent(tmp_path: Path) -> None:
    read = read_set(written(tmp_path, duels(30)))
    _, parts = splits(read, "folds")
    one = bench("scripted", params={"prefer": "first"})
    assert judge_figures(one.run(parts))["order_consistency"] == 0.0


class Partial:
    """A language model that likes a full stop, and likes the first place half as much."""

    identity = "partial@1"

    def option_logprobs(self, prompts: Sequence[str], options: Sequence[str]) -> list[list[float]]:  # noqa: ARG002
        rows = []
        for prompt in prompts:
            first = prompt.index("<answer") < prompt.rindex(".\n</answer>") < prompt.rindex("<answer")
            rows.append([1.5 if first else 0.5, 0.0 if first else 1.0])
        return rows

    def continuation_logprobs(self, prompt: str, continuations: Sequence[str]) -> list[float]:
        raise NotImplementedError


class First(Partial):
    """A language model that likes the first place."""

    identity = "first@1"

    def option_logprobs(self, prompts: Sequence[str], options: Sequence[str]) -> list[list[float]]:
        return [[1.0, *(0.0 for _ in options[1:])] for _ in prompts]


def test_both_orders_are_set_against_one(tmp_path: Path) -> None:
    read = read_set(written(tmp_path, duels(40)))
    _, parts = splits(read, "folds")
    model = Remembering("partial@1", Partial, Replies(tmp_path))
    one = bench("llm_pairwise", model=model)
    found = judge_figures(one.run(parts))
    assert found["accuracy_single_order"] == found["accuracy"] == 1.0
    assert (found["both_orders_gain"], found["order_consistency"], found["calls"]) == (0.0, 1.0, 80)


def test_a_text_that_stood_alone_says_nothing_of_both_orders(tmp_path: Path) -> None:
    # given a language model that always names the first, and pairs of which some have an empty answer
    rows = [row | ({"output_1": ""} if number % 3 == 0 else {}) for number, row in enumerate(duels(30))]
    read = read_set(written(tmp_path, rows))
    _, parts = splits(read, "folds")
    one = bench("llm_pairwise", model=Remembering("first@1", First, Replies(tmp_path)))
    assert judge_figures(one.run(parts))["order_consistency"] == 0.0


@pytest.mark.parametrize(
    ("orders", "named"),
    [
        ([{"read": [{"log_odds": [1.0, -1.0]}, {}]}], [0, 1]),
        ([{"read": [{"log_odds": [1.0, 2.0]}, {}]}, {"hostile": "remove", "found": []}], [0, 0]),
        ([{"read": [{"letter": "A", "logprob": -1}, {"letter": "B", "logprob": -2}]}] * 2, [0, 1]),
        ([{"read": [{"letter": "A", "logprob": -1}, {"letter": "B", "logprob": -2}]}], []),
        ([{"read": [{"text": "x"}, {"text": "y"}]}], []),
        ([], []),
    ],
)
def test_raw_replies_are_read(orders: list[dict[str, Any]], named: list[int]) -> None:
    decision = Decision(ranking=(), scores={}, reason="", method="m", orders=orders)
    assert raw_choices(decision) == named


# --- figures ----------------------------------------------------------------------------------------------------------


def test_an_interval_draws_whole_groups() -> None:
    # given the same twenty rows as twenty groups, and as two
    values = [0.0, 1.0] * 10
    many = group_interval(by_group([str(n) for n in range(20)], values, [1.0] * 20))
    two = group_interval(by_group([str(n % 2) for n in range(20)], values, [1.0] * 20))
    assert many is not None
    assert two == (0.0, 1.0)
    assert 0 < many[0] < 0.5 < many[1] < 1
    assert standard_error([str(n % 2) for n in range(20)], values) > standard_error([str(n) for n in range(20)], values)


def test_an_interval_of_nothing_is_none() -> None:
    assert group_interval({}) is None
    assert group_interval({"a": (0.0, 0.0)}) is None


# --- the commands -----------------------------------------------------------------------------------------------------


def run(*arguments: str) -> Any:
    app = typer.Typer()
    app.command("judge")(command.judge_command)
    app.command("selection")(command.selection_command)
    return CliRunner().invoke(app, [*arguments])


def test_the_commands_print_json_with_their_keys(tmp_path: Path) -> None:
    pairs, multi = written(tmp_path, duels(), "pairs"), written(tmp_path, sums(), "multi")
    judged = json.loads(run("judge", str(pairs), "--judge", "jury", "--judge-model", "none", "--json").stdout)
    assert {"accuracy", "order_consistency", "accuracy_shorter_better", "unparseable", "calls", "seconds", "support",
            "decisive", "accuracy_decisive"} <= set(judged)  # fmt: skip
    chosen = json.loads(
        run(
            "selection", str(multi), "--judge", "consensus", "--exclude-model", "weak-2", "--candidates", "2", "--json"
        ).stdout
    )
    assert {"chosen", "random", "longest", "consensus", "best_single", "best_single_hindsight", "oracle", "recovered",
            "recovered_interval", "support"} <= set(chosen)  # fmt: skip
    both = json.loads(run("selection", str(multi), str(multi), "--judge", "consensus", "--json").stdout)
    assert set(both) == {"judge", "sets", "pooled"}
    assert {"recovered", "recovered_interval", "blind"} <= set(both["pooled"])
    assert "names hidden" in run("selection", str(multi), "--judge", "consensus").stdout


def test_every_figure_is_there_with_names_and_without(tmp_path: Path) -> None:
    # given sums, and a jury that may know who solved them
    multi, pairs = written(tmp_path, sums(), "multi"), written(tmp_path, duels(), "pairs")
    found = json.loads(run("selection", str(multi), "--judge", "jury", "--judge-model", "none", "--json").stdout)
    assert set(found["blind"]) | {"judge", "blind"} == set(found)
    assert (found["names"], found["blind"]["names"]) == ("known", "hidden")
    assert found["blind"]["oracle"] == found["oracle"]
    assert found["blind"]["fitted"] != found["fitted"]  # from other features
    # and pairs that tell no names are not asked twice
    told = json.loads(run("judge", str(pairs), "--judge", "consensus", "--json").stdout)
    assert told["blind"]["accuracy"] == told["accuracy"]
    assert told["blind"]["note"] == "the set tells no names"
    only = json.loads(run("selection", str(multi), "--judge", "consensus", "--names", "hidden", "--json").stdout)
    assert only["names"] == "hidden"
    assert "blind" not in only


def test_seconds_say_how_much_was_covered(tmp_path: Path) -> None:
    read = read_set(written(tmp_path, sums()))
    _, parts = splits(read, "auto")
    one = bench("consensus", read.kind, seconds=0.0)
    found = selection_figures(outcomes(one.run(parts), read.kind))
    assert (one.due, found["support"]) == (120, 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("judge", "{multi}", "--judge", "consensus"), "evaluate selection"),
        (("selection", "{pairs}", "--judge", "consensus"), "evaluate judge"),
        (("judge", "{pairs}", "--judge", "nobody"), "nobody"),
        (("judge", "nothing", "--judge", "consensus"), "nothing"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    paths = {"multi": written(tmp_path, sums(20), "multi"), "pairs": written(tmp_path, duels(20), "pairs")}
    done = run(*(argument.format(**paths) for argument in arguments))
    assert said in str(done.exception)


def test_a_method_is_judged_with_the_model_of_the_registrys_first_judge() -> None:
    registry = Registry.model_validate(
        {
            "models": {
                name: {"name": name, "capability": "text-generation", "backend": "scripted", "memory_mb": size}
                for name, size in (("large", 900), ("small", 100))
            },
            "judges": {
                "own": {"name": "own", "method": "nll", "model": "large", "params": {"sharpness": 2.0}},
                "other": {"name": "other", "method": "nll", "model": "small"},
            },
            "capabilities": {
                "text-generation": {
                    "name": "text-generation",
                    "input": "text",
                    "instruction": "Answer.",
                    "judge": "own",
                }
            },
        }
    )
    assert judge_entry(registry, "jury", None).model == "large"
    assert judge_entry(registry, "own", None).params == {"sharpness": 2.0}
    assert judge_entry(registry, "consensus", None).model is None
    assert judge_entry(registry, "jury", "none").model is None
    assert judge_entry(registry, "jury", "small").model == "small"
