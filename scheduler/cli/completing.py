"""What a shell may complete: names of the registry, recent tasks, jobs, sets of annotation.

Completion is asked for while somebody types. It never waits long, and whatever goes wrong (no database, no registry)
is an empty list and not a word. zsh evaluates what it is given: only plain names are handed out, never a caller's text.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from typing import TypeAlias

Found: TypeAlias = list[tuple[str, str]]  # name, what it is
Complete: TypeAlias = Callable[[str], Found]

WAIT = 0.6  # seconds for the database
MOST = 30
PLAIN = re.compile(r"\w[\w./+-]{0,99}", re.ASCII)
IN_ID = frozenset("0123456789abcdef-")


def _beginning(incomplete: str, found: Iterable[tuple[str, str]]) -> Found:
    return [(name, help_) for name, help_ in found if name.startswith(incomplete) and PLAIN.fullmatch(name)]


def _of_registry(list_: Callable[..., Iterable[tuple[str, str]]]) -> Complete:
    """Complete from the registry of the active profile."""

    def complete(incomplete: str) -> Found:
        from db.settings import load_settings

        try:
            return _beginning(incomplete, list_(load_settings().registry))
        except Exception:  # noqa: BLE001 - somebody types; the command itself will say what is wrong
            return []

    return complete


def _beginning_with(incomplete: str) -> dict[str, str]:
    """The text, and the least and the greatest id that begin with it: a range is read from the index."""
    digits = "".join(c for c in incomplete.lower() if c in IN_ID).replace("-", "")[:32]
    return {"begins": incomplete, "low": digits.ljust(32, "0"), "high": digits.ljust(32, "f")}


def _of_database(statement: str) -> Complete:
    """Complete from rows of (name, what it is), the most telling first."""

    def complete(incomplete: str) -> Found:
        rows: list[tuple[str, str]] = []

        def ask() -> None:
            from db.engine import connect
            from db.settings import load_settings

            try:
                with connect(load_settings().dsn, "completion", read_only=True) as connection:
                    found = connection.execute(statement.encode(), {"most": MOST, **_beginning_with(incomplete)})
                    rows.extend((str(name), str(kind)) for name, kind in found)
            except Exception:  # noqa: BLE001 - as above
                return

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(WAIT)
        return _beginning(incomplete, list(rows))

    return complete


MODELS = _of_registry(lambda registry: ((model.name, model.capability) for model in registry.models.values()))
JUDGES = _of_registry(lambda registry: ((judge.name, judge.method) for judge in registry.judges.values()))
GUARDED = _of_registry(
    lambda registry: [
        *((model.name, model.capability) for model in registry.models.values()),
        *((judge.name, f"judge: {judge.method}") for judge in registry.judges.values()),
    ]
)
CAPABILITIES = _of_registry(lambda registry: ((name, "") for name in sorted(registry.served)))
PLANNERS = _of_registry(lambda registry: ((planner.name, planner.method) for planner in registry.planners.values()))
INTEGRATORS = _of_registry(lambda registry: ((one.name, one.method) for one in registry.integrators.values()))
SELECTORS = _of_registry(lambda _: ((name, "") for name in _selectors()))
PROFILES = _of_registry(lambda _: _profiles())

TASKS = _of_database(
    "SELECT id::text, status FROM task WHERE id BETWEEN %(low)s::uuid AND %(high)s::uuid "
    "ORDER BY id DESC LIMIT %(most)s"
)
OPEN_TASKS = _of_database(
    "SELECT id::text, status FROM task WHERE id BETWEEN %(low)s::uuid AND %(high)s::uuid "
    "AND status IN ('pending', 'planning', 'running', 'integrating') ORDER BY id DESC LIMIT %(most)s"
)
JOBS = _of_database(
    "SELECT name, status FROM curation_job WHERE starts_with(name, %(begins)s) ORDER BY id DESC LIMIT %(most)s"
)
SOURCES = _of_database(
    "SELECT DISTINCT source, '' FROM (SELECT source FROM task ORDER BY id DESC LIMIT 1000) AS latest "
    "WHERE starts_with(source, %(begins)s) LIMIT %(most)s"
)


def _selectors() -> Iterable[str]:
    from scheduler.selectors import SELECTORS as KNOWN

    return KNOWN


def _profiles() -> Iterable[tuple[str, str]]:
    from db.registry import read_registry
    from db.settings import load_settings

    return [(name, "") for name in read_registry(load_settings().registry_file).profiles]
