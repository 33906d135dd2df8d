"""Scores that models print as text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from db.curation_tasks import Outcome


def number_of(outcome: Outcome) -> float | None:
    """The number that a scoring model printed; None where it printed none."""
    winner = outcome.winner
    if winner is None:
        return None
    try:
        value = float(winner.text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
