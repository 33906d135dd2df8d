"""How a model is run. One file per backend, registered by name in `BACKENDS`.

A backend gets a list of inputs and returns a list of the same length: an `Output` or a `Failure` for each. One bad
input fails alone. A backend lives in one process, is loaded once, and is used by one thread.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from db.errors import RegistryError
from db.states import ErrorKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from db.registry import ModelEntry


@dataclass(frozen=True, kw_only=True)
class File:
    """One attachment, read from the blob store."""

    name: str
    media_type: str
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Input:
    """What one candidate's model reads.

    `text` is the request (may be empty where a file says it all), `instruction` the capability's task in a sentence,
    `options` what the caller set for this subtask (`max_new_tokens`, `temperature`, `language` ...).
    """

    text: str = ""
    instruction: str = ""
    files: tuple[File, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Output:
    """What one model said: `text` for people and judges, `detail` (JSON) for programs, `usage` what it cost."""

    text: str
    detail: Mapping[str, Any] = field(default_factory=dict)
    usage: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why there is no output. `message` is a sentence for a person, without a stack trace."""

    kind: ErrorKind
    code: str
    message: str


class BadInput(Exception):
    """Raised inside a backend for an input that it cannot read; becomes a `Failure` of kind `input`."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a backend may look and run: weights already fetched and verified, device, threads."""

    weights: Path | None
    device: str = "cpu"
    threads: int = 1


class Backend(ABC):
    """A model in this process, or a client of the server that runs it.

    `constrains`: whether an input's option `json_schema` (a JSON schema) binds what is written.
    """

    constrains = False

    def __init__(self, model: ModelEntry, place: Place) -> None:
        self.model = model
        self.place = place

    @abstractmethod
    def load(self) -> None:
        """Load the weights and answer one small input, so that the first real one is not slow.

        Raises `WeightsError` where they are missing or not what the registry names, any other exception where the
        model cannot be built.
        """

    @abstractmethod
    def run(self, inputs: Sequence[Input]) -> list[Output | Failure]:
        """Answer a batch of at most `model.max_batch` inputs. Never raises for one bad input."""

    def close(self) -> None:  # noqa: B027 - most backends hold nothing but memory
        """Give back memory and connections."""


class OneByOne(Backend):
    """A backend whose engine takes a single input; each one fails alone."""

    @abstractmethod
    def answer(self, item: Input) -> Output:
        """Answer one input. Raises `BadInput` for an input that cannot be read."""

    def run(self, inputs: Sequence[Input]) -> list[Output | Failure]:
        """Answer one after the other."""
        return [self._guarded(item) for item in inputs]

    def _guarded(self, item: Input) -> Output | Failure:
        try:
            return self.answer(item)
        except Exception as error:  # noqa: BLE001 - an engine may raise anything; the others must not suffer
            return failure_from(error)


def failure_from(error: BaseException) -> Failure:
    """The failure that an exception stands for, by kind; the text is one line."""
    text = " ".join(str(error).split())[:500] or type(error).__name__
    if isinstance(error, BadInput):
        return Failure(kind=ErrorKind.INPUT, code="bad_input", message=text)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return Failure(kind=ErrorKind.MEMORY, code="out_of_memory", message=text)
    return Failure(kind=ErrorKind.MODEL, code=type(error).__name__, message=text)


class NoProbabilities(Exception):
    """Raised by a language model that writes, and tells no probabilities: a judge reads its replies instead."""


@runtime_checkable
class LanguageModel(Protocol):
    """What a judge asks of a language model: probabilities, not text."""

    identity: str  # name and hash of the weights, part of a verdict and of the judge's cache key

    def option_logprobs(self, prompts: Sequence[str], options: Sequence[str]) -> list[list[float]]:
        """Log-probability of each option as the first token of the reply, normalised over the options.

        Returns one row per prompt, one column per option. A prompt is the user's turn; the chat template is
        applied here. Raises `NoProbabilities` where there are none to be had.
        """
        ...

    def continuation_logprobs(self, prompt: str, continuations: Sequence[str]) -> list[float]:
        """Log-probability of each reply (nats, summed over its tokens and the end of the turn), given the prompt."""
        ...


@runtime_checkable
class SeeingModel(Protocol):
    """A language model that can be shown pictures and recordings, of the kinds that its entry `reads`."""

    def option_logprobs_about(
        self, files: Sequence[File], prompts: Sequence[str], options: Sequence[str]
    ) -> list[list[float]]:
        """As `LanguageModel.option_logprobs`, with these files before every prompt."""
        ...


#: name in models.toml → "module:class"; imported only in the worker that needs it
BACKENDS = {
    "scripted": "worker.backends.scripted:Scripted",
    "openai": "worker.backends.openai:OpenAI",
    "llamacpp": "worker.backends.llamacpp:LlamaCpp",
    "transformers": "worker.backends.transformers:Transformers",
    "rapidocr": "worker.backends.rapidocr:RapidOCR",
    "rapidocr-onnxruntime": "worker.backends.rapidocr:RapidOCROnnxRuntime",
    "ddddocr": "worker.backends.ddddocr:DdddOCR",
    "tesseract": "worker.backends.tesseract:Tesseract",
    "pocketsphinx": "worker.backends.pocketsphinx:PocketSphinx",
    "faster-whisper": "worker.backends.faster_whisper:FasterWhisper",
    "replay": "worker.backends.replay:Replay",
    "given": "worker.backends.given:Given",
    "ifd": "worker.backends.ifd:IFD",
    "reward": "worker.backends.reward:Reward",
}


def create_backend(model: ModelEntry, place: Place) -> Backend:
    """The backend that the registry names for a model, not loaded yet. Raises `RegistryError` for an unknown name."""
    try:
        module, _, name = BACKENDS[model.backend].partition(":")
    except KeyError:
        known = ", ".join(sorted(BACKENDS))
        raise RegistryError(
            f"models.{model.name}.backend = {model.backend!r} is unknown; there are: {known}."
        ) from None
    backend: Backend = getattr(import_module(module), name)(model, place)
    return backend
