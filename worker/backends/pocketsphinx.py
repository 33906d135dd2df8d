"""PocketSphinx: hidden Markov models and an n-gram grammar, US English, all inside its package.

It is the old way and usually the weakest here, but it errs unlike neural networks do: it never invents a sentence
that nobody said.
"""

from __future__ import annotations

import re
from io import BytesIO
from typing import TYPE_CHECKING, Any

from pydantic import Field

from worker.backends import Input, OneByOne, Output
from worker.backends.engine import import_engine
from worker.media import SAMPLE_RATE, decode_audio, only_file
from worker.params import Params, checked_params

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from db.registry import ModelEntry
    from worker.backends import Place

_NO_WORD = re.compile(r"^(<.*>|\[.*\]|\+\+.*\+\+)$")  # silence and noise, as its dictionary writes them
_VARIANT = re.compile(r"\(\d+\)$")  # "the(2)" is a pronunciation of "the"


class PocketSphinxParams(Params):
    """How long it may think, and where it cuts."""

    max_active: int = Field(default=3000, ge=100, le=100_000)  # sound models per 10 ms; noise costs time, not words
    whole_up_to: float = Field(default=30.0, gt=0, le=600)  # seconds; longer recordings are cut where nobody speaks


class PocketSphinx(OneByOne):
    """The package `pocketsphinx` with its own acoustic model, dictionary and grammar."""

    def __init__(self, model: ModelEntry, place: Place) -> None:
        super().__init__(model, place)
        self.params = checked_params(model, PocketSphinxParams)
        self._package: Any = None
        self._decoder: Any = None

    def load(self) -> None:
        """Build the engine and show it a tiny input. Raises `WeightsError` where something is not installed."""
        import numpy as np

        self._package = import_engine(self.model, "pocketsphinx")
        self._decoder = self._package.Decoder(
            samprate=float(SAMPLE_RATE), loglevel="FATAL", maxhmmpf=self.params.max_active
        )
        self._neutral = self._decoder.get_cmn(update=False)
        tone = np.sin(np.arange(SAMPLE_RATE // 2) * (440 * 2 * np.pi / SAMPLE_RATE))
        self._words((tone * 8000).astype("<i2").tobytes(), 0.0)

    def answer(self, item: Input) -> Output:
        """Words that were said, each with its time in seconds."""
        samples = decode_audio(only_file(item, "audio"))
        words = [word for start, part in self._parts(samples) for word in self._words(part, start)]
        return Output(
            text=" ".join(word["text"] for word in words),
            detail={"segments": words},
            usage={"audio_seconds": round(len(samples) / SAMPLE_RATE, 2)},
        )

    def _parts(self, samples: NDArray[np.float32]) -> Iterator[tuple[float, bytes]]:
        """Start in seconds, and 16-bit samples."""
        import numpy as np

        pcm = (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
        if len(samples) <= self.params.whole_up_to * SAMPLE_RATE:
            yield 0.0, pcm
            return
        for part in self._package.Segmenter(sample_rate=SAMPLE_RATE).segment(BytesIO(pcm)):
            yield part.start_time, part.pcm

    def _words(self, pcm: bytes, start: float) -> list[dict[str, Any]]:
        decoder = self._decoder
        # It adapts to the speaker from one utterance to the next; an answer must not depend on who spoke before.
        decoder.set_cmn(self._neutral)
        decoder.start_utt()
        decoder.process_raw(pcm, full_utt=True)
        decoder.end_utt()
        if decoder.hyp() is None:
            return []
        rate = float(decoder.config["frate"])
        return [
            {
                "text": _VARIANT.sub("", part.word),
                "start": round(start + part.start_frame / rate, 2),
                "end": round(start + (part.end_frame + 1) / rate, 2),
                "confidence": round(min(1.0, part.prob), 4),
            }
            for part in decoder.seg()
            if not _NO_WORD.match(part.word)
        ]
