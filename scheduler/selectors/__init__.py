"""Ways to rank the models for a subtask. One file per selector, registered by name in `SELECTORS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from db.registry import ModelEntry
from scheduler.selectors.priority import by_priority

#: A selector takes the models that could serve and returns them best first.
Selector = Callable[[Sequence[ModelEntry]], list[ModelEntry]]

SELECTORS: dict[str, Selector] = {"priority": by_priority}
