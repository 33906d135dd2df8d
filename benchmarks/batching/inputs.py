"""What the models are given: texts and prompts of varied length, and recordings; no two of them are equal."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from benchmarks.batching.samples import Sample
from benchmarks.demo.recordings import UTTERANCES, make_recordings
from benchmarks.demo.sentences import sentence
from scheduler.evaluation.inputs import disturb

if TYPE_CHECKING:
    from pathlib import Path

_LONGEST_TEXT = 6  # sentences, of 8 to 20 tokens
_LONGEST_PROMPT = 2
_ORDERS = ("Shorten this.", "What is this about?", "Reply politely to this.", "Say it in other words.")
_RATE = 16_000  # Hz
_SEED = 1


def make_samples(capability: str, folder: Path, *, count: int, cache: Path) -> list[Sample]:
    """`count` inputs, the same ones each time. Recordings are written to `folder`.

    Raises `WeightsError` where the recordings cannot be fetched.
    """
    random = Random(f"{capability} {_SEED}")
    if capability == "automatic-speech-recognition":
        return _recordings(folder, count, cache)
    if capability == "text-generation":
        return [Sample(text=f"{random.choice(_ORDERS)}\n\n{_text(random, _LONGEST_PROMPT, n)}") for n in range(count)]
    return [Sample(text=_text(random, _LONGEST_TEXT, n)) for n in range(count)]


def _text(random: Random, longest: int, number: int) -> str:
    return " ".join([f"No. {number}.", *(sentence(random) for _ in range(random.randint(1, longest)))])


def _recordings(folder: Path, count: int, cache: Path) -> list[Sample]:
    """The demo's utterances in turn, each time with another noise, so that no two files hold the same bytes."""
    originals = make_recordings(folder / "originals", seed=_SEED, count=len(UTTERANCES), cache=cache)
    samples = []
    for number in range(count):
        path = folder / f"recording-{number}.wav"
        if not path.exists():
            sound, _ = soundfile.read(originals[number % len(originals)].path, dtype="float64")
            noisy = disturb(sound, "hiss 20 dB", np.random.default_rng([_SEED, number]))
            soundfile.write(path, noisy, _RATE, "PCM_16")
        samples.append(Sample(path=str(path)))
    return samples
