"""What a judge read in each order of the candidates, as tables: every method keeps figures of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scheduler.api.pages.words import number

#: what a method keeps → how a column is headed
HEADS = {
    "letter": "as",
    "logprob": "log probability",
    "log_odds": "log odds, standing first and second",
    "mark": "mark, 0 to 1",
    "outcome": "won, of both orders",
    "share": "share of checks",
}
WHO = ("models", "model")
LEFT_OUT = ("logprobs", "matrix")  # figures behind the figures


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A table: what it is about, its columns, its rows."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def readings(orders: Sequence[Any]) -> list[Reading]:
    """One table per order, comparison or answer that was read (`verdict.orders`, without its prompts)."""
    asked = [one for one in orders if isinstance(one, Mapping)]
    in_turn = sum("read" in one and not _about(one) for one in asked)
    found, turn = [], 0
    for one in asked:
        title = _about(one)
        if not title and "read" in one:
            turn += 1
            title = f"Order {turn} of {in_turn}" if in_turn > 1 else "Figures"
        found.append(_table(title or ("Checks" if "checks" in one else "Notes"), one))
    return [one for one in found if one.rows or one.notes]


def _about(one: Mapping[str, Any]) -> str:
    """Whom an entry compares or marks, where it does."""
    read = one.get("read")
    if "swapped" in one or (isinstance(read, list) and any("outcome" in row for row in _mappings(read))):
        return " against ".join(_who(row) for row in _mappings(read or []))
    return f"Marks of {_who(one)}" if any(key in one for key in WHO) else ""


def _table(title: str, one: Mapping[str, Any]) -> Reading:
    rows = _mappings(one.get("read") or one.get("checks") or [])
    keys = list(dict.fromkeys(key for row in rows for key in row if key not in {*WHO, *LEFT_OUT}))
    named = any(key in row for row in rows for key in WHO)
    notes = [
        f"{key.replace('_', ' ')}: {_cell(value)}"
        for key, value in one.items()
        if key not in {"read", "checks", *WHO, *LEFT_OUT}
    ]
    return Reading(
        title=title,
        columns=(*(["candidate"] if named else []), *(HEADS.get(key, key.replace("_", " ")) for key in keys)),
        rows=tuple((*([_who(row)] if named else []), *(_cell(row.get(key)) for key in keys)) for row in rows),
        notes=tuple(notes),
    )


def _mappings(values: Any) -> list[Mapping[str, Any]]:
    return [one for one in values if isinstance(one, Mapping)] if isinstance(values, list) else []


def _who(row: Mapping[str, Any]) -> str:
    said = row.get("models") or row.get("model") or ""
    return " = ".join(map(str, said)) if isinstance(said, list) else str(said)


def _cell(value: Any) -> str:
    """A value for people: figures with three digits, lists and tables in a line."""
    if value is None:
        return ""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_cell(one)}" for key, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    return str(value)
