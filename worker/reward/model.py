"""The network of a reward model: an encoder or decoder, its token states pooled, one linear map to a number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from db.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

Pooling = Literal["mean", "last"]
CHUNK = 32  # texts that are padded to one length; sorted by length first, so that little is padding
CHUNK_TOKENS = 8192  # of a chunk, padded


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a text becomes numbers: which tokens' states are pooled, and how many tokens are read."""

    pooling: Pooling
    max_tokens: int


class Scorer:
    """One network with its head; what it gives is not calibrated yet."""

    def __init__(self, network: Any, tokenizer: Any, reading: Reading) -> None:
        self.network = network
        self.tokenizer = tokenizer
        self.reading = reading
        self.head = torch.nn.Linear(network.config.hidden_size, 1)
        torch.nn.init.zeros_(self.head.weight)
        torch.nn.init.zeros_(self.head.bias)
        self.head.to(network.device)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token

    def tokens(self, text: str) -> tuple[list[int], bool]:
        """Token ids of a rendered text, and whether it was cut.

        A text that is too long loses its middle: a third is kept of its beginning, where the instruction stands, and
        two thirds of its end, where the answer does.
        """
        ids = list(self.tokenizer.encode(text, split_special_tokens=True))
        limit = self.reading.max_tokens
        if len(ids) <= limit:
            return ids or [self.tokenizer.pad_token_id], False
        head = limit // 3
        return [*ids[:head], *ids[len(ids) - (limit - head) :]], True

    def pooled(self, batch: Sequence[Sequence[int]]) -> torch.Tensor:
        """One vector per tokenised text: (texts, width)."""
        return self._in_chunks(batch, 1)[:, 0]

    def layers(self, batch: Sequence[Sequence[int]]) -> torch.Tensor:
        """The same of the last two layers: (texts, 2, width)."""
        return self._in_chunks(batch, 2)

    def _in_chunks(self, batch: Sequence[Sequence[int]], layers: int) -> torch.Tensor:
        """Texts of like length are computed together; results in the order of the batch."""
        order = sorted(range(len(batch)), key=lambda place: (len(batch[place]), place))
        parts, start = [], 0
        while start < len(order):
            stop = start + 1
            while (
                stop < len(order)
                and stop - start < CHUNK
                and len(batch[order[stop]]) * (stop + 1 - start) <= CHUNK_TOKENS
            ):
                stop += 1
            parts.append(self._states([batch[place] for place in order[start:stop]], layers))
            start = stop
        back = torch.empty(len(order), dtype=torch.long)
        back[torch.tensor(order)] = torch.arange(len(order))
        return torch.cat(parts)[back.to(self.network.device)]

    def raw(self, batch: Sequence[Sequence[int]], dropout: float = 0.0) -> torch.Tensor:
        """Unscaled scores, with their gradient where one is wanted."""
        vectors = self.pooled(batch)
        return self.head(torch.nn.functional.dropout(vectors, dropout, training=dropout > 0))[:, 0]

    def _states(self, batch: Sequence[Sequence[int]], layers: int) -> torch.Tensor:
        longest = max(map(len, batch))
        ids = torch.full((len(batch), longest), self.tokenizer.pad_token_id)
        mask = torch.zeros((len(batch), longest), dtype=torch.long)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        device = self.network.device
        ids, mask = ids.to(device), mask.to(device)
        found = self.network(input_ids=ids, attention_mask=mask, output_hidden_states=layers > 1)
        states = found.hidden_states[-layers:] if layers > 1 else (found.last_hidden_state,)
        return torch.stack([self._pool(one.float(), mask) for one in states], dim=1)

    def _pool(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self.reading.pooling == "last":
            return states[range(len(states)), mask.sum(1) - 1]
        weights = mask[:, :, None].to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1)


def reading_for(config: Any, max_tokens: int) -> Reading:
    """How a base of this configuration is read: a decoder by its last token, an encoder by all of them."""
    most = int(getattr(config, "max_position_embeddings", 0) or max_tokens)
    causal = any("CausalLM" in name for name in config.architectures or ())
    return Reading(pooling="last" if causal else "mean", max_tokens=min(max_tokens, most))


def layers_of(network: Any) -> Any:
    """The blocks of an encoder or decoder, lowest first. Raises `UsageError` where there are none to be found."""
    for holder in (getattr(network, "encoder", None), network):
        for name in ("layer", "layers"):
            if (found := getattr(holder, name, None)) is not None:
                return found
    raise UsageError(f"A {type(network).__name__} has no blocks that can be trained one by one: train --mode head.")
