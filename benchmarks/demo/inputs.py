"""Images rendered from a seed: lines of text in eight conditions, and captchas. Each one's truth is known."""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import captcha.image
import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from benchmarks.demo.sentences import sentence

if TYPE_CHECKING:
    from collections.abc import Sequence

OCR = "image-to-text/ocr"
SPEECH = "automatic-speech-recognition"

CONDITIONS = ("clean", "noise", "blur", "rotation", "small", "low contrast", "salt", "inverted")
_CAPTCHA_LETTERS = "".join(sorted(set(string.ascii_lowercase + string.digits) - set("ijlo01")))
_CAPTCHA_FONT = Path(captcha.image.__file__).parent / "data" / "DroidSansMono.ttf"
_SANS = "DejaVuSans.ttf"
_FONTS = (_SANS, "DejaVuSerif.ttf", "DejaVuSansMono.ttf", "DejaVuSerif-Bold.ttf", "DroidSansMono.ttf", "default")

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, kw_only=True)
class DemoInput:
    """One file to submit, and what it really says."""

    path: Path
    capability: str
    family: str  # what is summed up together: lines, captchas, utterances, noisy
    condition: str  # what was done to it, for the table
    truth: str


def render_images(folder: Path, *, seed: int, count: int) -> list[DemoInput]:
    """Write `count` images into `folder`: three lines of text to one captcha, every condition in turn.

    The same seed and count give the same bytes with the same versions of Pillow, NumPy and the fonts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    captchas = count // 4
    lines = [_line(folder, seed, index) for index in range(count - captchas)]
    return lines + [_captcha(folder, seed, index) for index in range(captchas)]


def _line(folder: Path, seed: int, index: int) -> DemoInput:
    random = Random(f"line {seed} {index}")
    condition = CONDITIONS[(index + seed) % len(CONDITIONS)]
    text = sentence(random)
    picture = _render(text, _font(random.choice(_FONTS), random.choice((22, 28, 34))))
    picture = degrade(picture, condition, np.random.default_rng([seed, index]))
    path = folder / f"line-{index:03d}-{condition.replace(' ', '-')}.png"
    picture.convert("RGB").save(path)
    return DemoInput(path=path, capability=OCR, family="lines", condition=condition, truth=text)


def _captcha(folder: Path, seed: int, index: int) -> DemoInput:
    random = Random(f"captcha {seed} {index}")
    text = "".join(random.choices(_CAPTCHA_LETTERS, k=5))
    with patch.object(captcha.image, "secrets", _Seeded(random)):
        maker = captcha.image.ImageCaptcha(width=180, height=60, fonts=[str(_CAPTCHA_FONT), str(_dejavu(_SANS))])
        picture = maker.generate_image(text)
    path = folder / f"captcha-{index:03d}.png"
    picture.convert("RGB").save(path)
    return DemoInput(path=path, capability=OCR, family="captchas", condition="captcha", truth=text)


class _Seeded:
    """Stands in for the module `secrets` in the captcha package, which takes no generator of its own."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def randbelow(self, limit: int) -> int:
        return self._random.randrange(limit)

    def randbits(self, bits: int) -> int:
        return self._random.getrandbits(bits)

    def choice(self, options: Sequence[Any]) -> Any:
        return self._random.choice(options)


def _dejavu(name: str) -> Path:
    return Path(mpl.get_data_path()) / "fonts" / "ttf" / name


def _font(name: str, size: int) -> Font:
    if name == "default":
        return ImageFont.load_default(size)
    path = _CAPTCHA_FONT if name == _CAPTCHA_FONT.name else _dejavu(name)
    return ImageFont.truetype(str(path), size)


def _render(text: str, font: Font) -> Image.Image:
    _, _, right, bottom = font.getbbox(text)
    picture = Image.new("L", (int(right) + 40, int(bottom) + 40), 255)
    ImageDraw.Draw(picture).text((20, 20), text, font=font, fill=0)
    return picture


def degrade(picture: Image.Image, condition: str, rng: np.random.Generator) -> Image.Image:
    """The picture in one of `CONDITIONS`, strong enough that engines differ."""
    pixels = np.asarray(picture).astype(np.float64)
    match condition:
        case "clean":
            return picture
        case "noise":
            pixels = pixels + rng.normal(0, 60, pixels.shape)
        case "blur":
            return picture.filter(ImageFilter.GaussianBlur(1.8))
        case "rotation":
            return picture.rotate(float(rng.choice((-6, -5, 5, 6))), expand=True, fillcolor=255)
        case "small":
            return picture.resize((picture.width // 3, picture.height // 3)).resize(picture.size)
        case "low contrast":
            shade = np.linspace(-60, 60, pixels.shape[1])[None]
            pixels = 150 + (pixels - 128) * 0.12 + shade
        case "salt":
            grain = rng.random(pixels.shape)
            pixels[grain < 0.06] = 0
            pixels[grain > 0.94] = 255
        case "inverted":
            pixels = 255 - pixels
        case _:
            raise ValueError(f"condition {condition!r} is none of {', '.join(CONDITIONS)}")
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
