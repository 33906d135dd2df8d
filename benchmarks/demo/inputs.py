"""Images rendered from a seed: lines of text in nine conditions, and captchas. Each one's truth is known."""

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
from PIL import ImageFont

from benchmarks.demo.sentences import sentence
from scheduler.evaluation.inputs import CONDITIONS, Font, degrade, render_line

if TYPE_CHECKING:
    from collections.abc import Sequence

OCR = "image-to-text/ocr"
SPEECH = "automatic-speech-recognition"

CURVES = (0, 1, 3)  # drawn over a captcha, besides the one it always has
_CAPTCHA_LETTERS = "".join(sorted(set(string.ascii_lowercase + string.digits) - set("ijlo01")))
_CAPTCHA_FONT = Path(captcha.image.__file__).parent / "data" / "DroidSansMono.ttf"
_SANS = "DejaVuSans.ttf"
_FONTS = (_SANS, "DejaVuSerif.ttf", "DejaVuSansMono.ttf", "DejaVuSerif-Bold.ttf", "DroidSansMono.ttf", "default")


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
    picture = render_line(text, _font(random.choice(_FONTS), random.choice((22, 28, 34))))
    picture = degrade(picture, condition, np.random.default_rng([seed, index]))
    path = folder / f"line-{index:03d}-{condition.replace(' ', '-')}.png"
    picture.convert("RGB").save(path)
    return DemoInput(path=path, capability=OCR, family="lines", condition=condition, truth=text)


def _captcha(folder: Path, seed: int, index: int) -> DemoInput:
    random = Random(f"captcha {seed} {index}")
    text = "".join(random.choices(_CAPTCHA_LETTERS, k=5))
    curves = CURVES[(index + seed) % len(CURVES)]
    with patch.object(captcha.image, "secrets", _Seeded(random)):
        maker = captcha.image.ImageCaptcha(width=180, height=60, fonts=[str(_CAPTCHA_FONT), str(_dejavu(_SANS))])
        picture = maker.generate_image(text).convert("RGB")
        for _ in range(curves):
            maker.create_noise_curve(picture, captcha.image.random_color(10, 200))
    path = folder / f"captcha-{index:03d}.png"
    picture.save(path)
    condition = f"captcha, {curves + 1} curve{'s' if curves else ''}"
    return DemoInput(path=path, capability=OCR, family="captchas", condition=condition, truth=text)


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
