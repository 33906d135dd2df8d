"""Markdown out of values: tables, cells, and what the source says beside a field."""

from __future__ import annotations

import ast
import inspect
import io
import re
import textwrap
import tokenize
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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
    """A type as a reader wants it: without modules, `Annotated` and its conditions."""
    said = annotation.__name__ if isinstance(annotation, type) and not hasattr(annotation, "__args__") else annotation
    text = re.sub(r"\b(?:[a-z_]+\.)+([A-Za-z])", r"\1", str(said))
    text = re.sub(r"Annotated\[([^,\[\]]+(?:\[[^\]]*\])?), .*\]", r"\1", text)
    return text.replace("NoneType", "None").replace("SecretStr", "text").replace("str", "text")


def comments_of(kind: type) -> dict[str, str]:
    """What stands as a comment beside the fields of a class and of those that it inherits from."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        try:
            source = textwrap.dedent(inspect.getsource(one))
        except (OSError, TypeError):
            continue
        found |= _comments(source)
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
