"""What a reward model has to beat, fitted on the same folds: what can be counted in a text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from db.errors import UsageError
from worker.judges.fitting import Example, fit
from worker.reward.surface import form_of
from worker.reward.text import parted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scheduler.rewarding.figures import Rewards
    from worker.reward.pairs import Group

FIRST = re.compile(r"[a-z']+")


def surface(groups: Sequence[Group]) -> Rewards | None:
    """Held-out rewards by form, echoes of the instruction and first word; None where there is too little to fit on."""
    examples, places = [], []
    for group in groups:
        rows = [_features(text) for text in group.texts]
        for better, worse in group.pairs:
            examples.append(Example(group=group.id, features=(rows[better], rows[worse]), scores=(1.0, 0.0)))
        # Unpaired, so that every text has a strength: an example of one answer teaches nothing.
        examples += [Example(group=group.id, features=(row,), scores=(0.0,)) for row in rows]
        places.append((group.id, len(examples) - len(rows), len(examples)))
    try:
        held_out = fit(examples).held_out
    except UsageError:
        return None
    return {id_: [strength for (strength,) in held_out[start:stop]] for id_, start, stop in places}


def _features(text: str) -> dict[str, float]:
    first = FIRST.search(parted(text)[1].casefold())
    # Under names of their own: a jury's features are weighed by rules of its own.
    return {f"form:{name}": value for name, value in form_of(text).items()} | (
        {f"first:{first[0]}": 1.0} if first else {}
    )
