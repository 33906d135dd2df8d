"""Reward models that `bakeoff reward train` wrote: a text in, its score out."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pydantic import Field

from db.errors import WeightsError
from worker.backends import Backend, BadInput, Output
from worker.backends.transformers_head import Head, free_memory, pick_device
from worker.media import request_text
from worker.params import Params, checked_params
from worker.reward.artifact import read_artifact
from worker.reward.text import PLACES, as_text
from worker.weights import identity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from db.registry import ModelEntry
    from worker.backends import Failure, Input, Place

    Text = tuple[str, int, bool]  # rendered, its tokens, whether it is cut


class RewardParams(Params):
    """`params` of a reward model."""

    batch_tokens: int = Field(16_384, ge=1)  # tokens of a batch, padded


class Reward(Backend):
    """A reward model in this process. Its input is what `worker.reward.text.rendered` makes."""

    def __init__(self, model: ModelEntry, place: Place) -> None:
        super().__init__(model, place)
        os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports the hub's client
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self.identity = identity(model, place.weights)
        self._head = _RewardHead(model, place)

    def load(self) -> None:
        """Load the folder and score one word. Raises `WeightsError`."""
        self._head.load()

    def run(self, inputs: Sequence[Input]) -> list[Output | Failure]:
        """Score texts, batched by length; results in their order."""
        return self._head.run(inputs)

    def close(self) -> None:
        """Give the memory back."""
        self._head.scorer = None
        free_memory()


class _RewardHead(Head["Text"]):
    """Batches by budget, as every network in this process."""

    def __init__(self, model: ModelEntry, place: Place) -> None:
        super().__init__(model, place, checked_params(model, RewardParams).batch_tokens)
        self.scorer: Any = None

    def load(self) -> None:
        import torch

        if self.place.weights is None:
            raise WeightsError(
                f"models.{self.model.name}.source names no folder; `bakeoff reward train --out FOLDER` writes one."
            )
        scorer = read_artifact(self.place.weights, device=pick_device(self.model, self.place))
        torch.set_num_threads(max(1, self.place.threads))
        scorer.score(["Hello"])
        self.scorer = scorer

    def prepare(self, item: Input) -> list[Text]:
        """One text with its length. Raises `BadInput` for one that says nothing, or a file that is not text."""
        if not (text := request_text(item).strip()):
            raise BadInput("There is no text to score.")
        ids, cut = self.scorer.tokens(text)
        return [(text, len(ids), cut)]

    def size(self, part: Text) -> int:
        return part[1]

    def answer(self, batch: Sequence[Text]) -> list[Output]:
        """The score as text, and as a number in `detail.score`."""
        found = self.scorer.score([text for text, _, _ in batch])
        return [
            Output(
                text=as_text(score),
                detail={"score": round(score, PLACES), "truncated": cut},
                usage={"prompt_tokens": length},
            )
            for score, (_, length, cut) in zip(found, batch, strict=True)
        ]
