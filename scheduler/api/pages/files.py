"""The files of a task or group, as a page shows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from db.blobs import Artifact, artifacts_of
from scheduler.api.attachments import HARMLESS


@dataclass(frozen=True, kw_only=True)
class File:
    """A file. `kind`: `image` or `audio`, which a page shows; else it is offered, or named only."""

    name: str
    kind: str
    address: str
    size: int | None


def files_of(connection: Connection, said: Sequence[Any], address: Callable[[str], str]) -> list[File]:
    """What a page shows of these references; a row that was inserted with SQL may hold anything there."""
    given = [one for one in said if isinstance(one, Mapping) and isinstance(one.get("sha256"), str)]
    known = artifacts_of(connection, [one["sha256"] for one in given])
    return [_file(one, known.get(one["sha256"]), address) for one in given]


def _file(said: Mapping[str, Any], artifact: Artifact | None, address: Callable[[str], str]) -> File:
    harmless = artifact is not None and artifact.media_type.startswith(HARMLESS)
    kind = artifact.media_type.partition("/")[0] if artifact is not None and harmless else ""
    return File(
        name=str(said.get("name") or said["sha256"]),
        kind=kind if kind in {"image", "audio"} else "",
        address=address(said["sha256"]) if artifact is not None else "",
        size=None if artifact is None else artifact.size,
    )
