"""Every statement explained at the largest size: with nothing waiting, and with a backlog in three shapes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from benchmarks.harness import rounded, say
from benchmarks.scale.life import Life
from benchmarks.scale.plans import LARGE, Collector, kept_problems, problems
from benchmarks.scale.registry import settings_of
from db.logs import configure_logging

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.scale.plans import Statement

#: States of the database, and what its open tasks are like. The backlog has a tenth as many tasks as are finished.
QUIET = "quiet"
STATES = {
    QUIET: "no task is open but those of the measurement",
    "pending": "a backlog that nobody has looked at",
    "ready": "the same backlog, planned",
    "running": "the same backlog, sent: half of its messages are being worked on",
}

_SIZES = "SELECT relname, reltuples FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"


class Explaining:
    """Collects plans on one database and writes them down."""

    def __init__(self, url: str, folder: Path) -> None:
        configure_logging("error", "json")
        folder.mkdir()
        self._url = url
        self._collector = Collector()
        self._life = Life(settings_of(url, folder))

    def collect(self, state: str) -> None:
        """Explain everything, the database being in this one of `STATES`."""
        with self._collector.collecting(state):
            self._life.live()
        say(f"Explained {len(self._statements)} statements: {STATES[state]}")

    def finish(self, out: Path, scanning: list[str]) -> list[str]:
        """Write plans.txt and plans.json; returns what reads through a large table. `scanning`: of prepared plans."""
        self._life.close()
        with psycopg.connect(self._url) as connection:
            sizes: dict[str, float] = dict(connection.execute(_SIZES).fetchall())
        found = problems(self._statements, sizes, QUIET) + kept_problems(scanning, sizes)
        out.mkdir(parents=True, exist_ok=True)
        document = {
            "problems": found,
            "rows": {table: int(rows) for table, rows in sorted(sizes.items()) if rows > LARGE},
            "states": STATES,
            "statements": [_document(statement) for statement in self._statements],
        }
        (out / "plans.json").write_text(json.dumps(rounded(document), indent=1) + "\n")
        (out / "plans.txt").write_text("\n".join(self._lines(found)) + "\n")
        return found

    @property
    def _statements(self) -> list[Statement]:
        return sorted(self._collector.statements.values(), key=lambda statement: statement.name)

    def _lines(self, found: list[str]) -> Iterator[str]:
        yield from found or ["No statement reads through a large table."]
        yield ""
        yield "Milliseconds of execution (median), and rows read (most), of each statement in each state:"
        yield from (f"  {state}: {meaning}" for state, meaning in STATES.items())
        yield ""
        yield f"{'':48}" + "".join(f"{state:>22}" for state in STATES)
        for statement in self._statements:
            yield f"{statement.name:48}" + "".join(f"{_cell(statement, state):>22}" for state in STATES)
        yield ""
        yield "Plans: the execution that read most. Rows are those of all loops, estimated → actual."
        for statement in self._statements:
            yield from ("", f"--- {statement.name}", " ".join(statement.sql.split()))
            for state in statement.plans:
                plan = statement.worst(state)
                yield f"  {state}: {plan.execution_ms:.2f} ms, planned in {plan.planning_ms:.2f}, {plan.blocks} blocks"
                yield from (f"    {node}" for node in plan.nodes)


def _cell(statement: Statement, state: str) -> str:
    if state not in statement.plans:
        return "-"
    return f"{statement.median_ms(state):.2f} / {statement.worst(state).read:,.0f}"


def _document(statement: Statement) -> dict[str, Any]:
    return {
        "name": statement.name,
        "sql": " ".join(statement.sql.split()),
        "states": {
            state: {
                "calls": statement.calls[state],
                "execution_ms": statement.median_ms(state),
                "planning_ms": statement.worst(state).planning_ms,
                "rows_read": statement.worst(state).read,
                "blocks": statement.worst(state).blocks,
                "nodes": [
                    {
                        "depth": node.depth,
                        "kind": node.kind,
                        "table": node.table,
                        "index": node.index,
                        "estimated": node.estimated,
                        "actual": node.actual,
                        "read": node.read,
                    }
                    for node in statement.worst(state).nodes
                ],
            }
            for state in statement.plans
        },
    }
