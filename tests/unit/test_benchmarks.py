"""What the benchmarks make of their measurements."""

from __future__ import annotations

from typing import Any

from benchmarks.harness import medians, percentile, rounded
from benchmarks.scale.plans import Node, Plan, Statement, kept_problems, problems, scanned_tables

SIZES = {"task": 1_000_000.0, "judge": 3.0}


def test_the_median_of_each_figure_is_told_with_the_runs_behind_it() -> None:
    told = medians([{"a": 1.0, "cpu": {"x": 1.0}}, {"a": 9.0, "cpu": {"x": 3.0}}, {"a": 2.0, "cpu": {"x": 2.0}}])

    assert (told["a"], told["cpu"], told["runs"], len(told["each"])) == (2.0, {"x": 2.0}, 3, 3)


def test_a_figure_that_one_run_lacks_is_that_of_the_others() -> None:
    assert medians([{"a": 1.0}, {"a": 3.0, "b": 5.0}])["b"] == 5.0


def test_a_percentile_lies_between_its_neighbours() -> None:
    values = [float(number) for number in range(101)]
    assert percentile(values, 0.99) == 99.0
    assert percentile([1.0, 2.0], 0.5) == 1.5


def test_figures_are_rounded_where_noise_begins() -> None:
    assert rounded({"a": 1234.56, "b": [0.00012345], "c": "text"}) == {"a": 1235.0, "b": [0.0001234], "c": "text"}


def statement(kind: str, table: str, read: float, index: str = "") -> Statement:
    node = Node(depth=0, kind=kind, table=table, index=index, estimated=1, actual=read, read=read)
    made = Statement(name="db.x.y", sql="SELECT 1")
    made.plans["quiet"].append(Plan(planning_ms=1, execution_ms=1, blocks=1, nodes=(node,)))
    return made


def test_a_large_table_that_is_read_from_end_to_end_is_a_problem() -> None:
    assert problems([statement("Seq Scan", "task", 10)], SIZES, "quiet") == [
        "db.x.y reads task from end to end (quiet)"
    ]
    assert problems([statement("Seq Scan", "judge", 3)], SIZES, "quiet") == []


def test_a_whole_index_is_no_less_work_where_nothing_waits() -> None:
    whole = statement("Index Scan", "task", 900_000, "ix_task_open")

    assert problems([whole], SIZES, "quiet") == ["db.x.y reads 900,000 rows of task by ix_task_open (quiet)"]
    assert problems([whole], SIZES, "busy") == []


def test_plans_are_searched_to_the_leaves() -> None:
    plan: dict[str, Any] = {
        "Node Type": "Limit",
        "Plans": [
            {"Node Type": "Index Scan", "Relation Name": "task"},
            {"Node Type": "Seq Scan", "Relation Name": "a"},
        ],
    }
    assert scanned_tables(plan) == {"a"}
    assert kept_problems(["task: SELECT 1", "judge: SELECT 2"], SIZES) == [
        "The plan that Postgres keeps for SELECT 1... reads task from end to end"
    ]
