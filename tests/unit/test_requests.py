from __future__ import annotations

import tomllib
from typing import Any

import pytest

from db.errors import InvalidRequest
from db.registry import Registry, parse_registry
from db.settings import Settings
from scheduler.requests import check_request, parse_attachments, parse_options
from tests.conftest import SCRIPTED


@pytest.fixture(scope="module")
def registry() -> Registry:
    return parse_registry(tomllib.loads(SCRIPTED)).restricted_to("demo")


def check(registry: Registry, **given: Any) -> str:
    asked: dict[str, Any] = {"request": "", "capability": None, "options": parse_options({}), "media_types": []}
    plan = check_request(registry, Settings(max_request_chars=100), **{**asked, **given})
    assert plan is not None
    return plan.steps[0].capability


def test_a_text_without_a_capability_is_text_generation(registry: Registry) -> None:
    assert check(registry, request="hello") == "text-generation"


def test_a_picture_fits_a_capability_that_reads_pictures(registry: Registry) -> None:
    assert check(registry, capability="image-to-text/ocr", media_types=[("a.png", "image/png")]) == "image-to-text/ocr"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {"request": "x", "capability": "mind-reading"},
            "No capability 'mind-reading'. There are: automatic-speech-recognition",
        ),
        ({"request": "x", "capability": "image-to-text"}, "Did you mean image-to-text/caption or image-to-text/ocr"),
        ({"request": "  "}, "the request is empty"),
        ({"request": "x" * 101}, "BAKEOFF_MAX_REQUEST_CHARS allows 100"),
        ({"capability": "image-to-text/ocr"}, "none is attached; use --attach FILE"),
        ({"capability": "image-to-text/ocr", "media_types": [("a.wav", "audio/wav")]}, "a.wav is audio/wav"),
        ({"request": "x", "media_types": [("a.png", "image/png")]}, "reads no files"),
        ({"request": "x", "media_types": [("a", "text/plain")] * 17}, "BAKEOFF_MAX_ATTACHMENTS allows 16"),
        ({"request": "x", "options": parse_options({"models": ["reader-a"]})}, "use: alpha, beta, gamma"),
        ({"request": "x", "options": parse_options({"judge": "nobody"})}, "there are: longest"),
        ({"request": "x", "options": parse_options({"params": {"a": "x" * 30_000}})}, "BAKEOFF_MAX_OPTIONS_BYTES"),
    ],
)
def test_what_cannot_run_is_refused_with_the_way_out(registry: Registry, given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(registry, **given)

    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"modles": ["a"]}, "options.modles is not an option; there are: candidates, models"),
        ({"candidates": 0}, "options.candidates = 0"),
        ({"models": "alpha"}, 'options.models = "alpha"'),
    ],
)
def test_options_are_checked_by_name_and_value(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_options(options)

    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    "wrong", ["text", {"sha256": "abc"}, {"name": "a"}, {"sha256": "0" * 64, "path": "/etc/passwd"}]
)
def test_an_attachment_is_a_reference_to_a_stored_file(wrong: Any) -> None:
    with pytest.raises(InvalidRequest, match="attachments: "):
        parse_attachments([wrong])


def test_a_quorum_that_can_never_be_met_is_refused(registry: Registry) -> None:
    check(registry, request="x", options=parse_options({"quorum": 3}))
    check(registry, request="x", options=parse_options({"quorum": 2, "models": ["alpha", "beta"]}))
    for options in ({"quorum": 4}, {"quorum": 2, "candidates": 1}, {"quorum": 2, "models": ["alpha"]}):
        with pytest.raises(InvalidRequest, match="can never be met"):
            check(registry, request="x", options=parse_options(options))
