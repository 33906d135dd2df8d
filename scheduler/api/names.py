"""What a chat completion may name as its model: `bakeoff`, `bakeoff/JUDGE`, `bakeoff/PROFILE`, a registry's model."""

from __future__ import annotations

from dataclasses import dataclass

from db.errors import NotFound
from db.registry import ModelEntry
from db.settings import Settings

BEST = "bakeoff"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Whom a name asks: one model alone, or several and this judge (None: the capability's own)."""

    model: ModelEntry | None = None
    judge: str | None = None


def judged_by(judge: str) -> str:
    """The name that asks several models, and this judge."""
    return f"{BEST}/{judge}"


def asked_by(settings: Settings, name: str) -> Asked:
    """Whom a name asks. Raises `NotFound`, which says where the names are."""
    registry = settings.registry
    family, _, rest = name.partition("/")
    if name == BEST or (family == BEST and rest == settings.active_profile):
        return Asked()
    if family == BEST and rest in registry.judges:
        return Asked(judge=rest)
    if name in registry.models and name not in registry.asked_only:
        return Asked(model=registry.models[name])
    raise NotFound(f"No model {name!r:.100}; GET /v1/models lists those there are.")
