"""Every statement that is run, explained: the hook that collects them, and what their plans say."""

from __future__ import annotations

import re
import statistics
import sys
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, event

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import FrameType

LARGE = 10_000  # rows; a table with more is not read through
SAMPLES = 3  # explained executions of a statement, per state
EXPLAINED = re.compile(r"[\s(]*(SELECT|INSERT|UPDATE|DELETE|WITH)\b", re.IGNORECASE)
HOMES = re.compile(r"db\.(?!engine$|migrate$)|benchmarks\.scale\.clients$")  # modules whose functions own a statement
SCANS = ("Seq Scan", "Index Scan", "Index Only Scan", "Bitmap Heap Scan", "Tid Scan")


@dataclass(frozen=True, kw_only=True)
class Node:
    """A step of a plan. Rows are those of all loops together; `read` counts those that a filter threw away, too."""

    depth: int
    kind: str
    table: str
    index: str
    estimated: float
    actual: float
    read: float

    @property
    def scans(self) -> bool:
        """Whether it reads a table."""
        return self.kind in SCANS

    def __str__(self) -> str:
        where = f" on {self.table}" if self.table else ""
        how = f" using {self.index}" if self.index else ""
        thrown = f", read {self.read:.0f}" if self.read > self.actual else ""
        return f"{'  ' * self.depth}{self.kind}{how}{where} (rows {self.estimated:.0f} → {self.actual:.0f}{thrown})"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One execution. Times in milliseconds."""

    planning_ms: float
    execution_ms: float
    blocks: int  # of 8 kB, from memory or not
    nodes: tuple[Node, ...]

    @property
    def read(self) -> float:
        """Rows that its scans read."""
        return sum(node.read for node in self.nodes if node.scans)


@dataclass
class Statement:
    """A statement, whose it is, and its plans by state of the database."""

    name: str
    sql: str
    plans: dict[str, list[Plan]] = field(default_factory=lambda: defaultdict(list))
    calls: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def worst(self, state: str) -> Plan:
        """The execution that read most."""
        return max(self.plans[state], key=lambda plan: plan.read)

    def median_ms(self, state: str) -> float:
        """Of the execution time."""
        return statistics.median(plan.execution_ms for plan in self.plans[state])


class Collector:
    """Explains statements of this process just before they are run, on their own connection, and undoes that.

    So a statement is explained with its own values and finds the rows that it is about to find. Each is executed twice.
    """

    def __init__(self) -> None:
        self.statements: dict[tuple[str, str], Statement] = {}
        self._state = ""

    @contextmanager
    def collecting(self, state: str) -> Iterator[None]:
        """Explain what is run within the block; `state` names what the database holds."""
        self._state = state
        event.listen(Engine, "before_cursor_execute", self._before)
        try:
            yield
        finally:
            event.remove(Engine, "before_cursor_execute", self._before)

    def _before(self, _: Any, cursor: Any, sql: str, values: Any, *__: Any) -> None:
        name = _owner(sys._getframe(1))  # noqa: SLF001 - the documented way to the caller
        if name is None or not EXPLAINED.match(sql):
            return
        statement = self.statements.setdefault((name, sql), Statement(name=name, sql=sql))
        statement.calls[self._state] += 1
        if len(statement.plans[self._state]) < SAMPLES:
            statement.plans[self._state].append(_explain(cursor.connection, sql, values))


def _owner(frame: FrameType | None) -> str | None:
    """Which function of ours runs a statement: the innermost one."""
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        if HOMES.match(module):
            return f"{module.removeprefix('benchmarks.scale.')}.{frame.f_code.co_qualname}"
        frame = frame.f_back
    return None


def _explain(connection: Any, sql: str, values: Any) -> Plan:
    connection.execute("SAVEPOINT explained")
    try:
        rows = connection.execute(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {sql}", values).fetchone()
    finally:
        connection.execute("ROLLBACK TO SAVEPOINT explained")
        connection.execute("RELEASE SAVEPOINT explained")
    document = rows[0][0]
    return Plan(
        planning_ms=document["Planning Time"],
        execution_ms=document["Execution Time"],
        blocks=document["Plan"]["Shared Hit Blocks"] + document["Plan"]["Shared Read Blocks"],
        nodes=tuple(_nodes(document["Plan"], 0)),
    )


def _nodes(plan: Mapping[str, Any], depth: int) -> Iterator[Node]:
    loops = plan["Actual Loops"]
    thrown = sum(value for key, value in plan.items() if key.startswith("Rows Removed by"))
    actual = plan["Actual Rows"] * loops
    yield Node(
        depth=depth,
        kind=plan["Node Type"],
        table=plan.get("Relation Name", ""),
        index=plan.get("Index Name", ""),
        estimated=plan["Plan Rows"] * loops,
        actual=actual,
        read=actual + thrown * loops,
    )
    for part in plan.get("Plans", ()):
        yield from _nodes(part, depth + 1)


def scanned_tables(plan: Mapping[str, Any]) -> set[str]:
    """Tables that a plan, executed or not, reads from end to end."""
    tables = {str(plan["Relation Name"])} if plan["Node Type"] == "Seq Scan" else set()
    return tables.union(*(scanned_tables(part) for part in plan.get("Plans", ())))


def problems(statements: Iterable[Statement], sizes: Mapping[str, float], quiet: str) -> list[str]:
    """Statements that read through a large table; `sizes` are rows per table.

    A sequential scan of one always does. With nothing waiting (in the state `quiet`) so does any scan that reads more
    than `LARGE` rows of one: a whole index is no less work.
    """
    found: dict[str, dict[str, None]] = defaultdict(dict)  # sentence to states, in order
    for statement in statements:
        for state, plans in statement.plans.items():
            for node in (node for plan in plans for node in plan.nodes if node.scans):
                if sizes.get(node.table, 0) <= LARGE:
                    continue
                if node.kind == "Seq Scan":
                    found[f"{statement.name} reads {node.table} from end to end"][state] = None
                elif state == quiet and node.read > LARGE:
                    found[f"{statement.name} reads {node.read:,.0f} rows of {node.table} by {node.index}"][state] = None
    return [f"{sentence} ({', '.join(states)})" for sentence, states in found.items()]


def kept_problems(scanning: Iterable[str], sizes: Mapping[str, float]) -> list[str]:
    """Those of prepared statements ("table: SQL") whose scanned table is large."""
    return [
        f"The plan that Postgres keeps for {sql:.100}... reads {table} from end to end"
        for table, _, sql in (entry.partition(": ") for entry in scanning)
        if sizes.get(table, 0) > LARGE
    ]
