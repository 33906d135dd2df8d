"""The evaluation of planners: metrics by hand, halves, generated graphs, and the command on small files."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from db.errors import UsageError
from db.plan import Plan, Tool
from db.registry import PlannerEntry, read_registry
from db.settings import load_settings
from scheduler.evaluation.planner.command import planner_command, planner_entry
from scheduler.evaluation.planner.generated import TOOLS, generated
from scheduler.evaluation.planner.metrics import difference, edit_distance, in_order, marks_of, metrics_of
from scheduler.evaluation.planner.rows import (
    Row,
    argument_types,
    capability_of,
    halves,
    plan_of,
    read_rows,
    read_tools,
    sample,
)
from scheduler.evaluation.planner.running import run_planner
from worker.planners.checking import checked, read_plan
from worker.planners.similarity import encoder_of

TEXT_TOOLS = {name: Tool(name=name) for name in "abcd"}


def chain(*names: str) -> Plan:
    return plan_of(names, list(pairwise(names)), TEXT_TOOLS, ())


def row(*names: str, request: str = "do it", name: str = "1") -> Row:
    return Row(id=name, request=request, plan=chain(*names), type="chain")


# --- metrics ------------------------------------------------------------------------------------------------------


def test_metrics_are_those_of_taskbench() -> None:
    # given a plan with one of three tools wrong, and one that could not be read
    marks = [
        marks_of(row("a", "b", "c"), chain("a", "b", "d"), TEXT_TOOLS),
        marks_of(row("a", "b"), None, TEXT_TOOLS),
    ]
    # when
    found = metrics_of(marks)
    # then counts are pooled: 2 of 3 predicted and 5 right tools, 1 of 2 predicted and 3 right edges
    assert found["node_f1"] == pytest.approx(2 * 2 / (3 + 5))
    assert found["edge_f1"] == pytest.approx(2 * 1 / (2 + 3))
    assert found["node_f1_mean"] == pytest.approx((2 / 3 + 0) / 2)
    assert found["edit_distance"] == pytest.approx((1 / 3 + 1) / 2)
    assert (found["exact"], found["accuracy"], found["unparseable"], found["support"]) == (0, 0, 0.5, 2)
    assert found["type_f1"] is None


def test_a_right_plan_by_other_ids_is_exact() -> None:
    found = read_plan({"steps": [
        {"id": "second", "capability": "b", "inputs": [{"output": "first"}]},
        {"id": "first", "capability": "a", "inputs": [{"request": True}]},
    ]})  # fmt: skip

    mark = marks_of(row("a", "b"), found, TEXT_TOOLS)

    assert (mark.exact, mark.edit_distance) == (True, 0.0)


def test_right_tools_in_the_wrong_order_are_accurate_and_not_exact() -> None:
    mark = marks_of(row("a", "b"), chain("b", "a"), TEXT_TOOLS)

    assert (mark.accurate, mark.exact, mark.node_f1, mark.edge_f1) == (True, False, 1.0, 0.0)
    assert mark.edit_distance == pytest.approx(0.5)


def test_single_steps_have_no_edges_to_find() -> None:
    found = metrics_of([marks_of(row("a"), chain("a"), TEXT_TOOLS)])

    assert (found["edge_f1"], found["exact"]) == (None, 1.0)


@pytest.mark.parametrize(
    ("first", "second", "distance"),
    [
        ("", "", 0.0),
        ("ab", "ab", 0.0),
        ("ab", "", 1.0),
        ("abc", "axc", 1 / 3),
        ("ab", "ba", 0.5),
        ("ab", "abcd", 1 / 3),
    ],
)
def test_edit_distance_is_one_minus_the_levenshtein_ratio(first: str, second: str, distance: float) -> None:
    assert edit_distance(list(first), list(second)) == pytest.approx(distance)


def test_equal_graphs_are_listed_in_the_same_order() -> None:
    one = plan_of(["a", "c", "b"], [("a", "c"), ("a", "b")], TEXT_TOOLS, ())
    other = plan_of(["b", "a", "c"], [("a", "b"), ("a", "c")], TEXT_TOOLS, ())

    assert in_order(one) == in_order(other) == ["a", "b", "c"]


def test_a_clear_difference_has_an_interval_above_zero_and_none_has_one_around_it() -> None:
    good = [marks_of(row("a", "b"), chain("a", "b"), TEXT_TOOLS)] * 30
    bad = [marks_of(row("a", "b"), chain("a", "c"), TEXT_TOOLS)] * 15 + good[:15]

    found = difference(good, bad)["node_f1"]

    assert found["low"] > 0
    assert found["low"] <= found["difference"] <= found["high"]
    assert difference(good, good)["edge_f1"] == {"difference": 0.0, "low": 0.0, "high": 0.0}


def test_argument_types_are_kinds_of_what_is_read() -> None:
    tools = {tool.name: tool for tool in (Tool(name="hear", input="audio"), Tool(name="sort", output="labels"))}
    found = plan_of(["hear", "sort"], [("hear", "sort")], tools, ("audio",))

    assert argument_types(found, tools, ("audio",)) == {("hear", "audio"), ("sort", "text")}


# --- rows ---------------------------------------------------------------------------------------------------------


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in rows))
    return path


def test_published_names_become_capabilities_and_files_are_those_named(tmp_path: Path) -> None:
    # given tools and a row in TaskBench's form
    tools = read_tools(write(
        tmp_path / "tools.jsonl",
        {"id": "Automatic Speech Recognition", "desc": "Hears.", "input-type": ["audio"], "output-type": ["text"]},
        {"id": "Summarization", "desc": "Sums up.", "input-type": ["text"], "output-type": ["text"]},
    ))  # fmt: skip
    labelled = {
        "id": 7,
        "request": "Sum up example.wav",
        "nodes": ["Automatic Speech Recognition", "Summarization"],
        "links": [["Automatic Speech Recognition", "Summarization"]],
    }
    # when
    first, _ = read_rows(write(tmp_path / "rows.jsonl", labelled, {**labelled, "id": 8}), tools)
    # then
    assert [step.capability for step in first.plan.steps] == ["automatic-speech-recognition", "summarization"]
    assert first.kinds == ("audio",)
    assert first.types == {("automatic-speech-recognition", "audio"), ("summarization", "text")}
    checked(first.plan, tools=tools, kinds=first.kinds, has_request=True, max_steps=9, repair=False)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"request": "x", "id": 1}, "line 2 is no labelled request"),
        ({"request": "x", "id": 1, "nodes": ["z"], "links": []}, "no tool 'z'"),
    ],
)
def test_a_row_without_labels_is_named(tmp_path: Path, broken: dict[str, Any], said: str) -> None:
    good = {"request": "x", "id": 1, "nodes": ["a"], "links": []}

    with pytest.raises(UsageError, match=said):
        read_rows(write(tmp_path / "rows.jsonl", good, broken), list(TEXT_TOOLS.values()))


def test_a_chain_that_uses_a_tool_twice_stays_a_chain() -> None:
    found = plan_of(["a", "b", "a"], [("a", "b"), ("b", "a")], TEXT_TOOLS, ())

    assert found.edges == {("n1", "n2"), ("n2", "n3")}


def test_names_are_spelled_as_capabilities() -> None:
    assert capability_of("Tabular_Data / Reader") == "tabular-data-reader"


def test_near_duplicates_are_taken_out_of_what_is_looked_up() -> None:
    # given every request twice
    rows = [
        row("a", request=f"{word} and nothing else", name=f"{word}{n}")
        for word in ["walk", "swim", "jump", "sing"]
        for n in (1, 2)
    ]
    # when
    split = halves(rows, encoder_of(None, [item.request for item in rows]))
    # then no request stands on both sides, whichever way round
    for half in (split, split.turned):
        assert not {item.request for item in half.train} & {item.request for item in half.test}
        assert len(half.train) + half.removed + len(half.test) == len(rows)
    assert halves(rows, encoder_of(None, [item.request for item in rows])) == split


def test_a_sample_is_fixed() -> None:
    rows = [row("a", name=str(number)) for number in range(50)]

    assert sample(rows, 5) == sample(rows, 5)
    assert len(sample(rows, None)) == 50


# --- generated requests -------------------------------------------------------------------------------------------


def test_generated_plans_can_run_and_are_what_their_type_says() -> None:
    rows = generated(210)

    assert len({item.request for item in rows}) == 210
    for item in rows:
        checked(item.plan, tools=TOOLS, kinds=item.kinds, has_request=True, max_steps=16, repair=False)
        before = [len(step.reads) for step in item.plan.steps]
        followed = [sum(step.id in other.reads for other in item.plan.steps) for step in item.plan.steps]
        is_chain = before.count(0) == 1 and max(before) <= 1 and max(followed) <= 1
        assert {"single": len(before) == 1, "sequential": is_chain, "graph": len(before) > 1 and not is_chain}[
            item.type
        ]


def test_generated_graphs_hold_every_shape() -> None:
    graphs = [item.plan for item in generated(210) if item.type == "graph"]

    assert any(len(step.reads) > 1 for plan in graphs for step in plan.steps)  # fan-in
    assert any(sum(step.id in other.reads for other in plan.steps) > 1 for plan in graphs for step in plan.steps)
    assert any(sum(not step.reads for step in plan.steps) > 1 for plan in graphs)  # parts of their own
    assert any(item.types and {"image", "audio"} & {kind for _, kind in item.types} for item in generated(30))


def test_the_same_seed_gives_the_same_requests() -> None:
    assert generated(20, seed=3) == generated(20, seed=3) != generated(20, seed=4)


# --- running ------------------------------------------------------------------------------------------------------


def test_a_plan_that_cannot_be_had_counts_as_an_empty_one() -> None:
    # given no examples at all
    run = run_planner(
        PlannerEntry(name="retrieval", method="retrieval"),
        train=(),
        test=[row("a", "b")],
        tools=tuple(TEXT_TOOLS.values()),
        model=None,
        embedder=None,
    )
    # then
    assert metrics_of(run.marks)["unparseable"] == 1
    assert "None of the 0 stored examples fits" in run.reasons[0]


def test_voting_beats_retrieval_on_generated_requests_without_any_model() -> None:
    rows = generated(120)
    split = halves(rows, encoder_of(None, [item.request for item in rows]))
    scores = {}
    for method in ("retrieval", "voting"):
        run = run_planner(
            PlannerEntry(name=method, method=method),
            train=split.train,
            test=split.test[:30],
            tools=TOOLS,
            model=None,
            embedder=None,
        )
        scores[method] = metrics_of(run.marks)

    assert scores["voting"]["node_f1"] > scores["retrieval"]["node_f1"]  # type: ignore[operator]
    assert scores["voting"]["edge_f1"] > scores["retrieval"]["edge_f1"]  # type: ignore[operator]


# --- the command --------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    words = ["red", "green", "blue", "yellow", "brown", "black", "white", "grey"]
    rows = [
        {
            "id": n,
            "request": f"paint a {word} {what} and sell it",
            "nodes": ["paint", what],
            "links": [["paint", what]],
            "type": "chain",
        }
        for n, (word, what) in enumerate((word, what) for word in words for what in ("house", "boat"))
    ]
    tools = [{"id": name, "desc": f"about a {name}"} for name in ("paint", "house", "boat")]
    return write(tmp_path / "rows.jsonl", *rows), write(tmp_path / "tools.jsonl", *tools)


def run(*arguments: str, env: dict[str, str] | None = None) -> Any:
    app = typer.Typer()
    app.command()(planner_command)
    load_settings.cache_clear()
    try:
        return CliRunner().invoke(app, arguments, env=env)
    finally:
        load_settings.cache_clear()


def test_the_command_prints_every_figure(files: tuple[Path, Path]) -> None:
    rows, tools = files

    done = run(
        str(rows), "--tools", str(tools), "--planner", "voting", "--embedder", "none", "--generated", "0", "--json"
    )

    report = json.loads(done.stdout)
    keys = {"node_f1", "edge_f1", "type_f1", "edit_distance", "exact", "support", "unparseable"}
    assert keys <= set(report)
    assert (report["support"], report["unparseable"]) == (8, 0)
    assert report["node_f1"] > 0.8
    assert set(report["minus_retrieval"]) == {"node_f1", "edge_f1"}
    assert report["both_halves"]["support"] == 16


def test_the_command_asks_a_language_model_about_a_sample(files: tuple[Path, Path], tmp_path: Path) -> None:
    # given a registry whose language model always writes the same plan
    rows, tools = files
    plan = {"steps": [
        {"id": "s1", "capability": "paint", "inputs": [{"request": True}]},
        {"id": "s2", "capability": "boat", "inputs": [{"output": "s1"}]},
    ]}  # fmt: skip
    models = tmp_path / "models.toml"
    models.write_text(f"""
[capabilities.text-generation]
input = "text"
instruction = "Answer."
judge = "first"
[judges.first]
method = "scripted"
[models.writer]
capability = "text-generation"
backend = "scripted"
params = {{ answer = '{json.dumps(plan)}' }}
""")
    # when
    done = run(
        str(rows), "--tools", str(tools), "--planner", "llm", "--model", "writer", "--limit", "4", "--generated", "3",
        "--json", env={"BAKEOFF_MODELS_FILE": str(models)},
    )  # fmt: skip
    # then
    assert done.exception is None, done.exception
    report = json.loads(done.stdout)
    assert (report["support"], report["model"], report["embedder"]) == (4, "writer", None)
    assert report["short_list_recall"] == 1.0
    assert 0.5 <= report["node_f1"] <= 1
    assert report["generated"]["support"] == 3
    assert report["generated"]["unparseable"] == 1.0  # there is no boat among the tools there


def test_the_command_prints_a_table_for_people(files: tuple[Path, Path]) -> None:
    rows, tools = files

    done = run(str(rows), "--tools", str(tools), "--planner", "voting", "--embedder", "none", "--generated", "6")

    assert done.exit_code == 0
    assert "both halves" in done.stdout
    assert "near-duplicates" in done.stdout


def test_what_is_wrong_is_said(files: tuple[Path, Path]) -> None:
    _, tools = files
    registry = read_registry(Path(__file__).parents[2] / "models.toml")

    with pytest.raises(UsageError, match=r"'oracle' is no planner and no method; there are: .*llm, llm"):
        planner_entry(registry, "oracle", None, None)
    assert planner_entry(registry, "retrieval", None, None).embedder == "minilm-l6"
    assert planner_entry(registry, "llm+retrieval", "smollm2-135m", "none").embedder is None
    missing = run("gone.jsonl", "--tools", str(tools), "--planner", "retrieval")
    assert isinstance(missing.exception, UsageError)
    assert "There is no file gone.jsonl" in str(missing.exception)
