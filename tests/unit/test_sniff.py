from __future__ import annotations

import io
import wave

import pytest
from PIL import Image

from db.blobs import kind_of
from scheduler.media import sniff


def picture(form: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), "white").save(out, form)
    return out.getvalue()


def recording() -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(b"\x00\x00" * 1600)
    return out.getvalue()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_pictures_are_known_by_their_content(form: str) -> None:
    assert kind_of(sniff(picture(form))) == "image"


def test_a_recording_is_known_by_its_content() -> None:
    assert kind_of(sniff(recording())) == "audio"


@pytest.mark.parametrize(
    "head", [b"fLaC\x00\x00\x00\x22" + bytes(40), b"OggS\x00\x02" + bytes(40), b"ID3\x04\x00" + bytes(40)]
)
def test_other_sound_formats_are_known(head: bytes) -> None:
    assert kind_of(sniff(head)) == "audio"


@pytest.mark.parametrize("text", [b"plain words", "Grüße".encode(), b"{}"])
def test_text_is_text(text: bytes) -> None:
    assert kind_of(sniff(text)) == "text"


def test_anything_else_is_no_kind_that_a_model_reads() -> None:
    assert kind_of(sniff(b"\x00\x01\x02\x03" * 50)) is None


@pytest.mark.parametrize("header", ["fffb9000", "fff34400", "ffe34400", "fff38400"])
def test_an_mp3_without_a_tag_is_sound(header: str) -> None:
    assert kind_of(sniff(bytes.fromhex(header) + bytes(400))) == "audio"


@pytest.mark.parametrize("text", [b"BM is not a bitmap", b"P5 neither", b"ID3 tag, in words", b"RIFF raff"])
def test_words_that_begin_like_a_format_are_text(text: bytes) -> None:
    assert kind_of(sniff(text)) == "text"


@pytest.mark.parametrize("data", [b"%PDF-1.7 words only", b"<svg xmlns='http://www.w3.org/2000/svg'/>"])
def test_what_only_looks_like_a_picture_is_none(data: bytes) -> None:
    assert kind_of(sniff(data)) != "image"
