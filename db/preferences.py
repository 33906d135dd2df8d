"""What preferences say about texts: read for judges that are fitted on them (`bakeoff judge fit`).

Bounded (the latest of one capability) and by index: `ix_preference_capability_created_at`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

if TYPE_CHECKING:
    from collections.abc import Sequence

TEXT_CHARS = 20_000  # of a request and of an output: no judge reads more


@dataclass(frozen=True, kw_only=True)
class PreferredText:
    """For `request`, one output is better than the other. Models are None where nobody said whose output it is.

    `group` names what the pair is about: a split into rows to fit on and rows to test never divides one.
    """

    group: str
    request: str
    better: str
    worse: str
    better_model: str | None
    worse_model: str | None


def preferred_texts(
    connection: Connection, capability: str, limit: int, origins: Sequence[str] = ("human", "import")
) -> list[PreferredText]:
    """The latest `limit` preferences of a capability, the latest first. One statement.

    By default those that a person or a label gave: a judge that learns from judges learns their faults.
    """
    rows = connection.execute(
        text(
            """
            SELECT group_key AS group, left(coalesce(input ->> 'text', ''), :chars) AS request,
                   left(better ->> 'text', :chars) AS better, left(worse ->> 'text', :chars) AS worse,
                   better ->> 'model' AS better_model, worse ->> 'model' AS worse_model
            FROM preference
            WHERE capability = :capability AND origin = ANY(:origins)
              AND better ->> 'text' IS NOT NULL AND worse ->> 'text' IS NOT NULL
            ORDER BY created_at DESC LIMIT :limit
            """
        ),
        {"capability": capability, "limit": limit, "origins": list(origins), "chars": TEXT_CHARS},
    )
    return [PreferredText(**row._mapping) for row in rows]  # noqa: SLF001 - the documented name


def capabilities_with_preferences(connection: Connection) -> dict[str, int]:
    """How many preferences each capability has, by name. One statement."""
    rows = connection.execute(
        text("SELECT capability, count(*) AS preferences FROM preference GROUP BY capability ORDER BY 1")
    )
    return {row.capability: int(row.preferences) for row in rows}
