"""Files that are small on disk and huge in memory: refused at the door by what they say, in workers by what they hold."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest

np = pytest.importorskip("numpy")
soundfile = pytest.importorskip("soundfile")

from PIL import Image  # noqa: E402

from db.errors import InvalidRequest  # noqa: E402
from db.settings import Settings, load_settings  # noqa: E402
from scheduler.media import check_media, sniff  # noqa: E402
from worker.backends import BadInput, File  # noqa: E402
from worker.media import decode_audio, decode_image  # noqa: E402

SIDE = 16_000  # 256 million pixels


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Settings]]:
    def limited(**settings: str) -> Settings:
        for name, value in settings.items():
            monkeypatch.setenv(f"BAKEOFF_{name.upper()}", value)
        load_settings.cache_clear()
        return load_settings()

    load_settings.cache_clear()
    yield limited
    monkeypatch.undo()
    load_settings.cache_clear()


def small(kind: str) -> bytearray:
    data = BytesIO()
    Image.new("RGB", (8, 8)).save(data, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return bytearray(data.getvalue())


def png() -> bytes:
    data = small("PNG")
    data[16:24] = struct.pack(">II", SIDE, SIDE)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def jpeg() -> bytes:
    data = small("JPEG")
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", SIDE, SIDE)
    return bytes(data)


def gif() -> bytes:
    data = small("GIF")
    data[6:10] = struct.pack("<HH", SIDE, SIDE)
    return bytes(data)


def webp() -> bytes:
    data = small("WEBP")
    place = data.index(b"VP8L") + 9
    data[place : place + 4] = struct.pack("<I", (SIDE - 1) | (SIDE - 1) << 14)
    return bytes(data)


def sound(kind: str, seconds: float, rate: int = 16_000, channels: int = 1) -> bytes:
    data = BytesIO()
    soundfile.write(data, np.zeros((int(seconds * rate), channels)), rate, format=kind)
    return data.getvalue()


@pytest.mark.parametrize("made", [png, jpeg, gif, webp])
def test_a_picture_that_says_that_it_is_huge_is_refused_twice(made: Callable[[], bytes]) -> None:
    data = made()
    media_type = sniff(data)

    with pytest.raises(InvalidRequest, match="BAKEOFF_MAX_IMAGE_PIXELS allows 50000000"):
        check_media(BytesIO(data), media_type, Settings())
    with pytest.raises(BadInput, match="limit of 50 million pixels"):
        decode_image(File(name="bomb", media_type=media_type, data=data))


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_a_recording_that_is_too_long_is_refused_twice(kind: str, limits: Callable[..., Settings]) -> None:
    data = sound(kind, 3)
    settings = limits(max_audio_seconds="1")

    with pytest.raises(InvalidRequest, match="BAKEOFF_MAX_AUDIO_SECONDS allows 1"):
        check_media(BytesIO(data), sniff(data), settings)
    with pytest.raises(BadInput, match="longer than the limit of 1 seconds"):
        decode_audio(File(name="long", media_type=sniff(data), data=data))


def test_a_recording_whose_header_promises_a_century_is_refused_and_never_allocated() -> None:
    data = bytearray(sound("FLAC", 1))
    data[21] |= 0x0F
    data[22:26] = b"\xff" * 4  # 2^36 samples

    with pytest.raises(InvalidRequest, match="BAKEOFF_MAX_AUDIO_SECONDS"):
        check_media(BytesIO(data), sniff(bytes(data)), Settings())
    try:
        samples = decode_audio(File(name="lies", media_type="audio/flac", data=bytes(data)))
    except BadInput:
        return
    assert len(samples) <= 16_000


@pytest.mark.parametrize("promised", [0xFFFFFFFF, 0x80000000, 0x7FFFF000], ids=["ffmpeg", "arecord", "sox"])
def test_a_recording_that_was_written_into_a_pipe_has_the_length_of_its_bytes(
    promised: int, limits: Callable[..., Settings]
) -> None:
    data = bytearray(sound("WAV", 3))
    place = data.index(b"data") + 4
    data[place : place + 4] = struct.pack("<I", promised)

    check_media(BytesIO(data), sniff(bytes(data)), Settings())
    assert len(decode_audio(File(name="piped", media_type="audio/wav", data=bytes(data)))) == 48_000
    with pytest.raises(InvalidRequest, match="BAKEOFF_MAX_AUDIO_SECONDS allows 2"):
        check_media(BytesIO(data), sniff(bytes(data)), limits(max_audio_seconds="2"))


def test_a_recording_of_nothing_but_almost_frames_keeps_nobody_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame, and then what looks like the beginning of one at each byte."""
    reads = 0

    class Counting(BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            nonlocal reads
            reads += 1
            return super().read(size)

    monkeypatch.setattr("scheduler.media._READS", 1000)
    check_media(Counting(b"\xff\xfb\x90\x00" + bytes(413) + b"\xff" * 100_000), "audio/mpeg", Settings())

    assert 500 < reads < 1100


def test_a_scan_of_49_million_pixels_is_taken() -> None:
    data = BytesIO()
    Image.new("1", (7000, 7000)).save(data, "TIFF", compression="group4")

    check_media(data, "image/tiff", Settings())
    assert decode_image(File(name="scan", media_type="image/tiff", data=data.getvalue())).size == (7000, 7000)


def test_neither_rate_nor_channels_make_a_permitted_recording_huge(limits: Callable[..., Settings]) -> None:
    limits(max_audio_seconds="1")
    dense, wide = sound("WAV", 0.6, rate=96_000), sound("WAV", 0.2, channels=60)

    with pytest.raises(BadInput, match=r"limit of 0\.5 seconds at 96000 Hz"):
        decode_audio(File(name="dense", media_type="audio/wav", data=dense))
    assert len(decode_audio(File(name="wide", media_type="audio/wav", data=wide))) == 3200


def test_what_only_calls_itself_a_picture_or_a_recording_is_left_to_the_worker() -> None:
    check_media(BytesIO(b"\x89PNG\r\n\x1a\n" + b"\x00" * 40), "image/png", Settings())
    check_media(BytesIO(b"fLaC" + b"\xff" * 60), "audio/flac", Settings())


def test_no_picture_makes_a_program_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow gives EPS to Ghostscript, whatever media type the file came with."""
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    data = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n%%EOF\n"

    with pytest.raises(BadInput, match="not a picture"):
        decode_image(File(name="a.png", media_type="image/png", data=data))

    assert not (tmp_path / "ran").exists()
