"""Webhooks, as who receives them checks them: Standard Webhooks, v1."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from bakeoff_client.errors import BadSignature
from bakeoff_client.records import Record, Result

PREFIX = "whsec_"
TOLERANCE = 300.0  # seconds


@dataclass(frozen=True, kw_only=True)
class WebhookEvent(Record):
    """A delivery that is what it says. The same `id` may come twice: remember those that you have handled."""

    id: str
    type: str = ""
    timestamp: datetime | None = None
    data: Result


def verify_webhook(
    secret: str | Iterable[str],
    headers: Mapping[str, str],
    body: bytes | str,
    *,
    tolerance: float = TOLERANCE,
    now: float | None = None,
) -> WebhookEvent:
    """What a delivery says, once its signature and its time are right. Raises `BadSignature`.

    `body` is the raw body, before anybody parsed it. `secret` is what `bakeoff webhooks add` printed; several, while
    you change it. `tolerance`: seconds that the delivery may be old, or early.
    """
    given = {name.lower(): value for name, value in headers.items()}
    id_, moment, signatures = (given.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature"))
    if not (id_ and moment and signatures):
        raise BadSignature("The headers webhook-id, webhook-timestamp and webhook-signature must all be there.")
    raw = body.encode() if isinstance(body, str) else body
    signed = b".".join([id_.encode(), moment.encode(), raw])
    secrets = [secret] if isinstance(secret, str) else secret
    wanted = [hmac.new(_bytes_of(one), signed, hashlib.sha256).digest() for one in secrets]
    found = [_signature(one) for one in signatures.split()]
    if not any(hmac.compare_digest(one, other) for one in wanted for other in found):
        raise BadSignature("The signature is not that of this secret, or the body is not what was signed.")
    _check_time(moment, tolerance, time.time() if now is None else now)
    try:
        document = json.loads(raw)
        return WebhookEvent.of({**document, "id": id_})
    except (ValueError, TypeError, KeyError):
        raise BadSignature("The body is signed, and no delivery of Bakeoff's.") from None


def _check_time(moment: str, tolerance: float, now: float) -> None:
    if not (moment.isascii() and moment.isdigit() and abs(now - int(moment)) <= tolerance):
        raise BadSignature(f"webhook-timestamp is {moment[:20]}, more than {tolerance:g} s from this machine's clock.")


def _bytes_of(secret: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("secret: it must be what `bakeoff webhooks add` printed, whsec_ and base64.") from None


def _signature(said: str) -> bytes:
    """The bytes of one `v1,BASE64`; nothing for another kind."""
    version, _, value = said.partition(",")
    try:
        return base64.b64decode(value, validate=True) if version == "v1" else b""
    except (binascii.Error, ValueError):
        return b""
