"""Limits that must fit together, checked when a process starts, and what follows from them for a message."""

from __future__ import annotations

import math

from db.errors import SettingsError
from db.registry import ModelEntry, Registry
from db.settings import Settings

SOFT_BEFORE_HARD = 10.0  # seconds a batch has to end after its soft limit


def check_limits(settings: Settings, registry: Registry | None = None) -> None:
    """Raise `SettingsError` where a batch of a model, or a question to a judge, does not fit into a message."""
    registry = registry or settings.registry
    timeouts = {f"judges.{name}": registry.judges[name].timeout for name in sorted(registry.judges_in_use())}
    timeouts |= {f"planners.{name}": entry.timeout for name, entry in registry.planners.items()}
    timeouts |= {f"integrators.{name}": entry.timeout for name, entry in registry.integrators.items()}
    timeouts |= {f"models.{name}": entry.timeout for name, entry in registry.models.items()}
    for place, timeout in timeouts.items():
        needed = settings.start_allowance + timeout + SOFT_BEFORE_HARD
        if needed > settings.message_limit:
            raise SettingsError(
                f"{place}.timeout = {timeout:g} s plus BAKEOFF_START_ALLOWANCE ({settings.start_allowance:g} s) and "
                f"{SOFT_BEFORE_HARD:g} s make {needed:g} s, over BAKEOFF_MESSAGE_LIMIT ({settings.message_limit:g} s); "
                "lower one or raise the limit."
            )


def hard_limit(settings: Settings, model: ModelEntry, items: int) -> float:
    """Seconds after which a message's child is killed: the start allowance, and a timeout per batch."""
    batches = math.ceil(items / model.max_batch)
    return min(settings.start_allowance + batches * model.timeout + SOFT_BEFORE_HARD, settings.message_limit)


def largest_message(settings: Settings, model: ModelEntry) -> int:
    """Candidates that one message of this model may carry so that it ends within `BAKEOFF_MESSAGE_LIMIT`."""
    room = settings.message_limit - settings.start_allowance - SOFT_BEFORE_HARD
    return max(1, int(room // model.timeout)) * model.max_batch
