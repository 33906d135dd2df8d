"""`bakeoff keys`: who may use the HTTP API."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from db.engine import engine_of, transaction
from db.keys import Scope, create_key, list_keys, revoke_key
from db.settings import load_settings
from scheduler.cli.output import console, print_json, short, state, table

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    keys = typer.Typer(help="Keys of the HTTP API.", no_args_is_help=True)
    keys.command("create")(create_command)
    keys.command("list")(list_command)
    keys.command("revoke")(revoke_command)
    app.add_typer(keys, name="keys")


def create_command(
    scope: Annotated[
        list[Scope],
        typer.Option(help="submit: store tasks; read: see them; admin: everything. May repeat."),
    ],
    source: Annotated[
        str | None, typer.Option(help="The only source whose tasks it stores and sees; default: every one.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What you call it; default: its source and scopes.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and show it, this once: only its hash is stored."""
    settings = load_settings()
    called = name or " ".join([*filter(None, [source]), *dict.fromkeys(scope)])
    with transaction(engine_of(settings.dsn, "cli")) as connection:
        id_, token = create_key(connection, name=called, scopes=scope, source=source)
    if as_json:
        print_json({"id": id_, "name": called, "key": token})
        return
    typer.echo(token)
    typer.echo("bakeoff: this is the only time that the key is shown; keep it like a password.", err=True)


def list_command(as_json: AsJson = False) -> None:
    """The keys, without what opens anything."""
    settings = load_settings()
    with transaction(engine_of(settings.dsn, "cli")) as connection:
        keys = list_keys(connection)
    if as_json:
        print_json([asdict(key) for key in keys])
        return
    out = table("key", "name", "scopes", "source", "last used", "state", wrap=("name", "scopes", "source"))
    for key in keys:
        used = f"{key.last_used_at:%Y-%m-%d}" if key.last_used_at else "never"
        standing = "revoked" if key.revoked_at else "active"
        source = short(key.source or "every one")
        out.add_row(str(key.id), short(key.name), ", ".join(key.scopes), source, used, state(standing))
    console.print(out if keys else "No keys yet; `bakeoff keys create` makes one.")


def revoke_command(
    key: Annotated[str, typer.Argument(help="Its id, the beginning of it, or its name.")], as_json: AsJson = False
) -> None:
    """Let a key open nothing any more, within seconds everywhere."""
    settings = load_settings()
    with transaction(engine_of(settings.dsn, "cli")) as connection:
        revoked = revoke_key(connection, key)
    if as_json:
        print_json(asdict(revoked))
    else:
        console.print(f"{revoked.name} ({revoked.id}) is revoked.", soft_wrap=True)
