"""What a judge that asks in both orders read in each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.judges import Decision


def raw_choices(decision: Decision) -> list[int]:
    """Which of the two texts, 0 or 1, each single reply named; empty where the decision keeps no replies."""
    named: list[int] = []
    replies = [order["read"] for order in decision.orders if "read" in order]  # beside them stand notes on the texts
    for turn, read in enumerate(replies):
        if len(read) != 2:
            return []
        if "log_odds" in read[0]:
            named += [int(value <= 0) for value in read[0]["log_odds"]]
        elif "letter" in read[0]:
            choice = int(read[1]["logprob"] > read[0]["logprob"])
            named.append((choice + turn) % 2)  # the second order begins with the second text
        else:
            return []
    return named if len(named) > 1 else []
