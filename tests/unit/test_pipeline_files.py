"""The files of composed requests: rendered from a seed, spoken once and kept."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("soundfile", reason="soundfile is not installed: pip install 'bakeoff[evaluate]'")

import numpy as np
import soundfile

from db.errors import WeightsError
from scheduler.evaluation.pipeline.files import PACES, make_files
from scheduler.evaluation.pipeline.items import Item, draw_items
from scheduler.evaluation.pipeline.speech import Speaker


def speak_beforehand(items: list[Item], cache: Path) -> None:
    """A tone for every sentence, where the voice would keep it."""
    speaker = Speaker(cache)
    for item in items:
        for pace in PACES:
            place = speaker.place(item.utterance, pace)
            place.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(place, 0.3 * np.sin(np.arange(8000) / 9), 16_000)


def test_a_seed_gives_the_same_files_again(tmp_path: Path) -> None:
    # given
    first, again = (draw_items(9, 1, tmp_path / name) for name in ("a", "b"))
    speak_beforehand(first, tmp_path)
    # when
    for items in (first, again):
        make_files(items, 1, tmp_path)
    # then
    for one, other in zip(first, again, strict=True):
        assert one.picture.read_bytes() == other.picture.read_bytes()
        assert one.recording.read_bytes() == other.recording.read_bytes()


def test_what_is_kept_needs_no_voice_and_what_is_not_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given no package that speaks
    monkeypatch.setitem(sys.modules, "piper", None)
    (item,) = draw_items(1, 1, tmp_path)
    speak_beforehand([item], tmp_path)
    # then
    samples, rate = Speaker(tmp_path).say(item.utterance, PACES[0])
    assert (len(samples), rate) == (8000, 16_000)
    with pytest.raises(WeightsError, match=r"piper-tts .* pip install 'bakeoff\[evaluate\]'"):
        Speaker(tmp_path).say("Something else.", 1.0)
