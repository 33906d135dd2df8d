"""Markdown out of values: tables, cells, and what the source says beside a field."""

from __future__ import annotations

import ast
import inspect
import io
import re
import textwrap
import tokenize
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import SecretStr

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    SecretStr: "text, secret",
    Path: "path",
    dict: "table",
    Any: "anything",
}
OURS = frozenset({"db", "worker", "scheduler"})
SEPARATOR = re.compile(r"\s+")


def cell(value: Any) -> str:
    """One cell of a table: one line, with its bars escaped."""
    return SEPARATOR.sub(" ", str(value)).strip().replace("|", "\\|")


def code(value: Any) -> str:
    """A value in code type, or nothing where there is none."""
    return f"`{cell(value)}`" if str(value) else ""


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table; nothing where it has no rows."""
    lines = [f"| {' | '.join(map(cell, row))} |" for row in rows]
    return "\n".join([f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *lines]) + "\n" if lines else ""


def sentence(docstring: str | None) -> str:
    """A docstring as paragraphs."""
    return textwrap.dedent(inspect.cleandoc(docstring or "")).strip()


def kind_of(annotation: Any) -> str:
    """A type in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return kind_of(inner[0])
    if origin in {Union, UnionType}:
        return " or ".join(dict.fromkeys(kind_of(one) for one in inner if one is not type(None)))
    if origin is Literal:
        return ", ".join(code(one) for one in inner)
    if origin in {tuple, list, frozenset}:
        several = origin is not tuple or inner[1:] == (...,)
        return f"list of {kind_of(inner[0])}" if several else f"{len(inner)} of {kind_of(inner[0])}"
    return WORDS.get(origin or annotation, getattr(annotation, "__name__", str(annotation)))


def comments_of(kind: type) -> dict[str, str]:
    """What stands as a comment beside the fields of a class and of those that it inherits from."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        if one.__module__.partition(".")[0] in OURS:
            found |= _comments(textwrap.dedent(inspect.getsource(one)))
    return found


def _comments(source: str) -> dict[str, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    said = {t.start[0]: t.string.lstrip("# ").strip() for t in tokens if t.type == tokenize.COMMENT}
    (body,) = ast.parse(source).body
    fields = [node for node in getattr(body, "body", []) if isinstance(node, ast.AnnAssign)]
    out = {}
    for node in fields:
        lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
        comment = " ".join(said[line] for line in lines if line in said and "noqa" not in said[line])
        if isinstance(node.target, ast.Name) and comment:
            out[node.target.id] = comment
    return out
