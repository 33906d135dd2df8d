"""Which models a subtask gets: its selectors asked, with what they need to know, and as few as its target allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from db.registry import ModelEntry
from db.settings import Settings
from db.subtasks import ReadySubtask, requests_of
from scheduler.selectors import NOTHING_KNOWN, Chosen, Histories, Situation, choose, enough, learns

READ_THE_INPUT = frozenset({"nearest"})
OWN_TO_EACH = frozenset({"nearest", "explore", "llm"})  # selectors whose ranking is another one for each subtask


class Chooser:
    """Asks selectors. What was seen of a capability is read outside of transactions, by `refresh`."""

    def __init__(self, settings: Settings, histories: Histories | None = None) -> None:
        self._settings = settings
        self._histories = histories
        self._learning = {name for name in settings.registry.capabilities if learns(settings.selectors_for(name))}
        self._same: dict[tuple[Any, ...], list[Chosen]] = {}

    def refresh(self, capabilities: Sequence[str]) -> None:
        """Read the histories of those of these capabilities for which a selector that learns was asked."""
        if self._histories is not None:
            self._histories.refresh([name for name in capabilities if name in self._learning])

    def knows(self, capability: str, options: Mapping[str, Any]) -> bool:
        """Whether what these options' selectors learn from was read; if not, it is at the next `refresh`."""
        if self._histories is None or not self._learned_by(capability, options) or capability in self._learning:
            return True
        self._learning.add(capability)
        return False

    def _learned_by(self, capability: str, options: Mapping[str, Any]) -> bool:
        return bool(options.get("adaptive")) or learns(self.selectors_of(capability, options))

    def selectors_of(self, capability: str, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Who proposes models: what the task says, else the capability, else the setting."""
        return self._settings.selectors_for(capability, options.get("selectors"))

    def texts_of(self, connection: Connection, subtasks: Sequence[ReadySubtask]) -> dict[UUID, str]:
        """What those of these subtasks are about whose selectors want to know."""
        curious = [
            subtask.id
            for subtask in subtasks
            if subtask.options.get("adaptive")
            or not READ_THE_INPUT.isdisjoint(self.selectors_of(subtask.capability, subtask.options))
        ]
        return requests_of(connection, curious) if curious else {}

    def begin(self) -> None:
        """A new look: what was chosen alike before may be chosen otherwise now."""
        self._same.clear()

    def choose(
        self, capability: str, options: Mapping[str, Any], k: int, models: Sequence[ModelEntry], *, text: str = "",
        least: int = 1, seed: int = 0,
    ) -> list[Chosen]:  # fmt: skip
        """Up to k of these models, best first; with `adaptive`, as few of them as it allows, but `least`."""
        selectors = self.selectors_of(capability, options)
        alike = OWN_TO_EACH.isdisjoint(selectors) and not options.get("adaptive")
        key = (capability, selectors, k, tuple(model.name for model in models))
        if alike and key in self._same:
            return self._same[key]
        situation = Situation(
            capability=capability,
            text=text,
            proposals=options.get("proposals") or {},
            seed=seed,
            history=self._histories.of(capability) if self._histories else NOTHING_KNOWN,
        )
        chosen = choose(selectors, k, models, situation)
        if options.get("adaptive"):
            return chosen[: max(least, enough(chosen, situation, options["adaptive"]))]
        if alike:
            self._same[key] = chosen
        return chosen
