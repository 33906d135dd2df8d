"""faster-whisper: OpenAI's Whisper on CTranslate2, from a folder of converted weights."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from db.errors import WeightsError
from worker.backends import BadInput, Input, OneByOne, Output
from worker.backends.engine import import_engine
from worker.media import SAMPLE_RATE, decode_audio, only_file
from worker.params import Params, checked_params

if TYPE_CHECKING:
    from db.registry import ModelEntry
    from worker.backends import Place


class FasterWhisperParams(Params):
    """How it decodes."""

    compute_type: Literal["int8", "int8_float32", "int8_float16", "float32", "float16", "bfloat16"] = "int8"
    beam_size: int = Field(default=5, ge=1, le=20)
    language: str | None = Field(default=None, pattern=r"^[a-z]{2,3}$")  # empty: heard from the recording
    vad_filter: bool = False  # leave out what nobody says; its own small network


class FasterWhisper(OneByOne):
    """The package `faster-whisper`."""

    def __init__(self, model: ModelEntry, place: Place) -> None:
        super().__init__(model, place)
        self.params = checked_params(model, FasterWhisperParams)
        self._model: Any = None

    def load(self) -> None:
        """Build the engine and show it a tiny input. Raises `WeightsError` where something is not installed."""
        import numpy as np

        if self.place.weights is None:
            raise WeightsError(
                f"Model {self.model.name} needs a folder of CTranslate2 weights: give models.{self.model.name}.source."
            )
        package = import_engine(self.model, "faster_whisper")
        logging.getLogger("faster_whisper").setLevel(logging.ERROR)
        device, _, index = self.place.device.partition(":")
        try:
            self._model = package.WhisperModel(
                str(self.place.weights),
                device=device,
                device_index=int(index or 0),
                compute_type=self.params.compute_type,
                cpu_threads=self.place.threads,
                num_workers=1,
                local_files_only=True,
            )
        except (RuntimeError, ValueError, OSError) as error:
            reason = " ".join(str(error).split())
            raise WeightsError(f"Model {self.model.name} cannot be loaded from its weights: {reason}.") from None
        self._hear(np.zeros(SAMPLE_RATE, dtype=np.float32), self.params.language)

    def answer(self, item: Input) -> Output:
        """What was said; `options` may name a `language`."""
        language = self._language(item)
        samples = decode_audio(only_file(item, "audio"))
        parts, heard = self._hear(samples, language)
        return Output(
            text=" ".join(part["text"] for part in parts),
            detail={"segments": parts, "language": heard},
            usage={"audio_seconds": round(len(samples) / SAMPLE_RATE, 2)},
        )

    def _language(self, item: Input) -> str | None:
        wanted = item.options.get("language", self.params.language)
        known = self._model.supported_languages
        if wanted is None or wanted in known:
            return None if wanted is None else str(wanted)
        few = ", ".join(known[:8]) + (" ..." if len(known) > 8 else "")
        raise BadInput(f"Model {self.model.name} does not know the language {wanted!r}; it knows: {few}.")

    def _hear(self, samples: Any, language: str | None) -> tuple[list[dict[str, Any]], str]:
        # One temperature: the fall-back to higher ones draws at random, and the same input must give the same text.
        segments, info = self._model.transcribe(
            samples,
            language=language,
            beam_size=self.params.beam_size,
            vad_filter=self.params.vad_filter,
            temperature=0.0,
            condition_on_previous_text=False,
        )
        parts = [
            {
                "text": segment.text.strip(),
                "start": round(segment.start, 2),
                "end": round(segment.end, 2),
                "confidence": round(math.exp(min(0.0, segment.avg_logprob)), 4),
                "no_speech": round(segment.no_speech_prob, 4),
            }
            for segment in segments
        ]
        return parts, str(info.language)
