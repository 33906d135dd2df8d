"""The page of the figures that `/metrics` gives, from what the collector yields on an empty database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from docs.generator.text import code, table
from scheduler.api.metrics import Figures
from scheduler.api.services import Services
from scheduler.api.traffic import LABELS, Traffic

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from db.settings import Settings
HEAD = """# Metrics

Made from what `GET /metrics` gives. Labels are names of the registry, states and kinds of error, nothing that callers
choose. `BAKEOFF_API_METRICS` says who may read them.
"""


def page(settings: Settings, engine: Engine) -> str:
    """Every family with its type, labels and meaning."""
    services = Services(settings=settings, engine=engine, hub=cast("Any", None))
    rows = [(code(one.name), one.type, ", ".join(_labels(one)), one.documentation) for one in _families(services)]
    return "\n".join([HEAD, table(("name", "type", "labels", "meaning"), rows)])


def _families(services: Services) -> list[Any]:
    return [*Figures(services).collect(), *Traffic().collect()]


def _labels(family: Any) -> tuple[str, ...]:
    return tuple(getattr(family, "_labelnames", LABELS))
