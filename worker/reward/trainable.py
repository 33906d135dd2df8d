"""Which numbers of a scorer are tuned: the head, the upper blocks, or small matrices beside the large ones (LoRA)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from db.errors import UsageError
from worker.reward.model import layers_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.reward.model import Scorer
    from worker.reward.options import Options

EMBEDDED_AT_ONCE = 64


@dataclass(kw_only=True)
class Tuned:
    """A scorer with some of its numbers free; `frozen`: only the head is, and `states` are computed once per text."""

    scorer: Scorer
    body: list[Any]
    head: list[Any]
    frozen: bool
    states: dict[str, torch.Tensor] = field(default_factory=dict)
    _tokens: dict[str, list[int]] = field(default_factory=dict)

    @property
    def parameters(self) -> list[Any]:
        """What is tuned, always in this order."""
        return [*self.body, *self.head]

    def rates(self, options: Options) -> list[dict[str, Any]]:
        """The optimizer's groups: the head learns faster than the body."""
        head = {"params": self.head, "lr": options.head_rate, "weight_decay": options.decay if self.frozen else 0.0}
        body = {"params": self.body, "lr": options.rate, "weight_decay": options.decay}
        return [body, head] if self.body else [head]

    def train(self) -> None:
        """With dropout, where the body is tuned."""
        self.scorer.network.train(not self.frozen)

    def eval(self) -> None:
        """Without dropout."""
        self.scorer.network.eval()

    def scores(self, texts: Sequence[str], dropout: float) -> torch.Tensor:
        """Unscaled scores of rendered texts."""
        if not self.frozen:
            return self.scorer.raw([self._ids(text) for text in texts], dropout)
        new = [text for text in dict.fromkeys(texts) if text not in self.states]
        with torch.no_grad():
            for start in range(0, len(new), EMBEDDED_AT_ONCE):
                some = new[start : start + EMBEDDED_AT_ONCE]
                self.states.update(zip(some, self.scorer.pooled([self._ids(text) for text in some]), strict=True))
        vectors = torch.stack([self.states[text] for text in texts])
        return self.scorer.head(torch.nn.functional.dropout(vectors, dropout, training=dropout > 0))[:, 0]

    def _ids(self, text: str) -> list[int]:
        if text not in self._tokens:
            self._tokens[text] = self.scorer.tokens(text)[0]
        return self._tokens[text]


def tuned(scorer: Scorer, options: Options, states: dict[str, torch.Tensor]) -> Tuned:
    """Free the numbers that a mode tunes. Raises `UsageError` where the network or a package does not allow it.

    `states` are kept by rendered text while only the head is tuned: other trainings on the same base may share them.
    """
    scorer.network.requires_grad_(requires_grad=False)
    head = list(scorer.head.parameters())
    if options.mode == "head":
        return Tuned(scorer=scorer, body=[], head=head, frozen=True, states=states)
    if options.mode == "lora":
        scorer.network = _with_lora(scorer.network, options)
        free = [parameter for parameter in scorer.network.parameters() if parameter.requires_grad]
        return Tuned(scorer=scorer, body=free, head=head, frozen=False)
    # The table of words stays as it is: half the numbers of a small encoder, and few of its words are seen in training.
    blocks = list(layers_of(scorer.network))
    free = [parameter for block in blocks[-options.layers :] for parameter in block.parameters()]
    for parameter in free:
        parameter.requires_grad_(requires_grad=True)
    return Tuned(scorer=scorer, body=free, head=head, frozen=False)


def merged(scorer: Scorer) -> None:
    """Add what LoRA learnt to the matrices that it stood beside, so that nobody needs peft to use the model."""
    if hasattr(scorer.network, "merge_and_unload"):
        scorer.network = scorer.network.merge_and_unload()


def _with_lora(network: Any, options: Options) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise UsageError('--mode lora needs peft, which is not installed: pip install "bakeoff[training]".') from None
    config = LoraConfig(
        r=options.rank, lora_alpha=2 * options.rank, lora_dropout=options.dropout, target_modules="all-linear"
    )
    return get_peft_model(network, config)
