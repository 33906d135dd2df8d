"""Models that run in this process through transformers and torch, chosen by capability.

Weights are safetensors from a local folder, never from the network and never pickled; a model's own code
runs only where its registry entry says `trust_remote_code`. One kind of model per `transformers_*.py`
beside this file.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from db.errors import RegistryError, WeightsError
from worker.backends import Backend, LanguageModel
from worker.weights import identity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from db.registry import ModelEntry
    from worker.backends import Failure, Input, Output, Place
    from worker.backends.transformers_head import Head

#: pipeline tag → "module:class"; a variant (`image-to-text/ocr`) is run like its tag
HEADS = {
    "automatic-speech-recognition": "worker.backends.transformers_speech:Speech",
    "feature-extraction": "worker.backends.transformers_embedding:Embedding",
    "image-classification": "worker.backends.transformers_vision:Classification",
    "image-text-to-text": "worker.backends.transformers_vision:VisionLanguage",
    "image-to-text": "worker.backends.transformers_vision:VisionLanguage",
    "text-generation": "worker.backends.transformers_text:TextGeneration",
}


class Transformers(Backend):
    """A Hugging Face model in this process. Raises `RegistryError` at once for params or a capability it
    lacks."""

    def __init__(self, model: ModelEntry, place: Place) -> None:
        super().__init__(model, place)
        # Before anything imports the hub's client: a worker never looks for files on the network.
        os.environ["HF_HUB_OFFLINE"] = "1"
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self.identity = identity(model, place.weights)
        try:
            module, _, name = HEADS[model.capability.partition("/")[0]].partition(":")
        except KeyError:
            known = ", ".join(sorted(HEADS))
            raise RegistryError(
                f"models.{model.name}.capability = {model.capability!r}: the transformers backend runs {known}."
            ) from None
        self._head: Head[Any] | None = getattr(import_module(module), name)(model, place)

    @property
    def head(self) -> Head[Any]:
        """The loaded model. Raises `RuntimeError` after `close`."""
        if self._head is None:
            raise RuntimeError(f"{self.model.name} is closed")
        return self._head

    def load(self) -> None:
        """Load the weights and answer one small input. Raises `WeightsError`, also where torch is not
        installed."""
        try:
            self.head.load()
        except ModuleNotFoundError as error:
            raise WeightsError(
                f'models.{self.model.name} needs {error.name}: `pip install "bakeoff[transformers]"`.'
            ) from error

    def run(self, inputs: Sequence[Input]) -> list[Output | Failure]:
        """Answer inputs, batched by length; results in their order."""
        return self.head.run(inputs)

    def option_logprobs(self, prompts: Sequence[str], options: Sequence[str]) -> list[list[float]]:
        """See `LanguageModel`. Raises `RegistryError` where this is not a text model."""
        return self._language_model().option_logprobs(prompts, options)

    def continuation_logprobs(self, prompt: str, continuations: Sequence[str]) -> list[float]:
        """See `LanguageModel`. Raises `RegistryError` where this is not a text model."""
        return self._language_model().continuation_logprobs(prompt, continuations)

    def close(self) -> None:
        """Give the memory back."""
        from worker.backends.transformers_head import free_memory

        self._head = None
        free_memory()

    def _language_model(self) -> LanguageModel:
        head = self.head
        if not isinstance(head, LanguageModel):
            raise RegistryError(
                f"models.{self.model.name} ({self.model.capability}) gives no probabilities of text: "
                "a judge needs a text-generation model."
            )
        return head
