"""The `bakeoff` command. Each command prints for people, or JSON with `--json`; errors are one sentence.

Exit codes: 0 done, 1 failed, 2 usage, 3 refused now (retry later), 4 the wait timed out.
"""

from __future__ import annotations

import os
import sys

import psycopg
import typer
from rich.console import Console
from sqlalchemy.exc import DBAPIError, OperationalError

from db.errors import BakeoffError
from db.logs import configure_logging, get_logger
from db.settings import load_settings
from scheduler.cli import (
    annotate,
    api,
    curate,
    evaluate,
    judge,
    keys,
    leaderboard,
    models,
    operate,
    prefer,
    processes,
    reward,
    tasks,
    upkeep,
    webhooks,
)

app = typer.Typer(
    name="bakeoff",
    help="Send one request: several models answer it, a judge keeps the best, the result waits in Postgres.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
processes.register(app)
tasks.register(app)
operate.register(app)
models.register(app)
upkeep.register(app)
prefer.register(app)
leaderboard.register(app)
judge.register(app)
reward.register(app)
annotate.register(app)
evaluate.register(app)
curate.register(app)
api.register(app)
keys.register(app)
webhooks.register(app)


def main() -> None:
    """Run a command; whatever goes wrong becomes a sentence on standard error and an exit code."""
    try:
        settings = load_settings()
        configure_logging(settings.log_level, settings.log_format)
        app()
    except BakeoffError as error:
        sys.exit(_say(str(error), error.exit_code))
    except OperationalError as error:
        sys.exit(_say(f"Postgres did not do it ({_first_line(error.orig)}). Check `bakeoff status`, or try again.", 3))
    except DBAPIError as error:
        sys.exit(_say(_database_sentence(error.orig), 1))
    except psycopg.OperationalError as error:
        sys.exit(_say(f"Postgres did not do it ({_first_line(error)}). Check `bakeoff status`, or try again.", 3))
    except psycopg.Error as error:
        sys.exit(_say(_database_sentence(error), 1))
    except BrokenPipeError:
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 - the last resort: no trace reaches a user
        # A fault of ours. Its trace goes to the log of a process that runs on, and to whoever asks for it.
        if set(sys.argv[1:2]) & {"worker", "scheduler"} or os.environ.get("BAKEOFF_LOG_LEVEL") == "debug":
            get_logger(__name__).exception("Stopped by a fault", action="fault")
        sentence = f"a fault of Bakeoff's own: {type(error).__name__}: {error}. BAKEOFF_LOG_LEVEL=debug shows where."
        sys.exit(_say(sentence, 1))


def _first_line(error: BaseException | None) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0]


def _database_sentence(error: BaseException | None) -> str:
    reason = _first_line(error)
    if "does not exist" in reason and "relation" in reason:
        return f"The database has no schema of ours ({reason}); run `bakeoff db upgrade`."
    return f"Postgres refused: {reason}."


def _say(sentence: str, code: int) -> int:
    Console(stderr=True, highlight=False).print(f"bakeoff: {sentence}", style="red", markup=False, soft_wrap=True)
    return code
