"""The page about the API names every address, error and setting that there is; the schema has an example for each body."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from db.settings import Settings
from scheduler.api import problems
from scheduler.api.app import make_app

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text()


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    app = make_app(Settings(database_url="postgresql://nobody@127.0.0.1:1/none"))
    document: dict[str, Any] = app.openapi()
    return document


def test_every_address_is_on_the_page(schema: dict[str, Any]) -> None:
    named = set(re.findall(r"`?(GET|POST) (/[^`, ]+)`?", PAGE))
    served = {(method.upper(), path) for path, methods in schema["paths"].items() for method in methods}

    assert served == {(method, path) for method, path in named if path in schema["paths"]}


def test_every_error_of_http_is_on_the_page() -> None:
    own = [kind for _, kind in inspect.getmembers(problems, inspect.isclass) if issubclass(kind, problems.ApiError)]

    for code in [kind.code for kind in own if kind is not problems.ApiError] + list(problems.CODES.values()):
        assert f"`{code}`" in PAGE


def test_every_setting_of_the_api_that_the_page_names_exists() -> None:
    named = set(re.findall(r"BAKEOFF_(API|WEBHOOK|MAX)(_[A-Z_]+)", PAGE))

    assert named
    assert {f"{family}{rest}".lower() for family, rest in named} <= set(Settings.model_fields)


def test_every_body_has_an_example_and_every_answer_a_problem(schema: dict[str, Any]) -> None:
    for methods in schema["paths"].values():
        for operation in methods.values():
            assert "application/problem+json" in operation["responses"]["default"]["content"]
            body = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if body is not None:
                name = body["schema"]["$ref"].rpartition("/")[2]
                assert schema["components"]["schemas"][name]["examples"]
