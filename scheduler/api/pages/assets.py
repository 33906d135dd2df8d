"""Our own styles and scripts. An address holds the digest of the content, so that a browser keeps it for a year."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Response

from db.errors import NotFound

router = APIRouter(prefix="/static", include_in_schema=False)

FOLDER = Path(__file__).parent / "static"
TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
YEAR = "public, max-age=31536000, immutable"


@dataclass(frozen=True, kw_only=True)
class StaticFile:
    """A file of the folder."""

    content: bytes
    digest: str
    media_type: str


@cache
def _files() -> dict[str, StaticFile]:
    """Every file by name: nothing else has an address."""
    found = {path.name: path for path in FOLDER.iterdir() if path.suffix in TYPES}
    return {
        name: StaticFile(
            content=path.read_bytes(),
            digest=hashlib.sha256(path.read_bytes()).hexdigest()[:16],
            media_type=TYPES[path.suffix],
        )
        for name, path in found.items()
    }


def static_address(name: str) -> str:
    """Where a page finds this file."""
    return f"/static/{_files()[name].digest}/{name}"


@router.get("/{digest}/{name}")
def static_file(digest: str, name: str) -> Response:
    """A file. Asked for by another digest, by a page of the version before or after, it is kept by nobody."""
    file = _files().get(name)
    if file is None:
        raise NotFound(f"No file {name!r:.100}.")
    headers = {
        "Cache-Control": YEAR if digest == file.digest else "no-store",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(file.content, headers=headers, media_type=file.media_type)
