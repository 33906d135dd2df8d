"""`bakeoff webhooks`: who hears of every task that ends."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal
from uuid import UUID

import typer

from db.engine import engine_of, transaction
from db.settings import load_settings
from db.webhooks import add_webhook, list_deliveries, list_webhooks, remove_webhook, replay
from scheduler.cli.output import console, print_json, short, state, table

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    webhooks = typer.Typer(help="Who hears of every task that ends; `bakeoff api` delivers.", no_args_is_help=True)
    webhooks.command("add")(add_command)
    webhooks.command("list")(list_command)
    webhooks.command("remove")(remove_command)
    webhooks.command("deliveries")(deliveries_command)
    webhooks.command("replay")(replay_command)
    app.add_typer(webhooks, name="webhooks")


def add_command(
    url: Annotated[str, typer.Argument(help="https://..., on a host of BAKEOFF_WEBHOOK_HOSTS.")],
    source: Annotated[str | None, typer.Option(help="Tasks of this source only; default: all.")] = None,
    as_json: AsJson = False,
) -> None:
    """Post to an address whenever a task ends, from now on. Prints the secret that deliveries are signed with."""
    from scheduler.api.outbound import checked_url

    settings = load_settings()
    checked_url(settings, url)
    with transaction(engine_of(settings.dsn, "cli")) as connection:
        id_, secret = add_webhook(connection, url, source)
    if as_json:
        print_json({"id": id_, "url": url, "secret": secret})
        return
    typer.echo(secret)
    typer.echo(f"bakeoff: webhook {id_}; give this secret to its receiver, it is shown once.", err=True)


def list_command(as_json: AsJson = False) -> None:
    """The webhooks, without their secrets."""
    settings = load_settings()
    with transaction(engine_of(settings.dsn, "cli")) as connection:
        webhooks = list_webhooks(connection)
    if as_json:
        print_json([asdict(webhook) for webhook in webhooks])
        return
    out = table("webhook", "state", "source", "url", "reason", wrap=("source", "url", "reason"))
    for one in webhooks:
        standing = state("stopped" if one.stopped_at else "active")
        out.add_row(str(one.id), standing, short(one.source or "all"), short(one.url, 80), short(one.reason))
    console.print(out if webhooks else "No webhooks yet; `bakeoff webhooks add` makes one.")


def remove_command(webhook: Annotated[UUID, typer.Argument(help="Its id.")], as_json: AsJson = False) -> None:
    """Delete a webhook and its deliveries."""
    settings = load_settings()
    with transaction(engine_of(settings.dsn, "cli")) as connection:
        remove_webhook(connection, webhook)
    if as_json:
        print_json({"id": webhook, "removed": True})
        return
    console.print(f"{webhook} is removed.")


def deliveries_command(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 20,
    status: Annotated[
        Literal["pending", "delivered", "failed"] | None, typer.Option(help="In this state only.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The latest deliveries, the newest first."""
    settings = load_settings()
    with transaction(engine_of(settings.dsn, "cli")) as connection:
        rows = list_deliveries(connection, limit, status)
    if as_json:
        print_json(rows)
        return
    out = table("delivery", "state", "tries", "answered", "error", wrap=("error",))
    for row in rows:
        answered = str(row["answered"] or "")
        out.add_row(str(row["id"]), state(row["status"]), str(row["attempt"]), answered, short(row["error"], 200))
    console.print(out if rows else "Nothing was delivered yet.")


def replay_command(delivery: Annotated[UUID, typer.Argument(help="Its id.")], as_json: AsJson = False) -> None:
    """Send a delivery once more, with the same webhook-id."""
    settings = load_settings()
    with transaction(engine_of(settings.dsn, "cli")) as connection:
        replay(connection, delivery)
    if as_json:
        print_json({"id": delivery, "status": "pending"})
        return
    console.print(f"{delivery} is sent again.")
