"""What a selector is given, and what comes of asking several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from db.registry import ModelEntry
from scheduler.selectors.history import NOTHING_KNOWN, History


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What a selector may look at, beside the models.

    `text` is what the subtask's models will read in words (empty where a file says it all). `proposals` are rankings
    that were made elsewhere, by selector: those that need a language model are asked where one is loaded. `history` is
    what this system has seen of the capability. `seed` makes a draw repeatable.
    """

    capability: str
    text: str = ""
    proposals: Mapping[str, Sequence[str]] = field(default_factory=dict)
    seed: int = 0
    history: History = NOTHING_KNOWN


#: A selector takes the models that could serve and returns them best first; it leaves out those it knows nothing of.
Selector = Callable[[Sequence[ModelEntry], Situation], list[ModelEntry]]


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A model, and who proposed it: `[{"selector": ..., "rank": ...}]`, rank 0 first."""

    model: ModelEntry
    proposed_by: list[dict[str, object]]
