"""Chat messages become one request, its files, and what its answer must hold."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from pydantic import TypeAdapter

from db.errors import InvalidRequest, NotFound
from db.registry import parse_registry
from db.settings import Settings
from scheduler.api.messages import Message, expectation, render
from scheduler.api.names import Asked, asked_by
from tests.conftest import SCRIPTED

READ = TypeAdapter(list[Message])


def messages(*said: Any) -> list[Message]:
    return READ.validate_python([{"role": role, "content": content} for role, content in said])


def test_one_message_is_the_request_as_it_stands() -> None:
    rendered = render(messages(("user", "  Say hello.\n")))

    assert (rendered.request, rendered.files) == ("Say hello.", ())


def test_instructions_come_first_and_turns_are_named() -> None:
    rendered = render(
        messages(
            ("system", "Be brief."), ("user", "One?"), ("assistant", "1"), ("developer", "In words."), ("user", "Two?")
        )
    )

    assert rendered.request == (
        "Be brief.\n\nIn words.\n\nThe conversation so far:\n\nUser: One?\nAssistant: 1\n\nAnswer this message:\n\nTwo?"
    )


def test_files_of_all_messages_come_along_in_order() -> None:
    data = [base64.b64encode(content).decode() for content in (b"first", b"second")]
    rendered = render(
        messages(
            ("user", [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data[0]}"}}]),
            ("assistant", "I see it."),
            (
                "user",
                [{"type": "text", "text": "And this?"}, {"type": "input_audio", "input_audio": {"data": data[1]}}],
            ),
        )
    )

    assert [(file.name, file.data) for file in rendered.files] == [("file-1", b"first"), ("file-2", b"second")]
    assert rendered.request.endswith("And this?")


@pytest.mark.parametrize(
    "url",
    ["https://example.com/a.png", "http://169.254.169.254/", "file:///etc/passwd", "data:image/png,plain", "",
     "data:image/png;base64,not base64"],
)  # fmt: skip
def test_a_picture_that_is_elsewhere_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest, match=r"data URL|base64"):
        render(messages(("user", [{"type": "image_url", "image_url": {"url": url}}])))


@pytest.mark.parametrize("role", ["system", "assistant", "developer"])
def test_the_last_message_is_the_user_s(role: str) -> None:
    with pytest.raises(InvalidRequest, match="by the user"):
        render(messages(("user", "x"), (role, "y")))


def test_a_response_format_is_a_hard_check() -> None:
    schema = {"type": "object"}

    assert expectation(None) is None
    assert expectation({"type": "text"}) is None
    assert expectation({"type": "json_object"}) == {"checks": [{"check": "json"}]}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert expectation(wanted) == {"checks": [{"check": "json", "schema": schema}]}
    for unknown in ({"type": "xml"}, {"type": "json_schema"}, {"type": "json_schema", "json_schema": {"schema": 7}}):
        with pytest.raises(InvalidRequest, match="response_format"):
            expectation(unknown)


def test_a_name_says_who_is_asked(tmp_path: Any) -> None:
    import tomllib

    path = tmp_path / "models.toml"
    path.write_text(SCRIPTED)
    settings = Settings(models_file=path, profile="demo")
    registry = parse_registry(tomllib.loads(SCRIPTED))

    assert asked_by(settings, "bakeoff") == asked_by(settings, "bakeoff/demo") == Asked()
    assert asked_by(settings, "bakeoff/longest") == Asked(judge="longest")
    assert asked_by(settings, "alpha") == Asked(model=registry.models["alpha"])
    for unknown in ("gpt-9", "bakeoff/", "bakeoff/nobody", "longest", "/alpha"):
        with pytest.raises(NotFound, match="GET /v1/models"):
            asked_by(settings, unknown)
