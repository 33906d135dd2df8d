"""The `bakeoff` command. Each command prints for people, or JSON with `--json`; errors are one sentence.

Exit codes: 0 done, 1 failed, 2 usage, 3 refused now (retry later), 4 the wait timed out.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

import typer

from scheduler.cli.commands import LazyGroup
from scheduler.cli.failing import failure_of, say

COMPLETE = "_BAKEOFF_COMPLETE"  # set by a shell that asks for completions
INTERRUPTED = 130

app = typer.Typer(
    name="bakeoff",
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"bakeoff {version('bakeoff')}")
        raise typer.Exit


@app.callback()
def bakeoff(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which one this is.")
    ] = False,
) -> None:
    """Send one request: several models answer it, a judge keeps the best, the result waits in Postgres."""


def main() -> None:
    """Run a command; whatever goes wrong becomes a sentence on standard error and an exit code."""
    command = typer.main.get_command(app)
    try:
        if COMPLETE not in os.environ and sys.argv[1:] and not {"-h", "--help"} & set(sys.argv):
            _begin()
        code = command.main(prog_name="bakeoff", complete_var=COMPLETE, standalone_mode=False)
        print(end="", flush=True)  # there may be no standard output at all
    except BrokenPipeError:
        _nobody_reads()
    except SystemExit as left:
        if not isinstance(left.__context__, BrokenPipeError):  # click makes it one
            raise
        _nobody_reads()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - the last resort: no trace reaches a user
        sys.exit(say(failure_of(error), as_json="--json" in sys.argv))
    sys.exit(code if isinstance(code, int) else 0)


def _nobody_reads() -> NoReturn:
    """Whoever read our output has enough of it: `bakeoff results --json | head`."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still to be flushed
    sys.exit(0)


def _begin() -> None:
    """Read and check the settings, and let logs go where they say."""
    from db.logs import configure_logging
    from db.settings import load_settings

    settings = load_settings()
    configure_logging(settings.log_level, settings.log_format, content=settings.log_content)
