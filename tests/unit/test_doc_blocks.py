"""Blocks of the documentation that need no server: each says what it is, and data is data that our own readers take."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

import pytest
import yaml

from db.registry import parse_registry
from scheduler.curation.recipe import parse_recipe
from tests.conftest import SCRIPTED
from tests.docs.blocks import ROOT, RUN, SHOWN, Block, blocks, pages

#: Blocks that no test runs; each says why in its first line. A longer list wants a better test instead.
NOT_RUN_AT_MOST = 25


def test_every_block_says_what_it_is() -> None:
    known = RUN | SHOWN
    unknown = [f"{one}: {one.language!r}" for one in blocks() if one.language not in known]

    assert not unknown, f"write ```text, or one of {sorted(RUN)}: {unknown}"


def test_no_block_hides_by_being_indented() -> None:
    indented = [str(page) for page in pages() if re.search(r"^[ \t]+```", page.read_text(), re.MULTILINE)]

    assert not indented


def test_few_blocks_are_not_run_and_each_says_why() -> None:
    left_out = [block for block in blocks(*RUN) if block.not_run]

    assert len(left_out) <= NOT_RUN_AT_MOST
    assert all(len(block.not_run.split()) >= 2 for block in left_out)


@pytest.mark.parametrize("block", [one for one in blocks("json") if not one.not_run], ids=str)
def test_json_is_json_or_a_document_per_line(block: Block) -> None:
    try:
        json.loads(block.text)
    except json.JSONDecodeError:
        for line in block.text.splitlines():
            json.loads(line)


@pytest.mark.parametrize("block", [one for one in blocks("yaml") if not one.not_run], ids=str)
def test_yaml_is_yaml(block: Block) -> None:
    assert any(document is not None for document in yaml.safe_load_all(block.text))


@pytest.mark.parametrize("block", [one for one in blocks("toml") if not one.not_run], ids=str)
def test_toml_is_read_by_what_reads_it(block: Block) -> None:
    tables = tomllib.loads(block.text)
    if "stages" in tables:
        parse_recipe({"name": "page", **_recipe(tables)})
        return

    ours = merged(tomllib.loads((ROOT / "models.toml").read_text()), tomllib.loads(SCRIPTED))
    registry = parse_registry(merged(ours, tables))

    assert set(tables.get("models", {})) <= set(registry.models)


def merged(registry: dict[str, Any], tables: dict[str, Any]) -> dict[str, Any]:
    """A registry with the tables of a page put into it: its own entries stay, where a page says nothing of them."""
    for kind, entries in tables.items():
        registry.setdefault(kind, {})
        for name, entry in entries.items():
            registry[kind][name] = {**registry[kind].get(name, {}), **entry}
    return registry


def _recipe(tables: dict[str, Any]) -> dict[str, Any]:
    own = {key: tables[key] for key in ("name", "stages", "in_flight", "input") if key in tables}
    return {**own, "tables": {key: value for key, value in tables.items() if key not in own}}
