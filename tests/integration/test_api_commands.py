"""`bakeoff keys` and `bakeoff webhooks`, as people and programs read them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from db.errors import BakeoffError, InvalidRequest, NotFound
from db.settings import load_settings
from scheduler.cli import app
from tests.conftest import Installation

pytestmark = pytest.mark.integration

Run = Callable[..., str]


@pytest.fixture
def run(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """A command in this process: what it prints on standard output."""
    for name, value in {**installation.environment, "BAKEOFF_WEBHOOK_HOSTS": "hooks.example.com"}.items():
        if name.startswith("BAKEOFF_"):
            monkeypatch.setenv(name, value)
    load_settings.cache_clear()

    def command(*words: str) -> str:
        done = CliRunner().invoke(app, list(words))
        if isinstance(done.exception, BakeoffError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.stdout

    yield command
    load_settings.cache_clear()


def test_a_key_is_shown_once_listed_without_it_and_revoked(run: Run) -> None:
    key = run("keys", "create", "--scope", "submit", "--scope", "read", "--source", "shop").strip()
    other = json.loads(run("keys", "create", "--scope", "admin", "--name", "boss", "--json"))

    listed = run("keys", "list")
    assert key.startswith("bakeoff_")
    assert "boss" in listed
    assert key not in listed
    assert key[len("bakeoff_") + 33 :] not in run("keys", "list", "--json")
    assert "boss" in run("keys", "revoke", other["id"][:13])
    rows = {row["name"]: row for row in json.loads(run("keys", "list", "--json"))}
    assert rows["boss"]["revoked_at"]
    assert (rows["shop submit read"]["revoked_at"], rows["shop submit read"]["scopes"]) == (None, ["submit", "read"])
    assert json.loads(run("keys", "revoke", "boss", "--json"))["name"] == "boss"  # again: nothing changes


def test_what_cannot_be_revoked_is_said(run: Run) -> None:
    for _ in range(2):
        run("keys", "create", "--scope", "read", "--name", "twin")

    with pytest.raises(NotFound, match="bakeoff keys list"):
        run("keys", "revoke", "nobody")
    with pytest.raises(InvalidRequest, match="several keys"):
        run("keys", "revoke", "twin")
    with pytest.raises(InvalidRequest, match="name"):
        run("keys", "create", "--scope", "read", "--name", "a\nb")


def test_a_webhook_is_added_for_an_allowed_host_listed_and_removed(run: Run) -> None:
    secret = run("webhooks", "add", "https://hooks.example.com/a", "--source", "shop").strip()
    with pytest.raises(InvalidRequest, match="BAKEOFF_WEBHOOK_HOSTS"):
        run("webhooks", "add", "https://evil.example/")

    (row,) = json.loads(run("webhooks", "list", "--json"))
    assert secret.startswith("whsec_")
    assert (row["url"], row["source"], row["stopped_at"]) == ("https://hooks.example.com/a", "shop", None)
    assert "https://hooks" in run("webhooks", "list")
    assert json.loads(run("webhooks", "deliveries", "--json")) == []
    assert "Nothing was delivered yet" in run("webhooks", "deliveries")
    run("webhooks", "remove", row["id"])
    assert json.loads(run("webhooks", "list", "--json")) == []
    with pytest.raises(NotFound):
        run("webhooks", "remove", row["id"])
    with pytest.raises(NotFound):
        run("webhooks", "replay", str(uuid4()))
