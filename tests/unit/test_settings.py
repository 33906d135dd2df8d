from __future__ import annotations

from pathlib import Path

import pytest

from db.errors import SettingsError, Unreachable
from db.settings import Settings, find_home, load_settings, unknown_variables
from scheduler.limits import check_limits, hard_limit, largest_message


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    load_settings.cache_clear()
    for name in ("BAKEOFF_DATABASE_URL", "BAKEOFF_REDIS_URL", "BAKEOFF_HOME", "BAKEOFF_MODELS_FILE"):
        monkeypatch.delenv(name, raising=False)


def test_a_wrong_value_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAKEOFF_CANDIDATES", "many")

    with pytest.raises(SettingsError, match=r"BAKEOFF_CANDIDATES='many'"):
        load_settings()


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("BAKEOFF_MESSAGE_LIMIT", "5000", "BAKEOFF_VISIBILITY_TIMEOUT"),
        ("BAKEOFF_VISIBILITY_TIMEOUT", "9000", "BAKEOFF_RESULT_EXPIRES"),
        ("BAKEOFF_HEARTBEAT_SECONDS", "20", "BAKEOFF_WORKER_TIMEOUT"),
        ("BAKEOFF_CANDIDATES", "9", "BAKEOFF_MAX_CANDIDATES"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(variable, value)

    with pytest.raises(SettingsError, match=sentence):
        load_settings()


def test_secrets_stay_out_of_what_is_printed() -> None:
    settings = Settings(database_url="postgresql://u:hidden@host/d")

    assert "hidden" not in repr(settings)
    assert settings.dsn == "postgresql://u:hidden@host/d"


def test_nothing_running_says_how_to_start(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="bakeoff up"):
        _ = Settings(home=tmp_path).dsn


def test_the_home_is_found_from_a_folder_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".bakeoff").mkdir()
    (tmp_path / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "er")

    assert find_home() == tmp_path / ".bakeoff"


def test_a_variable_that_nothing_reads_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAKEOFF_CANDIDATE", "3")

    assert "BAKEOFF_CANDIDATE" in unknown_variables()


def test_a_child_gets_what_was_set_and_nothing_else() -> None:
    settings = Settings(candidates=2, database_url="postgresql://u:p@h/d")

    assert settings.environment() == {
        "BAKEOFF_CANDIDATES": "2",
        "BAKEOFF_DATABASE_URL": "postgresql://u:p@h/d",
    }


def test_a_model_slower_than_a_message_is_refused_at_start(tmp_path: Path) -> None:
    registry = tmp_path / "models.toml"
    registry.write_text(
        """
        profiles.demo.models = ["m"]
        capabilities.text-generation = { input = "text", instruction = "Answer.", judge = "j" }
        judges.j.method = "scripted"
        models.m = { capability = "text-generation", backend = "scripted", timeout = 500 }
        """
    )

    with pytest.raises(SettingsError, match=r"models\.m\.timeout = 500 s.*BAKEOFF_MESSAGE_LIMIT"):
        check_limits(Settings(models_file=registry))
    assert check_limits(Settings(models_file=registry, message_limit=700)) is None


def test_a_message_carries_what_ends_within_its_limit() -> None:
    settings = Settings(message_limit=600, start_allowance=100)
    model = Settings().registry.models["rapidocr"].model_copy(update={"timeout": 100.0, "max_batch": 8})

    assert largest_message(settings, model) == 4 * 8
    assert hard_limit(settings, model, 9) == 100 + 2 * 100 + 10
