"""Attachments decoded into what engines read: sound as 16 kHz mono samples, pictures as RGB.

Every backend decodes here, so that limits and error sentences are the same for all of them. The limits
(BAKEOFF_MAX_IMAGE_PIXELS, BAKEOFF_MAX_AUDIO_SECONDS) guard a worker against files that are small on disk and
huge in memory.
"""

from __future__ import annotations

import math
import warnings
from fractions import Fraction
from io import BytesIO
from typing import TYPE_CHECKING, Literal

from db.settings import load_settings
from worker.backends import BadInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image
    from soundfile import SoundFile

    from worker.backends import File, Input

SAMPLE_RATE = 16_000  # Hz, what every speech model here was trained on
DENSEST = 48_000  # samples a second that the limit of seconds stands for: at a higher rate it is as much shorter
BLOCK = 1 << 20  # values, of all channels, that are decoded at once
#: Formats that Pillow may open. Some of the others run a program (EPS) or read further files.
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
MIN_RATE, MAX_RATE = 1_000, 768_000  # Hz
UNSPECIFIC = frozenset({"", "application/octet-stream", "binary/octet-stream"})
TEXT_TYPES = frozenset({"application/json", "application/xml", "application/yaml", "application/x-ndjson"})
EXTRA_TYPES = {"audio": frozenset({"application/ogg", "video/ogg"}), "image": frozenset[str]()}


def files_of(item: Input, kind: Literal["image", "audio"]) -> list[File]:
    """The files of an input that are of a kind, or whose media type does not say what they are."""
    extra = EXTRA_TYPES[kind] | UNSPECIFIC
    return [file for file in item.files if file.media_type.startswith(f"{kind}/") or file.media_type in extra]


def only_file(item: Input, kind: Literal["image", "audio"]) -> File:
    """The one file of a kind. Raises `BadInput` where there is none, or more than one."""
    found = files_of(item, kind)
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(file.name for file in found)
        raise BadInput(f"This model reads one {kind} file per subtask and got {len(found)}: {names}.")
    given = ", ".join(f"{file.name} ({file.media_type})" for file in item.files) or "no file"
    raise BadInput(f"This model reads a file of type {kind}/* and got {given}.")


def decode_audio(file: File, *, max_seconds: float = math.inf) -> NDArray[np.float32]:
    """Samples of a WAV, FLAC, OGG or MP3 file: float32 of shape (n,), mono, 16 kHz, -1..1.

    Channels are averaged; other rates go through `resample`. Raises `BadInput` for a file that cannot be
    read, that is empty, or that is longer than `max_seconds`.
    """
    import numpy as np
    import soundfile

    max_seconds = min(max_seconds, load_settings().max_audio_seconds)
    try:
        with soundfile.SoundFile(BytesIO(file.data)) as sound:
            rate = int(sound.samplerate)
            if not MIN_RATE <= rate <= MAX_RATE:
                raise BadInput(f"{file.name}: {rate} Hz is not a rate between {MIN_RATE} and {MAX_RATE} Hz.")
            most = int(max_seconds * min(rate, DENSEST))
            mono = _as_mono(sound, most)
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split()).rpartition(": ")[2].rstrip(".")
        raise BadInput(f"{file.name}: not a readable WAV, FLAC, OGG or MP3 file ({reason}).") from None
    if len(mono) > most:
        raise BadInput(
            f"{file.name}: longer than the limit of {most / rate:g} seconds at {rate} Hz; cut it into parts."
        )
    if not len(mono):
        raise BadInput(f"{file.name}: holds no sound.")
    # A float file may hold NaN or infinities, which would poison the whole batch.
    return resample(np.nan_to_num(mono, nan=0.0, posinf=1.0, neginf=-1.0), rate)


def _as_mono(sound: SoundFile, most: int) -> NDArray[np.float32]:
    """Samples as they are there, for headers lie, and one past `most` at the most, so that it is seen to be longer."""
    import numpy as np

    blocks, left, at_once = [np.empty(0, dtype=np.float32)], most + 1, max(1, BLOCK // sound.channels)
    while left and len(block := sound.read(min(left, at_once), dtype="float32", always_2d=True)):
        blocks.append(block[:, 0] if block.shape[1] == 1 else block.mean(axis=1))
        left -= len(block)
    return np.concatenate(blocks)


def as_wav(samples: NDArray[np.float32], rate: int = SAMPLE_RATE) -> bytes:
    """Samples of shape (n,), -1..1, as a WAV file of 16 bits."""
    import soundfile

    buffer = BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def resample(samples: NDArray[np.float32], rate: int, *, target: int = SAMPLE_RATE) -> NDArray[np.float32]:
    """Bring samples of shape (n,) from `rate` to `target` Hz: float32 of shape (ceil(n * target / rate),).

    A polyphase filter: a sinc of 16 zero crossings a side under a Kaiser window (beta 8.6, about -86 dB),
    cut at 95 % of the lower Nyquist frequency. Odd rates are rounded to a ratio below 1000, right to one in
    a million.
    """
    import numpy as np

    if rate == target:
        return np.ascontiguousarray(samples, dtype=np.float32)
    ratio = Fraction(target, rate).limit_denominator(1000)
    up, down = ratio.numerator, ratio.denominator
    count = -(-len(samples) * up // down)
    cutoff = 0.95 * min(1.0, up / down)  # of the input's Nyquist frequency
    reach = int(np.ceil(16 / cutoff))
    offsets = np.arange(-reach, reach + 1, dtype=np.float64)
    padded = np.pad(samples, (reach, reach + down))
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    result = np.empty(count, dtype=np.float32)
    for first in range(min(up, count)):
        # Outputs `first`, `first + up`, ... fall on the same fraction of an input sample and share a
        # filter.
        start, fraction = divmod(first * down, up)
        away = offsets - fraction / up
        window = np.i0(8.6 * np.sqrt(np.clip(1 - (away / (reach + 1)) ** 2, 0, None))) / np.i0(8.6)
        taps = (cutoff * np.sinc(cutoff * away) * window).astype(np.float32)
        places = len(range(first, count, up))
        result[first::up] = windows[start::down][:places] @ taps
    return result


def decode_image(file: File) -> Image:
    """The picture of a file (its first frame) as RGB, turned as its EXIF says, transparency over white.

    Raises `BadInput` for a file that is no picture of a known format, that is broken, or that has too many pixels.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    max_pixels = load_settings().max_image_pixels
    try:
        with warnings.catch_warnings():
            # Our own limit is lower than the one of this warning, and refuses.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(BytesIO(file.data), formats=FORMATS) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise _too_large(file, max_pixels, f"{width} x {height} pixels")
                image.load()
                return _as_rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        kind = file.media_type or "no media type"
        raise BadInput(f"{file.name}: not a picture that can be read ({kind}).") from None
    except Image.DecompressionBombError:
        raise _too_large(file, max_pixels, "its size") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, OverflowError) as error:
        # What Pillow's parsers raise on broken files.
        reason = " ".join(str(error).split()).rstrip(".")
        raise BadInput(f"{file.name}: a broken picture ({reason}).") from None


def _too_large(file: File, max_pixels: int, given: str) -> BadInput:
    return BadInput(f"{file.name}: {given} is more than the limit of {max_pixels / 1e6:g} million pixels.")


def _as_rgb(image: Image) -> Image:
    import numpy as np
    from PIL import Image as Pictures

    if image.mode.startswith("I") or image.mode == "F":
        # 16-bit greys: convert("RGB") would turn everything above 255 white.
        values = np.asarray(image, dtype=np.float32)
        scale = 255 / 65535 if values.max() > 255 else 1.0
        return Pictures.fromarray((values * scale).clip(0, 255).astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        coloured = image.convert("RGBA")
        page = Pictures.new("RGBA", coloured.size, "white")
        return Pictures.alpha_composite(page, coloured).convert("RGB")
    return image.convert("RGB")


def request_text(item: Input) -> str:
    """What a model that reads text is asked: the request and its text files, or the instruction where
    both are empty.

    Raises `BadInput` for a file that is not text: to leave it out would answer another question.
    """
    parts = [item.text.strip()]
    for file in item.files:
        readable = file.media_type.startswith("text/") or file.media_type in TEXT_TYPES
        try:
            if not readable:
                raise BadInput(f"This model reads text only and got {file.name} ({file.media_type}).")
            parts.append(f"{file.name}:\n{file.data.decode()}")
        except UnicodeDecodeError:
            raise BadInput(f"{file.name}: not UTF-8 text.") from None
    return "\n\n".join(filter(None, parts)) or item.instruction
