"""Files over HTTP: streamed in and out, named by their sha256, typed by their content, never by what a caller says."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from itertools import chain
from pathlib import Path as FilePath
from typing import IO, Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from db.blobs import Artifact, artifacts_of, blob_store, record_artifacts, touch_artifacts
from db.engine import transaction
from db.errors import InvalidRequest, NotFound
from db.watching import names_file
from scheduler.api.access import Reader, Submitter
from scheduler.api.services import Services, Shared
from scheduler.media import check_media, sniff

router = APIRouter(prefix="/v1", tags=["attachments"])

PIECE = 1 << 20  # bytes that are written at once
HEAD = 1 << 16  # bytes that say what a file is
#: What a browser may be told a file is; anything else could be run by one.
HARMLESS = ("image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp", "image/tiff", "audio/", "text/plain")
BINARY: dict[str, Any] = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}

Digest = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="The sha256 of the file, in hex.")]


class Stored(BaseModel):
    """A file that tasks can name now. One that none names is deleted after a day, at the next `bakeoff prune`."""

    sha256: str
    size: int
    media_type: str


@router.post(
    "/attachments",
    status_code=201,
    openapi_extra={"requestBody": {"required": True, "content": BINARY}},
)
async def store_attachment(request: Request, _: Submitter, shared: Shared, response: Response) -> Stored:
    """Store a file: the body is its bytes, whatever type they are said to be. The same bytes are stored once."""
    with tempfile.NamedTemporaryFile(prefix="bakeoff-") as file:
        artifact = await _received(request.stream(), file)
        await run_in_threadpool(_keep, shared, FilePath(file.name), artifact)
    response.headers["Location"] = f"/v1/attachments/{artifact.sha256}"
    return Stored(sha256=artifact.sha256, size=artifact.size, media_type=artifact.media_type)


async def _received(stream: AsyncIterator[bytes], file: IO[bytes]) -> Artifact:
    """Write a body to a file piece by piece, and say what it is. Raises `InvalidRequest` where there is none."""
    digest, size, head, waiting = hashlib.sha256(), 0, b"", bytearray()
    async for piece in stream:
        waiting += piece
        size += len(piece)
        head += piece[: HEAD - len(head)]
        if len(waiting) >= PIECE:
            digest.update(waiting)
            await run_in_threadpool(file.write, bytes(waiting))
            waiting.clear()
    if not size:
        raise InvalidRequest("The body is empty; send the bytes of the file as they are.")
    digest.update(waiting)
    await run_in_threadpool(file.write, bytes(waiting))
    await run_in_threadpool(file.flush)
    return Artifact(sha256=digest.hexdigest(), size=size, media_type=sniff(head))


def _keep(shared: Services, path: FilePath, artifact: Artifact) -> None:
    """The bytes first, then the row; `prune` leaves alone what was touched. Raises `InvalidRequest` for a bomb."""
    with path.open("rb") as file:
        check_media(file, artifact.media_type, shared.settings)
    with transaction(shared.engine) as connection:
        touch_artifacts(connection, [artifact.sha256])
    blob_store(shared.settings.blobs).put_file(path, artifact.sha256)
    with transaction(shared.engine) as connection:
        record_artifacts(connection, [artifact])


@router.get(
    "/attachments/{sha256}",
    response_class=StreamingResponse,
    responses={200: {"description": "The bytes of the file.", "content": {"*/*": {"schema": {"type": "string"}}}}},
)
def read_attachment(sha256: Digest, caller: Reader, shared: Shared) -> StreamingResponse:
    """The bytes of a file. A key of one source reads what its own tasks name."""
    with transaction(shared.engine) as connection:
        artifact = artifacts_of(connection, [sha256]).get(sha256)
        if artifact is None or not (caller.source is None or names_file(connection, caller.source, sha256)):
            raise NotFound(f"No file {sha256}.")
    pieces = blob_store(shared.settings.blobs).pieces(sha256)
    try:
        first = next(pieces, b"")  # what goes wrong at once is a problem document yet
    except NotFound:
        raise NotFound(f"File {sha256} is gone from the store.") from None
    return StreamingResponse(_all(first, pieces), headers=_headers(artifact), media_type=_media_type(artifact))


def _all(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    return chain([first], rest)


def _media_type(artifact: Artifact) -> str:
    harmless = artifact.media_type.startswith(HARMLESS)
    return artifact.media_type if harmless else "application/octet-stream"


def _headers(artifact: Artifact) -> dict[str, str]:
    """A browser saves it, guesses nothing about it, and runs nothing in it."""
    return {
        "Content-Length": str(artifact.size),
        "Content-Disposition": f'attachment; filename="{artifact.sha256}"',
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Cache-Control": "private, immutable, max-age=86400",
        "ETag": f'"{artifact.sha256}"',
    }
