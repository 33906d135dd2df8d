"""Speech recognition by models of Whisper's kind: 30 seconds of sound in, text out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from db.errors import RegistryError
from worker.backends import BadInput, Input, Output
from worker.backends.transformers_head import Head, load_preprocessor, load_pretrained, on_device
from worker.media import SAMPLE_RATE, decode_audio, only_file
from worker.params import Params, checked_params

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from db.registry import ModelEntry
    from worker.backends import Place

    Samples = NDArray[np.float32]

WINDOW = 30 * SAMPLE_RATE  # what the encoder reads, shorter sound is padded to it
SEARCH = 5 * SAMPLE_RATE  # a long recording is cut at the quietest place of a window's last five seconds
FRAME = SAMPLE_RATE // 50  # 20 ms: the grain of that search
SILENCE = 1e-4  # root mean square below which nothing is said; a model would make something up


class SpeechParams(Params):
    """`params` of a speech model."""

    language: str | None = None  # `en`, `de`, ...; empty: the caller's option, else heard from the sound
    batch_windows: int = Field(8, ge=1)  # windows of 30 seconds in a batch
    max_seconds: float = Field(3600.0, gt=0)  # a longer recording is refused


class Part:
    """One window of a recording."""

    def __init__(self, samples: Samples, language: str | None) -> None:
        self.samples = samples
        self.language = language


class Speech(Head[Part]):
    """An encoder-decoder speech model. Recordings of any length are read window by window, windows of all together."""

    def __init__(self, model: ModelEntry, place: Place) -> None:
        self.params = checked_params(model, SpeechParams)
        super().__init__(model, place, self.params.batch_windows)
        self.network: Any = None
        self.processor: Any = None

    def load(self) -> None:
        """Load the weights and read one second of silence."""
        import numpy as np
        import torch
        from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor

        self.network, _ = load_pretrained(AutoModelForSpeechSeq2Seq, self.model, self.place)
        self.processor = load_preprocessor(AutoProcessor, self.model, self.place)
        settings = self.network.generation_config
        self._multilingual = bool(getattr(settings, "is_multilingual", False))
        tokens = getattr(settings, "lang_to_id", None) or {}
        self._languages = {token.strip("<|>") for token in tokens} if self._multilingual else {"en"}
        if self.params.language is not None and self.params.language not in self._languages:
            raise RegistryError(f"models.{self.model.name}.params.language: {self._unknown(self.params.language)}")
        with torch.inference_mode():
            self._recognise([Part(np.zeros(SAMPLE_RATE, dtype=np.float32), self.params.language)])

    def prepare(self, item: Input) -> list[Part]:
        """Windows of one recording. Raises `BadInput` for no or several files, an unreadable one, an unknown
        language."""
        language = item.options.get("language", self.params.language)
        if language is not None and language not in self._languages:
            raise BadInput(f"Option language: {self._unknown(language)}")
        samples = decode_audio(only_file(item, "audio"), max_seconds=self.params.max_seconds)
        return [Part(window, language) for window in windows(samples)]

    def size(self, part: Part) -> int:  # noqa: ARG002 - every window costs the same
        """One window."""
        return 1

    def answer(self, batch: Sequence[Part]) -> list[Output]:
        """Text per window; windows of one language go together, silent ones are not asked about."""
        outputs: dict[int, Output] = {}
        groups: dict[str | None, list[int]] = {}
        for index, part in enumerate(batch):
            if float((part.samples**2).mean()) ** 0.5 < SILENCE:
                outputs[index] = _output("", part)
            else:
                groups.setdefault(part.language, []).append(index)
        for indices in groups.values():
            texts = self._recognise([batch[index] for index in indices])
            outputs |= {index: _output(text, batch[index]) for index, text in zip(indices, texts, strict=True)}
        return [outputs[index] for index in range(len(batch))]

    def join(self, answers: list[Output]) -> Output:
        """One text; the windows' own texts stay in `detail`."""
        seconds = sum(answer.usage["audio_seconds"] for answer in answers)
        text = " ".join(answer.text for answer in answers if answer.text)
        detail = {"windows": [dict(answer.detail) for answer in answers]} if len(answers) > 1 else {}
        return Output(text=text, detail=detail, usage={"audio_seconds": round(seconds, 3)})

    def _recognise(self, parts: Sequence[Part]) -> list[str]:
        from transformers.modeling_outputs import BaseModelOutput

        read = self.processor.feature_extractor(
            [part.samples for part in parts], sampling_rate=SAMPLE_RATE, return_tensors="pt"
        )
        features = on_device(read.input_features, self.network, as_weights=True)
        # Encoded once: `generate` would do it again after it has heard which language it is.
        states = BaseModelOutput(last_hidden_state=self.network.get_encoder()(features).last_hidden_state)
        how: dict[str, Any] = {}
        if self._multilingual:
            how = {"task": "transcribe", "language": parts[0].language}
        tokens = self.network.generate(encoder_outputs=states, do_sample=False, num_beams=1, **how)
        return [text.strip() for text in self.processor.batch_decode(tokens, skip_special_tokens=True)]

    def _unknown(self, language: object) -> str:
        return f"{self.model.name} knows {', '.join(sorted(self._languages))}, not {language!r}."


def _output(text: str, part: Part) -> Output:
    seconds = len(part.samples) / SAMPLE_RATE
    return Output(text=text, detail={"seconds": seconds, "text": text}, usage={"audio_seconds": seconds})


def windows(samples: Samples) -> list[Samples]:
    """Cut samples of shape (n,) into pieces of at most 30 seconds, each cut at the quietest 20 ms near its end."""
    pieces: list[Samples] = []
    while len(samples) > WINDOW:
        searched = samples[WINDOW - SEARCH : WINDOW]
        frames = searched.reshape(-1, FRAME)
        quietest = int((frames**2).sum(axis=1).argmin())
        cut = WINDOW - SEARCH + quietest * FRAME + FRAME // 2
        pieces.append(samples[:cut])
        samples = samples[cut:]
    return [*pieces, samples]
