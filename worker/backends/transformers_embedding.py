"""Embeddings: one vector of length 1 per text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from worker.backends import Output
from worker.backends.transformers_head import Head, load_preprocessor, load_pretrained, on_device
from worker.media import request_text
from worker.params import Params, checked_params

if TYPE_CHECKING:
    from collections.abc import Sequence

    from db.registry import ModelEntry
    from worker.backends import Input, Place

    Tokens = list[int]


class EmbeddingParams(Params):
    """`params` of an embedding model."""

    pooling: Literal["mean", "first", "last"] = "mean"  # which tokens' states make the vector
    prefix: str = ""  # what the model was trained to read before a text, as in `query: `
    max_tokens: int = Field(512, ge=1)  # a longer text is cut, and `detail.truncated` says so
    batch_tokens: int = Field(16_384, ge=1)  # tokens of a batch, padded


class Embedding(Head["Tokens"]):
    """A text encoder, its token states pooled and scaled to length 1."""

    def __init__(self, model: ModelEntry, place: Place) -> None:
        self.params = checked_params(model, EmbeddingParams)
        super().__init__(model, place, self.params.batch_tokens)
        self.network: Any = None
        self.tokenizer: Any = None

    def load(self) -> None:
        """Load the weights and embed one word."""
        import torch
        from transformers import AutoModel, AutoTokenizer

        self.network, config = load_pretrained(AutoModel, self.model, self.place)
        self.tokenizer = load_preprocessor(AutoTokenizer, self.model, self.place)
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        most = int(getattr(config, "max_position_embeddings", 0) or self.params.max_tokens)
        self._limit = min(self.params.max_tokens, most)
        with torch.inference_mode():
            self.answer([self._encode("Hello")])

    def prepare(self, item: Input) -> list[Tokens]:
        """Token ids of one text. Raises `BadInput` for a file that is not text."""
        return [self._encode(self.params.prefix + request_text(item))]

    def size(self, part: Tokens) -> int:
        """Tokens, as far as they are read."""
        return min(len(part), self._limit)

    def answer(self, batch: Sequence[Tokens]) -> list[Output]:
        """Vectors in `detail.vector`; `text` names their length only."""
        import torch

        longest = max(self.size(tokens) for tokens in batch)
        ids = torch.full((len(batch), longest), self.tokenizer.pad_token_id)
        mask = torch.zeros((len(batch), longest), dtype=torch.long)
        for row, tokens in enumerate(batch):
            # The last token closes the text ([SEP]): a cut keeps it.
            kept = tokens if len(tokens) <= self._limit else [*tokens[: self._limit - 1], tokens[-1]]
            ids[row, : len(kept)] = torch.tensor(kept)
            mask[row, : len(kept)] = 1
        mask = on_device(mask, self.network)
        states = self.network(input_ids=on_device(ids, self.network), attention_mask=mask).last_hidden_state.float()
        unit = torch.nn.functional.normalize(self._pool(states, mask), dim=-1)
        # A float32 of length 1 holds no more digits, and a double prints 17: half the JSON to send and store.
        pooled = unit.cpu().double().round(decimals=8).tolist()
        return [
            Output(
                text=f"a vector of {len(vector)} numbers",
                detail={"vector": vector, "truncated": len(tokens) > self._limit},
                usage={"prompt_tokens": self.size(tokens)},
            )
            for tokens, vector in zip(batch, pooled, strict=True)
        ]

    def _pool(self, states: Any, mask: Any) -> Any:
        if self.params.pooling == "first":
            return states[:, 0]
        if self.params.pooling == "last":
            return states[range(len(states)), mask.sum(1) - 1]
        weights = mask[:, :, None]
        return (states * weights).sum(1) / weights.sum(1)

    def _encode(self, text: str) -> Tokens:
        return list(self.tokenizer.encode(text, split_special_tokens=True))
