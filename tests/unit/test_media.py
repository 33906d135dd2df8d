"""Decoding: the shapes that engines rely on, and a sentence for everything that cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

import pytest

np = pytest.importorskip("numpy")
soundfile = pytest.importorskip("soundfile")

from PIL import Image  # noqa: E402

from db.settings import load_settings  # noqa: E402
from worker.backends import BadInput, File, Input  # noqa: E402
from worker.media import decode_audio, decode_image, files_of, only_file, request_text, resample  # noqa: E402


@pytest.fixture(autouse=True)
def _settings_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    load_settings.cache_clear()
    yield
    monkeypatch.undo()
    load_settings.cache_clear()


def sound(rate: int = 16000, seconds: float = 0.5, channels: int = 1, kind: str = "WAV", hertz: float = 1000.0) -> File:
    tone = 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)
    data = BytesIO()
    soundfile.write(data, np.stack([tone] * channels, axis=1), rate, format=kind)
    return File(name=f"tone.{kind.lower()}", media_type="audio/wav", data=data.getvalue())


def image(picture: Image.Image, kind: str = "PNG", **more: object) -> File:
    data = BytesIO()
    picture.save(data, kind, **more)
    return File(name=f"picture.{kind.lower()}", media_type=f"image/{kind.lower()}", data=data.getvalue())


def file(data: bytes) -> File:
    return File(name="thing", media_type="application/octet-stream", data=data)


# --- sound --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (44100, 2), (8000, 1)])
def test_sound_becomes_16_khz_mono(kind: str, rate: int, channels: int) -> None:
    samples = decode_audio(sound(rate, channels=channels, kind=kind))
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert len(samples) == pytest.approx(8000, abs=1600)  # lossy formats pad
    loudest = np.abs(np.fft.rfft(samples * np.hanning(len(samples)))).argmax() * 16000 / len(samples)
    assert loudest == pytest.approx(1000, abs=5)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000])
def test_resampling_keeps_a_tone(rate: int) -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(rate) / rate).astype(np.float32)
    result = resample(tone, rate)
    expected = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    assert result.shape == (16000,)
    assert np.abs(result - expected)[200:-200].max() < 1e-3


def test_resampling_removes_what_16_khz_cannot_hold() -> None:
    tone = np.sin(2 * np.pi * 15000 * np.arange(48000) / 48000).astype(np.float32)
    assert np.abs(resample(tone, 48000))[200:-200].max() < 1e-3


def test_a_recording_longer_than_the_limit_is_refused() -> None:
    with pytest.raises(BadInput, match=r"limit of 0\.2 seconds"):
        decode_audio(sound(seconds=0.5), max_seconds=0.2)


@pytest.mark.parametrize("data", [b"", b"no sound at all", sound().data[:20]])
def test_what_is_no_sound_is_refused_in_a_sentence(data: bytes) -> None:
    with pytest.raises(BadInput, match=r"^thing: (not a readable|holds no)"):
        decode_audio(file(data))


def test_a_recording_without_samples_is_refused() -> None:
    with pytest.raises(BadInput, match="holds no sound"):
        decode_audio(sound(seconds=0))


def test_samples_that_are_no_numbers_do_not_spread() -> None:
    data = BytesIO()
    soundfile.write(data, np.array([0.1, np.nan, np.inf, 0.2]), 16000, format="WAV", subtype="FLOAT")
    assert np.isfinite(decode_audio(file(data.getvalue()))).all()


# --- pictures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA"])
def test_every_kind_of_picture_becomes_rgb(mode: str) -> None:
    decoded = decode_image(image(Image.new(mode, (7, 5))))
    assert decoded.mode == "RGB"
    assert decoded.size == (7, 5)


def test_transparency_is_laid_over_white() -> None:
    assert decode_image(image(Image.new("RGBA", (2, 2), (0, 0, 0, 0)))).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bit_greys_keep_their_shades() -> None:
    greys = Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16))
    assert [pixel[0] for pixel in np.asarray(decode_image(image(greys)))[0]] == pytest.approx([0, 127, 255], abs=1)


def test_a_picture_is_turned_as_its_camera_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    assert decode_image(image(Image.new("RGB", (8, 4)), "JPEG", exif=exif)).size == (4, 8)


def test_a_picture_with_too_many_pixels_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAKEOFF_MAX_IMAGE_PIXELS", "50000")
    load_settings.cache_clear()
    with pytest.raises(BadInput, match=r"300 x 200 pixels is more than the limit of 0\.05 million"):
        decode_image(image(Image.new("1", (300, 200))))


@pytest.mark.parametrize("data", [b"", b"no picture", image(Image.new("RGB", (50, 50))).data[:60]])
def test_what_is_no_picture_is_refused_in_a_sentence(data: bytes) -> None:
    with pytest.raises(BadInput, match=r"^thing: (not a picture|a broken picture)"):
        decode_image(file(data))


# --- which file ---------------------------------------------------------------------------------------------------


def test_files_are_told_apart_by_media_type() -> None:
    picture, noise, unknown = image(Image.new("L", (1, 1))), sound(), file(b"")
    item = Input(files=(picture, noise, unknown))
    assert files_of(item, "image") == [picture, unknown]
    assert files_of(item, "audio") == [noise, unknown]


@pytest.mark.parametrize(("files", "said"), [((), "no file"), ((sound(), sound()), "got 2"), ((file(b""),), None)])
def test_exactly_one_file_is_wanted(files: tuple[File, ...], said: str | None) -> None:
    if said is None:
        assert only_file(Input(files=files), "audio") == files[0]
    else:
        with pytest.raises(BadInput, match=said):
            only_file(Input(files=files), "audio")


def test_text_files_join_the_request() -> None:
    note = File(name="note.txt", media_type="text/plain", data=b"inside")
    assert request_text(Input(text="Sum up", files=(note,))) == "Sum up\n\nnote.txt:\ninside"
    assert request_text(Input(instruction="Answer.")) == "Answer."


@pytest.mark.parametrize(("media_type", "data"), [("image/png", b""), ("text/plain", b"\xff\xfe\x00")])
def test_a_file_that_is_no_text_is_refused(media_type: str, data: bytes) -> None:
    with pytest.raises(BadInput, match="thing"):
        request_text(Input(text="Sum up", files=(File(name="thing", media_type=media_type, data=data),)))
