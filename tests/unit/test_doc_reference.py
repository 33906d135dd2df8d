"""The reference is made from the code: nothing that users can say is missing, and nothing there is without a meaning."""

from __future__ import annotations

import re
from typing import Any

import pytest
import typer.main
from pydantic import SecretStr

from db.registry import ModelEntry
from db.settings import Settings
from docs.generator import commands, http, registry, settings
from docs.generator.text import cell, comments_of, kind_of
from scheduler.api.app import make_app
from scheduler.cli import app
from scheduler.curation.options import STAGES

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def command_page() -> str:
    return commands.page()


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    nowhere = Settings(database_url=SecretStr("postgresql://nobody@127.0.0.1:1/none"))
    found: dict[str, Any] = make_app(nowhere).openapi()
    return found


def test_every_command_has_a_section_that_says_what_it_does(command_page: str) -> None:
    sections = command_page.split("\n## ")[1:]

    names = [section.partition("\n")[0] for section in sections]
    assert {"bakeoff submit", "bakeoff up", "bakeoff models pull", "bakeoff curate run", "bakeoff models"} <= set(names)
    assert len(names) == len(set(names)) == len(list(commands.walk("bakeoff", typer.main.get_command(app))))
    assert all(re.search(r"```\n\n\w", section) for section in sections)


def test_every_option_says_what_it_means(command_page: str) -> None:
    rows = re.findall(r"^\| (`-[^|]*) \|([^\n]*)\|$", command_page, re.MULTILINE)

    assert len(rows) > 100
    assert not [name for name, meaning in rows if not meaning.strip()]


def test_every_setting_stands_there_once_with_its_reason() -> None:
    rows = dict(re.findall(r"^\| `(BAKEOFF_\w+)` \|(.*)\|$", settings.page(), re.MULTILINE))

    assert set(rows) == {f"BAKEOFF_{name.upper()}" for name in Settings.model_fields}
    assert all(len(row.rsplit("|", 1)[-1].split()) >= 3 for row in rows.values())


def test_no_default_of_this_machine_is_printed() -> None:
    assert "/home/" not in settings.page()
    assert "/root/" not in settings.page()


def test_every_path_and_schema_of_the_api_stands_there(document: dict[str, Any]) -> None:
    page = http.page(document)

    for path in document["paths"]:
        assert path.replace("{", "\\{") in page
    links = set(re.findall(r"\]\(#([a-z0-9_-]+)\)", page))
    assert links <= {heading.lower() for heading in re.findall(r"^### (\S+)$", page, re.MULTILINE)}


def test_every_key_of_the_registry_and_every_stage_stand_there() -> None:
    page, recipe = registry.page(), registry.recipe_page()

    assert all(f"| `{key}` |" in page for key in ModelEntry.model_fields if key != "name")
    assert "lower is chosen first by the `priority` selector" in page  # what stands beside the field in the code
    assert all(f"## [{name}]" in recipe for name in STAGES)


def test_a_comment_beside_a_field_is_its_meaning() -> None:
    assert comments_of(ModelEntry)["max_batch"] == "inputs of one message, and of one batch at most"


def test_types_are_words() -> None:
    assert kind_of(int | None) == "whole number"
    assert kind_of(tuple[str, ...]) == "list of text"
    assert cell("a | b\nc") == "a \\| b c"
