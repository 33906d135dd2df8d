from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from db.errors import RegistryError
from db.registry import ModelEntry, parse_registry, read_registry
from db.sources import FolderSource, HubSource, PackageSource, Source

MODELS_FILE = Path(__file__).resolve().parents[2] / "models.toml"


def tables(**model: Any) -> dict[str, Any]:
    return {
        "models": {"m": {"capability": "text-generation", "backend": "scripted", **model}},
        "capabilities": {"text-generation": {"input": "text", "instruction": "Answer.", "judge": "j"}},
        "judges": {"j": {"method": "scripted"}},
        "profiles": {"demo": {"models": ["m"]}},
    }


def test_the_shipped_registry_is_sound_for_every_profile() -> None:
    registry = read_registry(MODELS_FILE)

    assert {"demo", "cpu", "gpu"} <= set(registry.profiles)
    for profile in registry.profiles:
        restricted = registry.restricted_to(profile)
        for model in restricted.models.values():
            judge = restricted.judges[restricted.capabilities[model.capability].judge]
            assert judge.model is None or judge.model in restricted.models


def test_a_source_is_known_by_its_key() -> None:
    registry = parse_registry(tables(source={"hub": "openai/whisper-small", "revision": "abc"}))

    assert registry.models["m"].source == HubSource(hub="openai/whisper-small", revision="abc")


def test_weights_from_packages_are_pinned_file_by_file() -> None:
    source = {"packages": ["p==1.0"], "files": {"a.bin": ["p/a.bin"]}, "sha256": {}}

    with pytest.raises(RegistryError, match="every file needs its sha256"):
        parse_registry(tables(source=source))


@pytest.mark.parametrize("pin", ["p", "p>=1", "p==1; os_name=='nt'", "-e .", "p==1 --index-url=http://x"])
def test_a_package_that_is_not_an_exact_pin_is_refused(pin: str) -> None:
    source = {"packages": [pin], "files": {"a": ["a"]}, "sha256": {"a": "0" * 64}}

    with pytest.raises(RegistryError, match=r"models\.m\.source"):
        parse_registry(tables(source=source))


def test_an_unknown_key_is_named_with_its_table() -> None:
    with pytest.raises(RegistryError, match=r"models\.m\.timeuot"):
        parse_registry(tables(timeuot=3))


def test_a_wrong_value_is_shown() -> None:
    with pytest.raises(RegistryError, match=r"models\.m\.max_batch.*given: 0"):
        parse_registry(tables(max_batch=0))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t["models"]["m"].update(capability="image-to-text"), "has no table .capabilities"),
        (lambda t: t["capabilities"]["text-generation"].update(judge="nobody"), "has no table .judges"),
        (lambda t: t["judges"]["j"].update(model="nobody"), "has no table .models"),
        (lambda t: t["profiles"]["demo"].update(models=["nobody"]), "has no table .models"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(change: Any, sentence: str) -> None:
    wrong = tables()
    change(wrong)

    with pytest.raises(RegistryError, match=sentence):
        parse_registry(wrong)


def test_a_profile_keeps_its_models_and_the_one_that_judges_them() -> None:
    wide = tables()
    wide["models"]["other"] = {"capability": "text-generation", "backend": "scripted"}
    wide["models"]["referee"] = {"capability": "text-generation", "backend": "scripted"}
    wide["judges"]["r"] = {"method": "scripted", "model": "referee"}
    wide["judges"]["o"] = {"method": "scripted", "model": "other"}
    wide["profiles"]["strict"] = {"models": ["m"], "judge": "r"}

    restricted = parse_registry(wide).restricted_to("strict")

    assert set(restricted.models) == {"m", "referee"}
    assert set(restricted.judges) == {"j", "r"}
    assert restricted.capabilities["text-generation"].judge == "r"


def test_an_unknown_profile_names_the_known_ones() -> None:
    with pytest.raises(RegistryError, match="there are: demo"):
        parse_registry(tables()).restricted_to("huge")


def test_a_missing_file_says_how_to_name_another(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="BAKEOFF_MODELS_FILE"):
        read_registry(tmp_path / "none.toml")


def test_a_package_source_prints_its_pins() -> None:
    source = PackageSource(packages=["a==1", "b==2"], files={"f": ["x"]}, sha256={"f": "0" * 64})

    assert str(source) == "package:a==1+b==2"


def test_what_judges_ask_is_known() -> None:
    assert read_registry(MODELS_FILE).restricted_to("demo").asked_by_judges() == {"smollm2-135m"}


def test_a_deterministic_model_caches_unless_it_is_told_not_to() -> None:
    def entry(**more: object) -> ModelEntry:
        return ModelEntry.model_validate({"name": "m", "capability": "text-generation", "backend": "scripted", **more})

    assert not entry().caches
    assert entry(deterministic=True).caches
    assert not entry(deterministic=True, cache=False).caches
    assert entry(cache=True).caches


@pytest.mark.parametrize(
    ("source", "caches"),
    [
        (FolderSource(folder=Path("/weights")), False),
        (FolderSource(folder=Path("/weights"), sha256={"model.safetensors": "0" * 64}), True),
        (HubSource(hub="someone/model"), False),
        (HubSource(hub="someone/model", revision="a" * 40), True),
    ],
)
def test_weights_that_can_change_under_their_name_are_not_cached(source: Source, *, caches: bool) -> None:
    given: dict[str, Any] = {"name": "m", "capability": "text-generation", "backend": "scripted", "deterministic": True}

    assert ModelEntry(**given, source=source).caches is caches
    assert ModelEntry(**given, source=source, revision="2026-11").caches


def test_the_exact_revision_follows_what_changes_an_output_and_nothing_else() -> None:
    def revision(**more: object) -> str:
        return ModelEntry.model_validate(
            {"name": "m", "capability": "text-generation", "backend": "scripted", **more}
        ).exact_revision

    assert revision() == revision(priority=3, max_batch=64, memory_mb=1, device="cuda:1")
    assert len({revision(), revision(params={"a": 1}), revision(dtype="float16"), revision(backend="openai"),
                revision(revision="2")}) == 5  # fmt: skip
    assert revision(revision="2").startswith("2+")


def test_a_judge_does_not_judge_the_words_of_the_model_that_it_asks_against_others() -> None:
    # given a profile whose judge asks a text-generation model, which is a candidate there with others, or alone
    registry = read_registry(MODELS_FILE)

    # then there the capability's own judge stays
    cpu = registry.restricted_to("cpu").capabilities
    assert cpu["text-generation"].judge == "consensus"
    assert cpu["image-to-text/ocr"].judge == "qwen-nll"


def test_a_model_that_only_a_role_asks_is_no_candidate() -> None:
    demo = read_registry(MODELS_FILE).restricted_to("demo")

    assert demo.asked_only == {"minilm-l6"}
    assert demo.candidates_for("feature-extraction") == []
    assert "feature-extraction" not in demo.served
    assert [model.name for model in demo.candidates_for("text-generation")] == ["smollm2-135m"]
