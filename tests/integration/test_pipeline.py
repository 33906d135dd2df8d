"""`bakeoff evaluate pipeline` from end to end, with scripted models in the places of the real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("soundfile", reason="soundfile is not installed: pip install 'bakeoff[evaluate]'")

from db.settings import Settings
from scheduler.evaluation.pipeline.arms import ARMS, BEST_SINGLE, DOWNLOADS, JUDGED, ORACLE, RANDOM
from scheduler.evaluation.pipeline.evaluation import Options, evaluated
from scheduler.evaluation.pipeline.items import ANSWER, OCR, SPEECH, STEPS, TEXT, draw_items
from scheduler.evaluation.pipeline.registry import WANTED
from tests.unit.test_pipeline_files import speak_beforehand

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

SAID = {"rapidocr": "The longer text says 5", "whisper-base": "We heard the number nine."}


def registry() -> str:
    """Everybody finds some number, nobody the right one, but for the row that is looked up: its price is copied."""
    lines = ["[profiles.demo]", "models = []", "[judges.longest]", 'method = "scripted"']
    for capability, kind in ((OCR, "image"), (SPEECH, "audio"), (TEXT, "text")):
        lines += [f'[capabilities."{capability}"]', f'input = "{kind}"', 'instruction = "Do it."', 'judge = "longest"']
    for capability, names in zip(STEPS.values(), WANTED, strict=True):
        for name in names:
            answer = SAID.get(name, "6" if capability != TEXT else f"{name}: {{text}}")
            lines += [f'[models."{name}"]', f'capability = "{capability}"', 'backend = "scripted"']
            lines += ["memory_mb = 64", "deterministic = true", f'params = {{ answer = "{answer}" }}']
    return "\n".join(lines)


def test_items_go_through_a_queue_of_their_own_and_every_arm_ends(tmp_path: Path) -> None:
    # given
    (tmp_path / "models.toml").write_text(registry())
    speak_beforehand(draw_items(4, 1, tmp_path), tmp_path / "cache")
    settings = Settings(models_file=tmp_path / "models.toml", cache=tmp_path / "cache")
    options = Options(items=4, seed=1, arms=ARMS, planner=None, planned=1, judge=None)
    # when
    report: dict[str, Any] = evaluated(settings, options, lambda *_: None)
    # then the longest texts won, and the last step read them
    assert report["judges"] == dict.fromkeys(STEPS, "longest")
    for row in report["rows"]:
        assert row["winners"] == {"read": "rapidocr", "hear": "whisper-base", "answer": "qwen2.5-coder-0.5b"}
        assert all(
            text.endswith("The recording says:\n\nWe heard the number nine.") for text in row["said"][ANSWER].values()
        )
    # and every arm has figures of all items, at its own cost
    calls = {arm: figures["calls"] for arm, figures in report["arms"].items()}
    assert calls == {DOWNLOADS: 3, BEST_SINGLE: 3, RANDOM: 3, JUDGED: 9, ORACLE: 9}
    assert {figures["n"] for figures in report["arms"].values()} == {4}
    assert report["tasks"]["first"] == 4
    assert report["tasks"]["second"] <= 4  # only what a random pick asks differs from what was answered already
