"""Inputs with the score of every model's answer: files of `BAKEOFF_EVAL_DATA`, or of yours.

Two forms: a first line `{"models": [...]}` and then `{"id", "instruction", "p": [...]}` per input; or one line per
input with `candidates`, each with its model and a `score` or `correct`.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from db.errors import InvalidRequest
from db.settings import Settings

#: What is no model among several of a kind: the judge's own baseline, a model asked to be short or long, people.
LEFT_OUT = re.compile(r"gpt-?4_1106_preview|gpt-4-1106-preview|_concise$|_verbose$|^Human$|Ground Truth$|^New Human")
TEXTS = ("instruction", "question", "source_text", "dialogue", "id")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One input and how good each model's answer to it was."""

    id: str
    text: str
    scores: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The inputs for which every model has a score; `incomplete` counts the others."""

    rows: tuple[Row, ...]
    models: tuple[str, ...]
    incomplete: int = 0


def find_file(settings: Settings, given: str) -> Path:
    """A file as given, else of the evaluation data, there also without its ending. Raises `InvalidRequest`."""
    folder = settings.eval_data
    places = [Path(given)]
    if folder is not None:
        places += [folder / given, folder / f"{given}.jsonl"]
    for path in places:
        if path.is_file():
            return path
    known = "BAKEOFF_EVAL_DATA is not set" if folder is None else f"there is none in BAKEOFF_EVAL_DATA ({folder})"
    raise InvalidRequest(f"FILE = {given!r} is no file, and {known}.")


def read_rows(path: Path, left_out: re.Pattern[str] = LEFT_OUT) -> Rows:
    """Read a file. Raises `InvalidRequest` where it has another form, or fewer than two models or ten inputs."""
    try:
        with path.open(encoding="utf-8") as lines:
            read = [row for row in _rows(json.loads(line) for line in lines if line.strip()) if row.scores]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidRequest(f"{path} holds no scores of models ({type(error).__name__}: {error}).") from None
    models = sorted({model for row in read for model in row.scores if not left_out.search(model)})
    kept = [
        Row(id=row.id, text=row.text, scores={model: row.scores[model] for model in models})
        for row in read
        if all(model in row.scores for model in models)
    ]
    if len(models) < 2 or len(kept) < 10:
        raise InvalidRequest(f"{path} has {len(models)} models and {len(kept)} inputs; choosing needs 2 and 10.")
    return Rows(rows=tuple(kept), models=tuple(models), incomplete=len(read) - len(kept))


def _rows(read: Iterable[Any]) -> Iterator[Row]:
    models: list[str] | None = None
    for number, row in enumerate(read):
        if models is None and "models" in row:
            models = row["models"]
            continue
        if models is not None:
            scores = dict(zip(models, row["p"], strict=True))
        else:
            scores = {one["model"]: one.get("score", one.get("correct")) for one in row["candidates"]}
        yield Row(
            id=str(row.get("id", number)),
            text=next(str(row[field]) for field in TEXTS if row.get(field)),
            scores={model: float(score) for model, score in scores.items() if score is not None},
        )


def split(rows: Sequence[Row], seed: int) -> tuple[list[Row], list[Row]]:
    """Fit rows and test rows: two halves, the same for the same seed."""
    shuffled = sorted(rows, key=lambda row: row.id)
    random.Random(seed).shuffle(shuffled)  # noqa: S311 - a split that can be repeated
    half = len(shuffled) // 2
    return shuffled[:half], shuffled[half:]
