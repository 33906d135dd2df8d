"""A reward model in memory: tuned networks, trained with other dice, and the steady half beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.reward.counted import Counted
    from worker.reward.model import Scorer


@dataclass(kw_only=True)
class Ensemble:
    """The mean of the members times `scale`, and what `counted` says, of the frozen `base`, times `counted_scale`.

    Both scales together make a score log odds; they are fitted after everything else.
    """

    members: tuple[Scorer, ...]
    scale: float = 1.0
    base: Scorer | None = None
    counted: Counted | None = None
    counted_scale: float = 0.0

    def tokens(self, text: str) -> tuple[list[int], bool]:
        """Token ids of a rendered text, and whether it was cut."""
        return self.members[0].tokens(text)

    def score(self, texts: Sequence[str]) -> list[float]:
        """The score of each rendered text, in log odds."""
        if not texts:
            return []
        batch = [self.tokens(text)[0] for text in texts]
        with torch.inference_mode():
            found = torch.stack([member.raw(batch).double().cpu() for member in self.members]).mean(0) * self.scale
            if self.counted is not None and self.base is not None:
                found += self.counted.scores(texts, self.base.layers(batch).cpu()).double() * self.counted_scale
        return [float(value) for value in found]
