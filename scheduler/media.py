"""What a file is, by its content, never by its name."""

from __future__ import annotations

import puremagic

_TEXT_PROBE = 4096  # bytes looked at before a file counts as text


#: Formats that share their first four bytes are told apart by the ninth to the twelfth.
_RIFF = {b"WAVE": "audio/wav", b"WEBP": "image/webp"}


def sniff(data: bytes) -> str:
    """Media type of a file's content, `application/octet-stream` where nothing is recognised."""
    if data[:4] == b"RIFF" and data[8:12] in _RIFF:
        return _RIFF[data[8:12]]
    if data[:5] == b"%PDF-":
        return "application/pdf"
    if _is_text(data[:_TEXT_PROBE]):
        return "text/plain"
    if _is_mpeg_audio(data[:4]):
        return "audio/mpeg"
    try:
        matches = puremagic.magic_string(data[:65536])
    except (puremagic.PureError, ValueError):
        matches = []
    for match in matches:
        if match.mime_type.startswith(("image/", "audio/")):
            return str(match.mime_type)
    return str(matches[0].mime_type) if matches and matches[0].mime_type else "application/octet-stream"


def _is_mpeg_audio(head: bytes) -> bool:
    """A frame header of MPEG audio (ISO 11172-3, 13818-3): 11 bits of sync, no reserved layer, bit rate or rate."""
    if len(head) < 3 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return False
    return head[1] & 0x18 != 0x08 and head[1] & 0x06 != 0 and head[2] & 0xF0 != 0xF0 and head[2] & 0x0C != 0x0C


def _is_text(head: bytes) -> bool:
    if b"\x00" in head:
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4  # a character cut at the end
    return True
