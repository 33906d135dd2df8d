"""The schema. SQLAlchemy models; constraints make wrong states impossible.

Task (plan, integrate), subtask (judge) and candidate (run) carry the same lease columns (`Lease`); one claim, renew,
finish and give-back serves all of them (`db.lease`). `source` and `priority` of a subtask are copies of its task's,
which never change, so that dispatch reads one index.
"""

from __future__ import annotations

from db.schema import annotation, api, callback, curation, queue, served, tally  # noqa: F401 - their tables belong to `Base`
from db.schema.base import XID8, Base

__all__ = ["XID8", "Base"]
