"""A reward model in memory: the steady half, and networks that were tuned with other dice beside it."""

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
    """What `counted` says, of the frozen `base`, times `counted_scale`, and the mean of the members times `scale`.

    Both scales together make a score log odds; they are fitted after everything else. There may be no members.
    """

    base: Scorer
    counted: Counted
    counted_scale: float
    members: tuple[Scorer, ...] = ()
    scale: float = 1.0

    def tokens(self, text: str) -> tuple[list[int], bool]:
        """Token ids of a rendered text, and whether it was cut."""
        return self.base.tokens(text)

    def score(self, texts: Sequence[str]) -> list[float]:
        """The score of each rendered text, in log odds."""
        if not texts:
            return []
        batch = [self.tokens(text)[0] for text in texts]
        with torch.inference_mode():
            found = self.counted.scores(texts, self.base.layers(batch).cpu()).double() * self.counted_scale
            if self.members:
                found += torch.stack([member.raw(batch).double().cpu() for member in self.members]).mean(0) * self.scale
        return [float(value) for value in found]
