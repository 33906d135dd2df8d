"""Names and paths of callers are words: none leads a reader or a writer out of its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from db.blobs import BlobStore, digest_of
from db.errors import InvalidRequest, WeightsError
from db.settings import load_settings
from scheduler.requests import parse_attachments
from worker.app import configuration
from worker.weights import _inside

OUT = [
    "../../etc/passwd",
    "/etc/passwd",
    "..\\..\\boot.ini",
    "%2e%2e%2f",
    "A" * 64,
    "0" * 64 + "\n",
    "0" * 63,
    "file:///x",
]


@pytest.mark.parametrize("name", OUT)
def test_a_file_is_named_by_its_digest_and_by_nothing_else(name: str) -> None:
    """At the door and, for a row that was inserted with SQL, at pick-up."""
    with pytest.raises(InvalidRequest, match="sha256"):
        parse_attachments([{"sha256": name}])


def test_what_a_file_is_called_is_never_a_path(tmp_path: Path) -> None:
    (reference,) = parse_attachments([{"sha256": digest_of(b"x"), "name": "../../../escaped"}])
    store = BlobStore(str(tmp_path / "blobs"))

    digest = store.put(b"x")

    assert reference.sha256 == digest
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [
        tmp_path / "blobs" / digest[:2] / digest[2:4] / digest
    ]


@pytest.mark.parametrize("name", ["../model.safetensors", "/model.safetensors", "a/../../b"])
def test_a_registry_s_files_stay_in_their_folder(name: str) -> None:
    with pytest.raises(WeightsError, match="points outside"):
        _inside(name)


def test_messages_are_json_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAKEOFF_REDIS_URL", "redis://localhost")
    load_settings.cache_clear()

    said = configuration()

    load_settings.cache_clear()
    assert (said["accept_content"], said["task_serializer"], said["result_serializer"]) == (["json"], "json", "json")
