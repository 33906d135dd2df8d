"""What a file is, by its content, never by its name."""

from __future__ import annotations

import puremagic

from db.registry import MediaKind

_TEXT_PROBE = 4096  # bytes looked at before a file counts as text


#: Formats that share their first four bytes are told apart by the ninth to the twelfth.
_RIFF = {b"WAVE": "audio/wav", b"WEBP": "image/webp"}


def sniff(data: bytes) -> str:
    """Media type of a file's content, `application/octet-stream` where nothing is recognised."""
    if data[:4] == b"RIFF" and data[8:12] in _RIFF:
        return _RIFF[data[8:12]]
    try:
        matches = puremagic.magic_string(data[:65536])
    except (puremagic.PureError, ValueError):
        matches = []
    for match in matches:
        if match.mime_type.startswith(("image/", "audio/")):
            return str(match.mime_type)
    if _is_text(data[:_TEXT_PROBE]):
        return "text/plain"
    return str(matches[0].mime_type) if matches and matches[0].mime_type else "application/octet-stream"


def _is_text(head: bytes) -> bool:
    if b"\x00" in head:
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4  # a character cut at the end
    return True


def kind_of(media_type: str) -> MediaKind | None:
    """`image`, `audio` or `text`, or None for anything else."""
    family = media_type.partition("/")[0]
    if family == "image":
        return "image"
    if family == "audio":
        return "audio"
    return "text" if family == "text" else None
