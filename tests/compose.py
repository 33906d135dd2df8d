"""`docker/compose.yaml` as Docker would read it: variables put in, anchors merged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer
import yaml

from db.secrets import VARIABLE as SECRETS
from db.settings import Settings

CHECKOUT = Path(__file__).resolve().parents[1]
DOCKER = CHECKOUT / "docker"
TEXT = (DOCKER / "compose.yaml").read_text()
SETTINGS = {f"BAKEOFF_{name.upper()}" for name in Settings.model_fields} | {SECRETS}
VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\})")


def interpolated(text: str, variables: Mapping[str, str] | None = None) -> str:
    """`${NAME:-default}` and `$$` of a compose file; a variable without a default has to be given."""

    def value(match: re.Match[str]) -> str:
        if match["name"] is None:
            return "$"
        given = (variables or {}).get(match["name"]) or match["default"]
        assert given is not None, f"{match[0]} has no value and no default"
        return given

    return VARIABLE.sub(value, text)


COMPOSE: dict[str, Any] = yaml.safe_load(interpolated(TEXT))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}


def parsed(command: list[str]) -> typer.Context:
    """`bakeoff ...` taken apart as the command itself does it; a word that it does not know is an error."""
    from typer.main import get_command

    from scheduler.cli import app

    assert command[0] == "bakeoff", command
    words = command[1:]
    found: Any = get_command(app)
    context = typer.Context(found, info_name="bakeoff")
    while hasattr(found, "commands") or hasattr(found, "list_commands"):
        name, words = words[0], words[1:]
        found = found.get_command(context, name)
        assert found is not None, f"bakeoff has no command {name!r}: {' '.join(command)}"
    return found.make_context(command[-1], list(words), parent=context)
