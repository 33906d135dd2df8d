"""Commands about preferences: prefer, preferences import."""

from __future__ import annotations

import getpass
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from db.engine import engine_of, transaction
from db.errors import InvalidRequest
from db.prefer import store_preferences
from db.settings import load_settings
from scheduler.cli.output import console, harmless, print_json
from scheduler.preferring import prefer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("prefer")(prefer_command)
    preferences = typer.Typer(help="What people and labels say is better.", no_args_is_help=True)
    preferences.callback()(lambda: None)  # so that a group of one command stays a group
    preferences.command("import")(import_preferences_command)
    app.add_typer(preferences, name="preferences")


def prefer_command(
    subtask: Annotated[str, typer.Argument(help="A subtask id, or that of a task with one; or its beginning.")],
    better: Annotated[str, typer.Argument(help="The better candidate: its model's name, or its id.")],
    over: Annotated[
        list[str] | None,
        typer.Option("--over", help="Better than this one; may repeat. Default: than all others that are done."),
    ] = None,
    annotator: Annotated[str | None, typer.Option(help="Who says so; default: your login name.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say which candidate of a subtask is the better one. The verdict stays; selectors and the leaderboard learn.

    Saying it again changes nothing; saying the opposite replaces what you said before.
    """
    settings = load_settings()
    with transaction(engine_of(settings.dsn, "cli")) as connection:
        said = prefer(connection, subtask, better, over or (), annotator=annotator or _login_name())
    if as_json:
        print_json(asdict(said))
        return
    kinds = [f"{count} {what}" for what, count in asdict(said.stored).items() if count]
    console.print(
        harmless(f"{said.better} is better than {', '.join(said.over)} ({said.capability}): {', '.join(kinds)}."),
        soft_wrap=True,
    )


def _login_name() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return None


def import_preferences_command(
    file: Annotated[Path, typer.Argument(help="A file of JSON lines (- reads standard input).", allow_dash=True)],
    capability: Annotated[
        str | None, typer.Option("--capability", "-c", help="Of the lines that name none, e.g. text-generation.")
    ] = None,
    annotator: Annotated[str | None, typer.Option(help="Who labelled the lines that do not say.")] = None,
    origin: Annotated[
        Literal["human", "judge", "import"], typer.Option(help="Of the lines that do not say.")
    ] = "import",
    as_json: AsJson = False,
) -> None:
    """Store preferences from a file: all of its lines, or none; a file given twice is stored once.

    A line is {"capability", "input", "better": {"text", "model"}, "worse": {...}}, or as sets of pairs have it
    {"instruction", "input", "output_1", "output_2", "label"}.
    """
    from scheduler.labels import read_labels

    settings = load_settings()
    defaults = {"capability": capability, "annotator": annotator, "origin": origin}
    labels = read_labels(lines_of(file), defaults)
    with transaction(engine_of(settings.dsn, "cli")) as connection:
        stored = store_preferences(connection, labels.preferences)
    capabilities = Counter(preference.capability for preference in labels.preferences)
    if as_json:
        print_json({**asdict(stored), "ties": labels.ties, "capabilities": capabilities})
        return
    console.print(
        f"{stored.new} new, {stored.changed} changed, {stored.known} there already; {labels.ties} tie(s) left out."
    )
    for name, count in capabilities.items():
        unknown = "" if name in settings.registry.capabilities else ", which this profile does not have"
        console.print(f"{count} of {name}{unknown}")


def lines_of(file: Path) -> list[str]:
    """The lines of a file, which is read whole: nothing is stored before its last line is known to be right."""
    try:
        said = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(f"Cannot read {file}: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{file} is not UTF-8 text: {error}.") from None
    return said.split("\n")  # not `splitlines`: a JSON text may hold other separators
