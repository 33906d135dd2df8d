"""SECURITY.md names a test for each claim, and every exception from a security rule a reason."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

from db.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "SECURITY.md").read_text()
CODE = ("db", "worker", "scheduler", "migrations", "client", "docker", "benchmarks", "examples", "docs")
EXCEPTION = re.compile(r"#\s*noqa:[^#]*\bS\d{3}\b")
WITH_REASON = re.compile(r"#\s*noqa: (?:[A-Z]+\d+(?:, )?)+\s+(?:- |\()\w")


def test_every_claim_names_a_test_that_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
    assert len(named) > 40
    for file, test in named:
        tree = ast.parse((ROOT / file).read_text())
        assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, f"{file}::{test}"


def test_every_row_of_a_table_of_claims_names_a_test() -> None:
    lines = PAGE.splitlines()
    for number, line in enumerate(lines):
        if line == "| claim | shown by |":
            for row in lines[number + 2 :]:
                if not row.startswith("|"):
                    break
                assert "::test_" in row, row


def test_settings_that_it_names_exist() -> None:
    known = {f"BAKEOFF_{name.upper()}" for name in Settings.model_fields}

    assert set(re.findall(r"BAKEOFF_[A-Z_]+", PAGE)) <= known


def test_the_security_rules_are_on() -> None:
    lint = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]

    assert "S" in lint["select"]
    assert not [rule for rule in lint["ignore"] if re.fullmatch(r"S\d*", rule)]
    for place, rules in lint["per-file-ignores"].items():
        if not place.startswith(("tests/", "benchmarks/")):
            assert not [rule for rule in rules if re.fullmatch(r"S\d*", rule)], place


def test_each_exception_from_a_security_rule_says_why() -> None:
    for folder in CODE:
        for path in (ROOT / folder).rglob("*.py"):
            if ".venv" in path.parts:
                continue
            for number, line in enumerate(path.read_text().splitlines(), start=1):
                if EXCEPTION.search(line):
                    assert WITH_REASON.search(line), f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
