"""The blob store: attachments and large outputs, content-addressed (sha256) through fsspec.

A folder by default, `s3://bucket/prefix` by setting. A blob is written under a temporary name and moved, so a reader
never sees half of it, and writing the same bytes twice stores them once.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from uuid import uuid4

import fsspec
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection, text

from db.errors import NotFound, Unreachable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from db.registry import MediaKind

Digest = str


class AttachmentRef(BaseModel):
    """One element of `task.attachments`: which blob, and what the caller calls it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    name: str = Field("", max_length=255)


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """What the table `artifact` says of a blob. `size` in bytes."""

    sha256: Digest
    size: int
    media_type: str


def digest_of(data: bytes) -> Digest:
    """The name of these bytes: their sha256 in hex."""
    return hashlib.sha256(data).hexdigest()


def kind_of(media_type: str) -> MediaKind | None:
    """`image`, `audio` or `text`, or None for anything else."""
    family = media_type.partition("/")[0]
    if family == "image":
        return "image"
    if family == "audio":
        return "audio"
    return "text" if family == "text" else None


class BlobStore:
    """Reads and writes blobs under one fsspec URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._fs, root = fsspec.core.url_to_fs(url)
        self._root = str(root).rstrip("/")
        self._local = "file" in (self._fs.protocol if isinstance(self._fs.protocol, tuple) else (self._fs.protocol,))

    def _path(self, digest: Digest) -> str:
        return f"{self._root}/{digest[:2]}/{digest[2:4]}/{digest}"

    def put(self, data: bytes) -> Digest:
        """Store bytes, return their sha256 in hex. Raises `Unreachable` where the store does not take them."""
        digest = digest_of(data)
        path = self._path(digest)
        try:
            if self._fs.exists(path):
                return digest
            folder = path.rpartition("/")[0]
            self._fs.makedirs(folder, exist_ok=True)
            if not self._local:  # an object store shows an object when it is whole
                self._fs.pipe_file(path, data)
                return digest
            temporary = f"{folder}/.{uuid4().hex}"
            self._fs.pipe_file(temporary, data)
            self._fs.mv(temporary, path)
        except OSError as error:
            raise Unreachable(f"The blob store {self.url} does not take files ({error.strerror or error}).") from None
        return digest

    def put_file(self, path: Path, digest: Digest) -> None:
        """Store a file under its digest, which the caller has made of it; it is never whole in memory.

        Raises `Unreachable` where the store does not take it.
        """
        target = self._path(digest)
        try:
            if self._fs.exists(target):
                return
            folder = target.rpartition("/")[0]
            self._fs.makedirs(folder, exist_ok=True)
            temporary = f"{folder}/.{uuid4().hex}" if self._local else target
            self._fs.put_file(str(path), temporary)
            if self._local:
                self._fs.mv(temporary, target)
        except OSError as error:
            raise Unreachable(f"The blob store {self.url} does not take files ({error.strerror or error}).") from None

    def pieces(self, digest: Digest, size: int = 1 << 20) -> Iterator[bytes]:
        """The bytes of a blob, at most `size` at a time. Raises `NotFound` or `Unreachable`, also later on the way."""
        try:
            with self._fs.open(self._path(digest), "rb") as file:
                while piece := file.read(size):
                    yield piece
        except FileNotFoundError:
            raise NotFound(f"No blob {digest[:12]}... in {self.url}; it was never uploaded, or was pruned.") from None
        except OSError as error:
            raise Unreachable(f"The blob store {self.url} does not answer ({error.strerror or error}).") from None

    def get(self, digest: Digest) -> bytes:
        """The bytes of a blob. Raises `NotFound` where it is gone, `Unreachable` where the store does not answer."""
        try:
            data: bytes = self._fs.cat_file(self._path(digest))
        except FileNotFoundError:
            raise NotFound(f"No blob {digest[:12]}... in {self.url}; it was never uploaded, or was pruned.") from None
        except OSError as error:
            raise Unreachable(f"The blob store {self.url} does not answer ({error.strerror or error}).") from None
        return data

    def delete(self, digest: Digest) -> None:
        """Remove a blob; one that is gone already is no error. Raises `Unreachable`."""
        try:
            self._fs.rm_file(self._path(digest))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise Unreachable(f"The blob store {self.url} does not answer ({error.strerror or error}).") from None


@lru_cache(maxsize=4)
def blob_store(url: str) -> BlobStore:
    """The store of this process for a URL, made once."""
    return BlobStore(url)


def record_artifacts(connection: Connection, artifacts: Sequence[Artifact]) -> None:
    """Note blobs in the table `artifact`; those already there stay as they are. One statement."""
    if artifacts:
        connection.execute(
            text(
                """
                INSERT INTO artifact (sha256, size, media_type)
                SELECT DISTINCT ON (d.sha256) d.sha256, d.size, d.media_type
                FROM unnest(CAST(:digests AS text[]), CAST(:sizes AS bigint[]), CAST(:types AS text[]))
                     AS d (sha256, size, media_type)
                ORDER BY d.sha256
                ON CONFLICT (sha256) DO NOTHING
                """
            ),
            {
                "digests": [artifact.sha256 for artifact in artifacts],
                "sizes": [artifact.size for artifact in artifacts],
                "types": [artifact.media_type for artifact in artifacts],
            },
        )


def touch_artifacts(connection: Connection, digests: Iterable[Digest]) -> None:
    """Say that these files are about to be named by a task, stored already or not: `prune` leaves them alone.

    Call it before the blobs are written. Where `prune` is deleting one of them this waits until it is gone.
    """
    connection.execute(
        text(
            """
            UPDATE artifact SET used_at = now()
            WHERE sha256 IN (SELECT sha256 FROM artifact WHERE sha256 = ANY(CAST(:digests AS text[]))
                               AND used_at < now() - interval '1 hour' ORDER BY sha256 FOR UPDATE)
            """
        ),
        {"digests": list(set(digests))},
    )


def artifacts_of(connection: Connection, digests: Iterable[Digest]) -> dict[Digest, Artifact]:
    """What is known of these blobs; unknown ones are left out."""
    rows = connection.execute(
        text("SELECT sha256, size, media_type FROM artifact WHERE sha256 = ANY(CAST(:digests AS text[]))"),
        {"digests": list(set(digests))},
    )
    return {row.sha256: Artifact(sha256=row.sha256, size=row.size, media_type=row.media_type) for row in rows}
