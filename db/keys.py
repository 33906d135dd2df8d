"""Keys of the HTTP API: `bakeoff_ID_SECRET`. The database holds the sha256 of the secret half, never the secret.

The secret is 256 random bits. A slow, salted hash guards words that people choose, which can be guessed; nobody guesses
256 random bits, so one sha256 is as safe, and a request costs no tenth of a second of scrypt. The public half finds the
row by its primary key; the secret half is compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from db.errors import InvalidRequest, NotFound, SettingsError

TOKEN = re.compile(r"bakeoff_([0-9a-f]{32})_([A-Za-z0-9_-]{43})")
SECRET_BYTES = 32
COLUMNS = "id, created_at, name, scopes, source, last_used_at, revoked_at"


class Scope(StrEnum):
    """What a key may do."""

    SUBMIT = "submit"  # store tasks and files, cancel, retry, prefer, ask by chat
    READ = "read"  # tasks, files, events, models, the leaderboard, figures
    ADMIN = "admin"  # everything


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """A key without its secret. `source`: the only one whose tasks it writes and sees; None is every one."""

    id: UUID
    created_at: datetime
    name: str
    scopes: tuple[Scope, ...]
    source: str | None
    last_used_at: datetime | None
    revoked_at: datetime | None

    def may(self, scope: Scope) -> bool:
        """Whether it opens what needs this scope."""
        return scope in self.scopes or Scope.ADMIN in self.scopes


def create_key(connection: Connection, *, name: str, scopes: Collection[Scope], source: str | None) -> tuple[UUID, str]:
    """Store a new key; returns its id and the whole key, which nobody can show again. Raises `InvalidRequest`."""
    for field, said in (("name", name), ("source", source)):
        if said is not None and (not 1 <= len(said) <= 100 or not said.isprintable()):
            raise InvalidRequest(f"{field} = {said!r:.120} must have 1 to 100 characters, all of them printable.")
    if not scopes:
        raise InvalidRequest(f"A key needs a scope; there are: {', '.join(Scope)}.")
    secret = secrets.token_urlsafe(SECRET_BYTES)
    id_: UUID = connection.execute(
        text(
            """
            INSERT INTO api_key (name, scopes, source, digest)
            VALUES (:name, CAST(:scopes AS text[]), :source, :digest) RETURNING id
            """
        ),
        {
            "name": name,
            "scopes": [str(scope) for scope in Scope if scope in scopes],
            "source": source,
            "digest": _digest(secret),
        },
    ).scalar_one()
    return id_, f"bakeoff_{id_.hex}_{secret}"


def store_first_key(connection: Connection, token: str) -> bool:
    """Store a key with the scope admin that somebody else made, unless a key was ever made; returns whether it was.

    Raises `SettingsError` where it is no key.
    """
    match = TOKEN.fullmatch(token)
    if match is None:
        raise SettingsError(
            "BAKEOFF_API_FIRST_KEY is no key: `bakeoff_`, 32 hexadecimal digits, `_`, and 43 letters, digits, - or _."
        )
    return bool(
        connection.execute(
            text(
                """
                INSERT INTO api_key (id, name, scopes, digest) SELECT :id, 'first', ARRAY['admin'], :digest
                WHERE NOT EXISTS (SELECT FROM api_key) ON CONFLICT (id) DO NOTHING
                """
            ),
            {"id": UUID(match[1]), "digest": _digest(match[2])},
        ).rowcount
    )


def verified_key(connection: Connection, token: str) -> ApiKey | None:
    """The key of a token, unless it is unknown, wrong or revoked. Notes its use, at most once a minute."""
    match = TOKEN.fullmatch(token)
    if match is None:
        return None
    row = connection.execute(
        text(
            f"""
            SELECT {COLUMNS}, digest, coalesce(last_used_at < now() - interval '1 minute', true) AS stale
            FROM api_key WHERE id = :id AND revoked_at IS NULL
            """  # noqa: S608 - a constant
        ),
        {"id": UUID(match[1])},
    ).one_or_none()
    if row is None or not hmac.compare_digest(bytes(row.digest), _digest(match[2])):
        return None
    if row.stale:  # whoever else is about to say the same need not wait
        connection.execute(
            text(
                """
                UPDATE api_key SET last_used_at = now()
                WHERE id = (SELECT id FROM api_key WHERE id = :id FOR NO KEY UPDATE SKIP LOCKED)
                """
            ),
            {"id": row.id},
        )
    return _key(row)


def list_keys(connection: Connection) -> list[ApiKey]:
    """All keys, revoked ones too, the oldest first."""
    rows = connection.execute(text(f"SELECT {COLUMNS} FROM api_key ORDER BY id"))  # noqa: S608 - a constant
    return [_key(row) for row in rows]


def any_key(connection: Connection) -> bool:
    """Whether a key was ever made. Revoked ones count: to revoke the last one must not open the door."""
    found: bool = connection.execute(text("SELECT EXISTS (SELECT FROM api_key)")).scalar_one()
    return found


def revoke_key(connection: Connection, which: str) -> ApiKey:
    """Revoke the key of an id, of its beginning, or of a name. Raises `NotFound`, or `InvalidRequest` for several."""
    plain = which.lower().replace("-", "")
    found = [
        key for key in list_keys(connection) if key.name == which or (len(plain) >= 4 and key.id.hex.startswith(plain))
    ]
    active = [key for key in found if key.revoked_at is None]
    if not found:
        raise NotFound(f"No key {which!r}; `bakeoff keys list` lists them.")
    if len(active) > 1:
        names = ", ".join(str(key.id) for key in active)
        raise InvalidRequest(f"{which!r} stands for several keys; say which: {names}.")
    if not active:
        return found[-1]
    connection.execute(text("UPDATE api_key SET revoked_at = now() WHERE id = :id"), {"id": active[0].id})
    return active[0]


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _key(row: Any) -> ApiKey:
    return ApiKey(
        id=row.id,
        created_at=row.created_at,
        name=row.name,
        scopes=tuple(Scope(scope) for scope in row.scopes),
        source=row.source,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )
