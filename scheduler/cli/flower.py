"""`bakeoff flower`: Flower, as `bakeoff up` runs it."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from db.errors import SettingsError
from db.settings import load_settings


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("flower")(flower_command)


def flower_command(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5555,
) -> None:
    """Run Flower: read-only, behind a password, with bounded memory. Its user is bakeoff.

    BAKEOFF_FLOWER_PASSWORD is the password; it may come as a file (BAKEOFF_SECRETS).
    """
    from scheduler.local.children import flower_spec

    settings = load_settings()
    if settings.flower_password is None:
        raise SettingsError("BAKEOFF_FLOWER_PASSWORD is not set; Flower shows tasks to nobody without a password.")
    spec = flower_spec(port, settings.flower_password.get_secret_value())
    _ = settings.broker  # says where Redis is missing, before Flower does in its own way
    command = [sys.executable, *spec.command, f"--address={host}"]  # of an option that comes twice the last one counts
    os.execve(command[0], command, {**os.environ, **spec.environment})  # noqa: S606 - it takes this process's place
