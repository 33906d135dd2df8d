"""`bakeoff submit --from FILE`: many tasks from JSON lines, stored a thousand at a time."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO
from uuid import UUID

import typer

from db.errors import BakeoffError, InvalidRequest
from db.settings import Settings
from scheduler.cli.live import happening
from scheduler.cli.output import console, print_json
from scheduler.jsonl import read_tasks
from scheduler.submit import NewTask, submit_many

AT_ONCE = 1000  # tasks of one transaction: more gain nothing, and a failure leaves less undone


def submit_file(
    settings: Settings, file: Path, defaults: Mapping[str, Any], *, needs_worker: bool, as_json: bool
) -> None:
    """Store the tasks of a file and print their ids, in the order of its lines.

    What is printed is stored, also where a later line is refused: with an idempotency_key in each line the same file
    can simply be given again.
    """
    ids: list[UUID] = []
    try:
        with _opened(file) as lines, happening("reading", shown=as_json or not console.is_terminal) as say:
            numbered = read_tasks(lines, Path.cwd() if str(file) == "-" else file.parent, defaults)
            while chunk := list(itertools.islice(numbered, min(AT_ONCE, settings.max_bulk))):
                ids += _stored(settings, chunk, needs_worker=needs_worker)
                say(f"{len(ids)} tasks stored")
                if not as_json:
                    typer.echo("\n".join(map(str, ids[-len(chunk) :])))
    except BakeoffError:
        if ids and not as_json:
            typer.echo(f"bakeoff: {len(ids)} tasks of {file} are stored, the rest is not.", err=True)
        raise
    finally:
        if as_json:
            print_json({"stored": len(ids), "ids": ids})
    if not as_json:
        typer.echo(f"{len(ids)} tasks stored; `bakeoff watch` follows them.", err=True)


def _stored(settings: Settings, chunk: list[tuple[int, NewTask]], *, needs_worker: bool) -> list[UUID]:
    """Store one transaction's worth; a refusal names its lines."""
    try:
        return submit_many(settings, [task for _, task in chunk], needs_worker=needs_worker)
    except InvalidRequest as error:
        raise type(error)(f"Lines {chunk[0][0]} to {chunk[-1][0]}: {error}") from None


@contextmanager
def _opened(file: Path) -> Iterator[TextIO]:
    if str(file) == "-":
        yield sys.stdin
        return
    try:
        with file.open(encoding="utf-8") as lines:
            yield lines
    except OSError as error:
        raise InvalidRequest(f"Cannot read {file}: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{file} is not UTF-8 text: {error}.") from None
