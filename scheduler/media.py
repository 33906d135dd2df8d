"""What a file is, by its content, never by its name; and whether it is one that grows beyond all bounds when decoded.

What is asked here is what its header says, before anything is stored. A header that lies is the worker's affair, which
counts what it decodes (`worker.media`).
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import puremagic

from db.errors import InvalidRequest
from worker.media import FORMATS

if TYPE_CHECKING:
    from db.settings import Settings

_TEXT_PROBE = 4096  # bytes looked at before a file counts as text
_READS = 1_000_000  # to find a recording's length: over those of two hours of Ogg, and about a second


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


def check_media(file: BinaryIO, media_type: str, settings: Settings) -> None:
    """Whether a file says that it has more pixels or seconds than may be decoded. Raises `InvalidRequest` then."""
    if media_type.startswith("image/"):
        pixels = _pixels(file)
        if pixels is None or pixels > settings.max_image_pixels:
            shown = "far more" if pixels is None else f"{pixels}"
            raise InvalidRequest(
                f"The picture has {shown} pixels; BAKEOFF_MAX_IMAGE_PIXELS allows {settings.max_image_pixels}."
            )
    if media_type.startswith("audio/") and (seconds := _seconds(file, media_type)) > settings.max_audio_seconds:
        raise InvalidRequest(
            f"The recording says that it lasts {seconds:g} s; BAKEOFF_MAX_AUDIO_SECONDS allows "
            f"{settings.max_audio_seconds:g}."
        )


def _pixels(file: BinaryIO) -> int | None:
    """Of a picture, without decoding it; None where Pillow refuses to say, 0 where it is none: workers refuse that."""
    from PIL import Image  # noqa: PLC0415 - the command line starts without it

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower, and refuses
            width, height = Image.open(file, formats=FORMATS).size
    except Image.DecompressionBombError:
        return None
    except Exception:  # noqa: BLE001 - a broken file makes a parser raise anything
        return 0
    return width * height


def _seconds(file: BinaryIO, media_type: str) -> float:
    """What a recording says of its length; 0 where it says nothing that can be read.

    A program that writes WAV into a pipe does not know the length yet and promises hours: there the bytes decide.
    """
    from tinytag import TinyTag  # noqa: PLC0415 - as above

    try:
        said = TinyTag.get(file_obj=cast(BinaryIO, _Bounded(file)), tags=False)
    except Exception:  # noqa: BLE001 - as above
        return 0.0
    seconds = said.duration or 0.0
    if media_type == "audio/wav" and said.bitrate:
        seconds = min(seconds, said.filesize / (said.bitrate * 125))  # kilobits a second
    return seconds


class _Bounded:
    """A file that is read so often at most: one of mere almost-frames would keep a parser busy for half a minute."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._left = file, _READS

    def read(self, size: int = -1) -> bytes:
        """See `BinaryIO`."""
        self._left -= 1
        if self._left < 0:
            raise ValueError("too many reads")
        return self._file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


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
