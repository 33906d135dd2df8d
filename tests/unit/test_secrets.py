"""Secrets that come as files."""

from __future__ import annotations

from pathlib import Path

import pytest

from db.errors import SettingsError
from db.secrets import secret_of
from db.settings import load_settings, unknown_variables


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("DATABASE_URL", "REDIS_URL", "DATABASE_PASSWORD", "REDIS_PASSWORD"):
        monkeypatch.delenv(f"BAKEOFF_{name}", raising=False)
    monkeypatch.setenv("BAKEOFF_SECRETS", str(tmp_path))
    load_settings.cache_clear()
    return tmp_path


def test_a_url_may_come_as_a_file(secrets: Path) -> None:
    (secrets / "bakeoff_database_url").write_text("postgresql://u:p@host/d\n")

    assert load_settings().dsn == "postgresql://u:p@host/d"


def test_a_password_of_a_file_goes_into_the_url_that_has_none(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAKEOFF_DATABASE_URL", "postgresql://bakeoff@postgres:5432/bakeoff?sslmode=require")
    monkeypatch.setenv("BAKEOFF_REDIS_URL", "redis://redis:6379/0")
    (secrets / "bakeoff_database_password").write_text("a/b@c:d é%\n")
    (secrets / "bakeoff_redis_password").write_text("p@ss")

    settings = load_settings()

    assert settings.dsn == "postgresql://bakeoff:a%2Fb%40c%3Ad%20%C3%A9%25@postgres:5432/bakeoff?sslmode=require"
    assert settings.broker == "redis://:p%40ss@redis:6379/0"
    assert "p@ss" not in repr(settings)


def test_a_variable_wins_over_its_file(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (secrets / "bakeoff_redis_url").write_text("redis://file")
    monkeypatch.setenv("BAKEOFF_REDIS_URL", "redis://variable")

    assert load_settings().broker == "redis://variable"


@pytest.mark.parametrize("url", ["", "postgresql://u:p@host/d"])
def test_a_password_is_said_once_and_with_its_url(secrets: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    if url:
        monkeypatch.setenv("BAKEOFF_DATABASE_URL", url)
    (secrets / "bakeoff_database_password").write_text("hidden")

    with pytest.raises(SettingsError, match="BAKEOFF_DATABASE_URL") as refused:
        load_settings()
    assert "hidden" not in str(refused.value)


def test_a_file_that_no_setting_reads_is_noticed(secrets: Path) -> None:
    (secrets / "bakeoff_database_passwd").write_text("x")
    (secrets / "of_somebody_else").write_text("x")

    assert [name for name in unknown_variables() if name.startswith("BAKEOFF_DATABASE")] == ["BAKEOFF_DATABASE_PASSWD"]


def test_a_folder_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAKEOFF_SECRETS", "/nowhere/secrets")
    load_settings.cache_clear()

    with pytest.raises(SettingsError, match=r"BAKEOFF_SECRETS names /nowhere/secrets"):
        load_settings()


def test_a_key_of_a_models_server_may_be_a_file(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert secret_of("OPENAI_API_KEY") is None

    (secrets / "openai_api_key").write_text("sk-1\n")
    assert secret_of("OPENAI_API_KEY") == "sk-1"
