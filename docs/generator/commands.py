"""The page of the command line, from the tree of commands itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer
import typer.main

from docs.generator.text import code, sentence, table
from scheduler.cli import app

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD = """# The command line

Made from the commands themselves; `bakeoff COMMAND --help` says the same. Commands print for people, or JSON with
`--json`.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | failed |
| 2 | usage: the sentence says what is wrong with the command |
| 3 | refused now: try again later |
| 4 | the wait timed out; the task goes on |
"""


def page() -> str:
    """All commands, with their arguments, options, defaults and help."""
    root: Any = typer.main.get_command(app)
    return "\n".join([HEAD, *(_section(name, command) for name, command in walk("bakeoff", root))])


def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Each command that does something, by its full name, in the order of the alphabet."""
    context = typer.Context(command, info_name=name)
    inner = sorted(command.list_commands(context)) if hasattr(command, "list_commands") else []
    if not command.hidden and (not inner or command.invoke_without_command):
        yield name, command
    for one in inner:
        yield from walk(f"{name} {one}", command.get_command(context, one))


def _section(name: str, command: Any) -> str:
    context = typer.Context(command, info_name=name)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    taken = [_row(one, context) for one in command.params if one.param_type_name == "argument"]
    chosen = [_row(one, context) for one in command.params if one.param_type_name == "option" and not one.hidden]
    return "\n".join(
        [
            *(f"## {name}", "", f"```text\n{usage}\n```", "", _plain(command.help), ""),
            *(table(("argument", "meaning"), taken), table(("option", "meaning"), chosen)),
        ]
    )


def _row(parameter: Any, context: typer.Context) -> tuple[str, str]:
    written, says = parameter.get_help_record(context)
    return code(written) + (" (repeatable)" if parameter.multiple else ""), _plain(says)


def _plain(help_text: str | None) -> str:
    """A help without the mark by which line breaks are kept, and without what a page would take for a tag."""
    return sentence(help_text).replace("\b\n", "").replace("<", "&lt;")
