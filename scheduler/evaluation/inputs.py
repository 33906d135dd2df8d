"""Inputs whose truth is known: a line of text as a picture, and what makes pictures and sounds harder to make out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

CONDITIONS = ("clean", "noise", "blur", "rotation", "upside down", "small", "low contrast", "salt", "inverted")

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Samples = NDArray[np.float64]


def render_line(text: str, font: Font) -> Image.Image:
    """One line of black text on white, with a margin."""
    _, _, right, bottom = font.getbbox(text)
    picture = Image.new("L", (int(right) + 40, int(bottom) + 40), 255)
    ImageDraw.Draw(picture).text((20, 20), text, font=font, fill=0)
    return picture


def degrade(picture: Image.Image, condition: str, rng: np.random.Generator) -> Image.Image:
    """The picture in one of `CONDITIONS`; how strongly is drawn, from mild to what people still read with ease."""
    pixels = np.asarray(picture).astype(np.float64)
    match condition:
        case "clean":
            return picture
        case "noise":
            pixels = pixels + rng.normal(0, rng.uniform(60, 140), pixels.shape)
        case "blur":
            return picture.filter(ImageFilter.GaussianBlur(rng.uniform(1.5, 3)))
        case "rotation":
            angle = rng.uniform(4, 12) * rng.choice((-1, 1))
            return picture.rotate(angle, Image.Resampling.BICUBIC, expand=True, fillcolor=255)
        case "upside down":
            return picture.rotate(180)
        case "small":
            factor = rng.uniform(3, 4)
            return picture.resize((int(picture.width / factor), int(picture.height / factor))).resize(picture.size)
        case "low contrast":
            shade = np.linspace(-60, 60, pixels.shape[1])[None]
            pixels = 150 + (pixels - 128) * rng.uniform(0.03, 0.12) + shade
        case "salt":
            grain, share = rng.random(pixels.shape), rng.uniform(0.05, 0.15)
            pixels[grain < share] = 0
            pixels[grain > 1 - share] = 255
        case "inverted":
            pixels = 255 - pixels
        case _:
            raise ValueError(f"condition {condition!r} is none of {', '.join(CONDITIONS)}")
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def disturb(samples: Samples, condition: str, rng: np.random.Generator) -> Samples:
    """The sound with noise of a signal-to-noise ratio: `clean`, `hiss N dB` (white) or `hum N dB` (brown)."""
    if condition == "clean":
        return samples
    kind, level, _ = condition.split()
    noise = rng.normal(size=len(samples))
    if kind == "hum":
        noise = np.cumsum(noise)
        noise -= np.convolve(noise, np.ones(801) / 801, mode="same")  # without its slow drift
    power = float((samples**2).mean()) / 10 ** (float(level) / 10)
    mixed: Samples = samples + noise * np.sqrt(power / float((noise**2).mean()))
    loudest = max(1.0, float(np.abs(mixed).max()))
    return np.asarray(mixed / loudest, dtype=np.float64)
