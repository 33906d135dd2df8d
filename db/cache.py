"""The result cache: what a model answered to the same input before is not computed again.

There is no store of its own: a `done` candidate whose row holds an `input_key` answers later ones of the same model,
revision and key, for as long as its task is kept. Keys are made when a subtask is planned, looked up when its
candidates are chosen, and again when they are claimed.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import Connection, text

from db.tasks import announce

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: The stored output of row `r`, which names a model, its revision and an input key.
HIT = """
SELECT h.output, h.detail, h.usage FROM candidate AS h
WHERE h.model = r.model AND h.input_key = r.input_key AND h.revision = r.revision AND h.output IS NOT NULL LIMIT 1
"""


def input_key(
    *,
    capability: str,
    instruction: str,
    texts: Sequence[str],
    files: Sequence[tuple[str, str]],
    params: Mapping[str, Any],
) -> bytes | None:
    """The sha256 of all that a model reads: 32 bytes; `files` are (sha256, name). None where outputs are sampled."""
    if params.get("temperature"):
        return None
    read = {
        "capability": capability,
        "instruction": instruction,
        "texts": list(texts),
        "files": [list(file) for file in files],
        "params": dict(params),
    }
    return hashlib.sha256(json.dumps(read, sort_keys=True, ensure_ascii=False).encode("utf-8", "replace")).digest()


def answer_from_cache(
    connection: Connection, token: UUID, ids: Sequence[UUID], revision: str, *, in_chord: bool
) -> list[UUID]:
    """End those of these candidates, claimed under a token, whose output is stored already. Returns their ids.

    Nothing is charged: they never entered the model.
    """
    rows = connection.execute(
        text(
            f"""
            WITH found AS (
                SELECT r.id, hit.* FROM (
                    SELECT id, model, input_key, CAST(:revision AS text) AS revision FROM candidate
                    WHERE id = ANY(CAST(:ids AS uuid[])) AND token = :token AND input_key IS NOT NULL) AS r
                CROSS JOIN LATERAL ({HIT}) AS hit
            )
            UPDATE candidate AS c SET
                status = 'done', output = f.output, detail = f.detail, usage = f.usage, cached = true, seconds = 0,
                error = NULL, revision = :revision, token = NULL, lease_until = NULL, finished_at = now()
            FROM found AS f WHERE c.id = f.id AND c.token = :token
            RETURNING c.id
            """  # noqa: S608 - a constant
        ),
        {"token": token, "ids": list(ids), "revision": revision},
    )
    ids = list(rows.scalars())
    if ids and not in_chord:
        announce(connection, "candidate")
    return ids
