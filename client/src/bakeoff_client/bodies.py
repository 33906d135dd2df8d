"""Files on their way to the server, piece by piece: none is ever held in memory whole, but for what came as bytes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TypeAlias

from bakeoff_client.records import File

PIECE = 1 << 18  # bytes

#: The bytes of a file: themselves, where they are, or something that is open for reading bytes.
Source: TypeAlias = bytes | str | os.PathLike[str] | IO[bytes]
#: What a task may bring along: a file, a file under a name of its own, or one that was uploaded before.
Attachment: TypeAlias = Source | tuple[str, Source | File] | File


class Body:
    """The bytes of one file. `sha256` is that of the pieces that were read last."""

    def __init__(self, source: Source) -> None:
        self._source = Path(source) if isinstance(source, str | os.PathLike) else source
        self._start = _place(self._source)
        self.sha256 = hashlib.sha256().hexdigest()
        self.rewindable = isinstance(self._source, bytes | Path) or self._start is not None
        self.size = _size(self._source)

    def pieces(self) -> Iterator[bytes]:
        """From the first byte, each time."""
        digest = hashlib.sha256()
        for piece in self._read():
            digest.update(piece)
            self.sha256 = digest.hexdigest()
            yield piece

    def _read(self) -> Iterator[bytes]:
        source = self._source
        if isinstance(source, bytes):
            for begin in range(0, len(source), PIECE):
                yield source[begin : begin + PIECE]
        elif isinstance(source, Path):
            with source.open("rb") as file:
                yield from iter(lambda: file.read(PIECE), b"")
        else:
            if self._start is not None:
                source.seek(self._start)
            yield from iter(lambda: source.read(PIECE), b"")


def _place(source: bytes | Path | IO[bytes]) -> int | None:
    """Where an open file stands; None for what cannot go back there."""
    if isinstance(source, bytes | Path):
        return None
    try:
        return source.tell() if source.seekable() else None
    except (AttributeError, OSError):
        return None


def _size(source: bytes | Path | IO[bytes]) -> int | None:
    """Bytes, where that is known before they are read. A path that nothing is at is the caller's `OSError`."""
    if isinstance(source, bytes):
        return len(source)
    return source.stat().st_size if isinstance(source, Path) else None


def name_of(source: Source, number: int) -> str:
    """What a file is called, where its sender gave it no name."""
    said = source if isinstance(source, str | os.PathLike) else getattr(source, "name", None)
    if isinstance(said, str | os.PathLike):
        return Path(said).name or f"attachment-{number}"
    return f"attachment-{number}"
