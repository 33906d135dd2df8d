"""From several selectors to k models: first choices, de-duplicated, then each selector's next in turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from db.alike import did_you_mean
from db.errors import InvalidRequest
from db.registry import ModelEntry
from scheduler.selectors.base import Chosen, Selector, Situation
from scheduler.selectors.explore import by_chance
from scheduler.selectors.figures import by_benchmark, by_figure
from scheduler.selectors.llm import by_proposal
from scheduler.selectors.nearest import by_nearest
from scheduler.selectors.priority import by_priority
from scheduler.selectors.track_record import by_track_record

PRIORITY = "priority"

#: name → selector. `benchmark:NAME` ranks by the score NAME; plain `benchmark` by the one that most models have.
SELECTORS: dict[str, Selector] = {
    PRIORITY: by_priority,
    "downloads": by_figure("downloads"),
    "likes": by_figure("likes"),
    "trending": by_figure("trending"),
    "benchmark": by_benchmark(),
    "llm": by_proposal,
    "track_record": by_track_record,
    "nearest": by_nearest,
    "explore": by_chance,
}


def checked_selectors(names: Sequence[str]) -> tuple[str, ...]:
    """The same names, each once. Raises `InvalidRequest` for an unknown one, naming those there are."""
    for name in names:
        _selector(name)
    return tuple(dict.fromkeys(names))


def choose(names: Sequence[str], k: int, models: Sequence[ModelEntry], situation: Situation) -> list[Chosen]:
    """At most k of these models, as the named selectors propose them, each with everybody who did.

    Every selector's first choice comes in the order of the names; then each in turn adds its next, until there are k.
    Where all of them have said what they know, `priority` fills up. A selector that comes across a model that another
    one chose before is recorded as proposing it too, at its own rank. Raises `InvalidRequest` for an unknown name.
    """
    panel = _Panel(k)
    asked = [(name, _selector(name)(models, situation)) for name in dict.fromkeys(names)]
    turns = [(name, enumerate(ranking)) for name, ranking in asked]
    for name, turn in turns:
        panel.hear(name, islice(turn, 1))
    while panel.has_room and any([panel.hear(name, turn) for name, turn in turns]):  # noqa: C419 - everyone's turn
        pass
    fill = [(rank, model) for rank, model in enumerate(by_priority(models)) if model.name not in panel.chosen]
    for place in fill[: k - len(panel.chosen)]:
        panel.hear(PRIORITY, iter([place]))
    return list(panel.chosen.values())


class _Panel:
    """The models chosen so far."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.chosen: dict[str, Chosen] = {}

    @property
    def has_room(self) -> bool:
        return len(self.chosen) < self.size

    def hear(self, selector: str, turn: Iterator[tuple[int, ModelEntry]]) -> bool:
        """Go on in a selector's ranking up to a model that is new, and choose it. False where it has no more."""
        for rank, model in turn:
            known = model.name in self.chosen
            if not known and not self.has_room:
                return False
            chosen = self.chosen.setdefault(model.name, Chosen(model=model, proposed_by=[]))
            chosen.proposed_by.append({"selector": selector, "rank": rank})
            if not known:
                return True
        return False


def _selector(name: str) -> Selector:
    """The selector of that name. Raises `InvalidRequest` with the names there are."""
    base, parameter, score = name.partition(":")
    if base == "benchmark" and parameter and score:
        return by_benchmark(score)
    if name in SELECTORS:
        return SELECTORS[name]
    raise InvalidRequest(
        f"selectors = {name!r} is unknown; there are: {', '.join(sorted(SELECTORS))}, and benchmark:NAME for one score."
        + did_you_mean(name, SELECTORS)
    )
