"""The files of items: a line of text in one of nine conditions, and a sentence in one of five noises."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import numpy as np
import soundfile
from PIL import ImageFont

from scheduler.evaluation.inputs import CONDITIONS, degrade, disturb, render_line
from scheduler.evaluation.pipeline.speech import Speaker

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from scheduler.evaluation.pipeline.items import Item


PACES = (0.8, 1.0, 1.2)  # over 1 is slower


def make_files(items: Sequence[Item], seed: int, cache: Path) -> None:
    """Render the pictures and speak the recordings. Raises `WeightsError` where there is no voice."""
    speaker = Speaker(cache)
    for item in items:
        random = Random(f"files {seed} {item.number}")  # noqa: S311 - not cryptography
        rng = np.random.default_rng([seed, item.number])
        item.picture.parent.mkdir(parents=True, exist_ok=True)
        picture = render_line(item.caption, ImageFont.load_default(random.choice((22, 28, 34))))
        degrade(picture, random.choice(CONDITIONS), rng).convert("RGB").save(item.picture)
        sound, rate = speaker.say(item.utterance, random.choice(PACES))
        soundfile.write(item.recording, disturb(sound, item.noise, rng), rate, "PCM_16")
