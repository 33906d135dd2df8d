"""Models listed in JSON lines, as HuggingGPT does: `{"id": ..., "task": ..., "downloads": ..., "likes": ...}`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from db.errors import InvalidRequest
from db.metadata import Catalogue, ModelMetadata

DESCRIPTION_CHARS = 500


def read_list(path: Path, now: str) -> Catalogue:
    """The models of a JSONL file by their id. Raises `InvalidRequest`, which names the line and what is wrong."""
    catalogue: Catalogue = {}
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                catalogue[_id_of(row)] = _metadata(row, path.name, now)
            except (ValueError, TypeError, AttributeError) as error:
                raise InvalidRequest(
                    f"{path}, line {number}: not a model such as "
                    f'{{"id": "org/name", "task": "...", "downloads": 1, "likes": 1}} ({_reason(error)}).'
                ) from None
    return catalogue


def _id_of(row: Any) -> str:
    key = row.get("id") if isinstance(row, dict) else None
    if not isinstance(key, str) or not key:
        raise ValueError("it has no id")
    return key


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))} = {first['input']!r}: {first['msg']}"
    return str(error)


def _metadata(row: Mapping[str, Any], origin: str, now: str) -> ModelMetadata:
    details = row.get("meta") or {}
    metrics = row.get("metrics") or list(metrics_of_index(details.get("model-index") or ()))
    return ModelMetadata(
        downloads=row.get("downloads"),
        likes=row.get("likes"),
        trending=row.get("trending"),
        scores=scores_of(metrics),
        description=shortened(row.get("description")),
        capability=row.get("task") or row.get("pipeline_tag"),
        license=licence(row.get("license") or details.get("license")),
        origin=origin,
        updated=now,
    )


def metrics_of_index(index: Iterable[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    """The metrics of a model card's `model-index`: dataset, metric and value each."""
    for model in index:
        for result in model.get("results") or ():
            dataset = result.get("dataset") or {}
            for metric in result.get("metrics") or ():
                yield {
                    "dataset": dataset.get("name") or dataset.get("type"),
                    "metric": metric.get("name") or metric.get("type"),
                    "value": metric.get("value"),
                }


def scores_of(metrics: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Scores by `dataset/metric`, in small letters without blanks; of several the first, which is the main one."""
    scores: dict[str, float] = {}
    for metric in metrics:
        value = _number(metric.get("value"))
        name = "/".join(_plain(str(part)) for part in (metric.get("dataset"), metric.get("metric")) if part)
        if name and value is not None:
            scores.setdefault(name, value)
    return scores


def _number(value: Any) -> float | None:
    """A number, also as text; a percentage as its share. None for anything else."""
    if isinstance(value, str):
        text, percent = value.strip().removesuffix("%"), value.strip().endswith("%")
        try:
            value = float(text) / (100 if percent else 1)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _plain(text: str) -> str:
    return re.sub(r"\s+", "-", text.strip().lower())


def shortened(text: Any) -> str | None:
    """A description on one line, cut where a language model has read enough of it."""
    line = " ".join(str(text or "").split())
    return line[:DESCRIPTION_CHARS] or None


def licence(value: Any) -> str | None:
    """A licence's name; cards write one, or a list."""
    return ", ".join(map(str, value)) if isinstance(value, list) else value and str(value)
