from __future__ import annotations

import json

import numpy as np

from worker.cleaning import clean_json, clean_text


def test_text_that_postgres_refuses_is_mended() -> None:
    assert clean_text("a\x00b\ud800c") == "ab?c"


def test_whatever_a_model_returns_becomes_json() -> None:
    said = {"score": float("nan"), 3: (1, 2.5, np.float32(0.5)), "deep": [{"text": "\ud800"}], "other": {1}}

    cleaned = clean_json(said)

    assert cleaned == {"score": None, "3": [1, 2.5, 0.5], "deep": [{"text": "?"}], "other": "{1}"}
    assert json.loads(json.dumps(cleaned, allow_nan=False)) == cleaned
