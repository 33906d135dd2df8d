"""Several scorers that read alike, trained with other dice: their mean is steadier than any of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.reward.model import Scorer


@dataclass(kw_only=True)
class Ensemble:
    """A reward model in memory. `scale` makes a score log odds; it is fitted after the networks."""

    members: tuple[Scorer, ...]
    scale: float = 1.0

    def tokens(self, text: str) -> tuple[list[int], bool]:
        """Token ids of a rendered text, and whether it was cut."""
        return self.members[0].tokens(text)

    def scores(self, batch: Sequence[Sequence[int]]) -> list[float]:
        """The score of each tokenised text, in log odds."""
        if not batch:
            return []
        with torch.inference_mode():
            found = torch.stack([member.raw(batch).double().cpu() for member in self.members]).mean(0)
        return [float(value) * self.scale for value in found]

    def score(self, texts: Sequence[str]) -> list[float]:
        """The score of each rendered text, in log odds."""
        return self.scores([self.tokens(text)[0] for text in texts])
