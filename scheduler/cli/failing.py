"""How a command fails: a sentence or two on standard error and an exit code, never a trace.

With `--json` it is one line of JSON, `{"error": {"code", "detail", "exit_code"}}`, on standard error all the same:
standard output holds results only.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass, field
from typing import Any

import typer
from typer.exceptions import TyperException

from db.errors import BakeoffError

SERVERS = frozenset({"worker", "scheduler", "api"})
FAILED, REFUSED = 1, 3
ABORTED = "aborted"


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What went wrong, for a person and for a program."""

    code: str
    detail: str
    exit_code: int
    more: dict[str, Any] = field(default_factory=dict)


def failure_of(error: Exception) -> Failure:
    """What an error says to whoever ran the command."""
    if isinstance(error, BakeoffError):
        retry_after = getattr(error, "retry_after", None)
        more = {} if retry_after is None else {"retry_after": retry_after}
        return Failure(code=error.code, detail=str(error), exit_code=error.exit_code, more=more)
    if isinstance(error, TyperException):
        return Failure(code="usage", detail=_usage(error), exit_code=error.exit_code)
    if isinstance(error, typer.Abort):
        return Failure(code=ABORTED, detail="Nothing was changed: the question was not answered with yes.", exit_code=1)
    return _of_database(error) or _fault(error)


def say(failure: Failure, *, as_json: bool) -> int:
    """Print a failure; returns the exit code."""
    from rich.console import Console

    from scheduler.cli.output import harmless

    if as_json:
        said = {"code": failure.code, "detail": failure.detail, "exit_code": failure.exit_code, **failure.more}
        print(json.dumps({"error": said}, ensure_ascii=False), file=sys.stderr)
    elif failure.detail:
        if failure.code == ABORTED:
            print(file=sys.stderr)  # after the question
        errors = Console(stderr=True, highlight=False)
        errors.print(f"bakeoff: {harmless(failure.detail)}", style="red", markup=False, soft_wrap=True)
    return failure.exit_code


def _usage(error: TyperException) -> str:
    """Click's sentence, and where the right words stand."""
    context = getattr(error, "ctx", None)
    said = error.format_message().replace("Value error, ", "")
    said = re.sub(r" \(Possible options: (.*)\)", r" Did you mean \1?", said)
    sentence = " ".join(re.sub(r"(?<![.?!]) Did you mean", ". Did you mean", said).split())
    if not sentence:  # a group without a command: its help is printed
        return ""
    if sentence[-1] not in ".?!":
        sentence += "."
    return sentence if context is None else f"{sentence} `{context.command_path} --help` says what there is."


def _of_database(error: Exception) -> Failure | None:
    """What Postgres' drivers raise; None for anything else."""
    import psycopg
    from sqlalchemy.exc import DBAPIError

    cause: BaseException | None = error.orig if isinstance(error, DBAPIError) else error
    if not isinstance(cause, psycopg.Error):
        return None
    reason = (str(cause).strip().splitlines() or ["no reason given"])[0]
    if isinstance(cause, psycopg.OperationalError):
        detail = f"Postgres did not do it ({reason}). Check `bakeoff status`, or try again."
        return Failure(code="unreachable", detail=detail, exit_code=REFUSED)
    missing = (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn, psycopg.errors.UndefinedFunction)
    if isinstance(cause, missing) and (sentence := _schema_sentence()):
        return Failure(code="schema", detail=sentence, exit_code=FAILED)
    return Failure(code="database", detail=f"Postgres refused: {reason.rstrip('.')}.", exit_code=FAILED)


def _schema_sentence() -> str | None:
    """What is wrong with the schema; None where it is the one that this version wants."""
    from db import migrate
    from db.settings import load_settings

    try:
        here, wanted = migrate.current(load_settings().dsn), migrate.head()
    except Exception:  # noqa: BLE001 - whatever is wrong now, the first error is the one to tell
        return None
    if here == wanted:
        return None
    if here is None:
        return "The database has no schema of ours; run `bakeoff db upgrade`."
    if migrate.known(here):
        return f"The database's schema is at {here} and this version needs {wanted}; run `bakeoff db upgrade`."
    return f"The database's schema ({here}) is newer than this version, which knows {wanted}; upgrade Bakeoff here."


def _fault(error: Exception) -> Failure:
    """A fault of ours. Its trace goes to the log of a process that runs on, and to whoever asks for it."""
    if SERVERS & set(sys.argv[1:2]) or os.environ.get("BAKEOFF_LOG_LEVEL") == "debug":
        from db.logs import get_logger

        get_logger(__name__).exception("Stopped by a fault", action="fault")
    kind = f"{type(error).__name__}: {error}".rstrip(".")
    detail = f"a fault of Bakeoff's own: {kind}. BAKEOFF_LOG_LEVEL=debug shows where."
    return Failure(code="fault", detail=detail, exit_code=FAILED)
