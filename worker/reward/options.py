"""How a reward model is trained, in numbers: what each mode begins with, and what a command may say instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Mode = Literal["head", "lora", "full"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to train. `layers`: of the blocks, so many of the upper ones are tuned in full (0: all of them).

    `corrupt`: the chance of each text to be set against a corrupted copy of itself. `patience`: epochs without a
    smaller loss on the held-out groups before a training stops; the best epoch's numbers are kept. `members`: so many
    models, trained with other dice, are averaged.
    """

    mode: Mode = "full"
    epochs: int = 3
    rate: float = 5e-5
    head_rate: float = 1e-3
    decay: float = 0.01
    dropout: float = 0.1
    layers: int = 0
    rank: int = 8
    corrupt: float = 0.25
    warm: float = 0.1
    patience: int = 2
    seed: int = 1
    members: int = 1
    checkpoint_steps: int = 20


#: What each mode begins with; chosen by five folds of published scores of questions (docs/reward.md).
DEFAULTS: dict[Mode, dict[str, Any]] = {
    "head": {"epochs": 40, "head_rate": 2e-3, "patience": 4},
    "lora": {"epochs": 2, "rate": 5e-4},
    "full": {"epochs": 1, "rate": 1e-4},
}


def options_for(mode: Mode, **given: Any) -> Options:
    """The options of a mode, with what is given in their place; None stands for the mode's own."""
    return Options(
        **DEFAULTS[mode] | {name: value for name, value in given.items() if value is not None} | {"mode": mode}
    )
