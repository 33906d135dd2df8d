"""A set's scores in the paper's format, as `bakeoff reward train` reads it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from statistics import fmean
from typing import Any

from db.annotations import Annotated
from scheduler.annotating.standing import values_of

PLACES = 6  # decimals of a mean: two annotators who mean the same must tie, whatever the order of adding up


def exported(groups: Iterable[Annotated], version: str) -> Iterator[dict[str, Any]]:
    """One row per group that somebody scored: `score` is the mean over criteria and annotators, item by item.

    `annotation` at the side says by which criteria, who scored, and what each of them said per criterion. Models are
    named where they are known.
    """
    for group in groups:
        if not group.annotations:
            continue
        values = values_of(group, lambda scores: fmean(scores.values()))
        row: dict[str, Any] = {"id": group.key}
        row |= {name: group.input[name] for name in ("image", "captions", "attachments") if group.input.get(name)}
        if group.input.get("text"):
            row["instruction"] = group.input["text"]
        row[group.field] = [item["said"] for item in group.items]
        row["score"] = [round(fmean(each), PLACES) for each in values]
        if any(item["models"] for item in group.items):
            row["models"] = [item["models"] for item in group.items]
        row["annotation"] = {
            "criteria": version,
            "annotators": [annotation["annotator"] for annotation in group.annotations],
            "scores": [annotation["scores"] for annotation in group.annotations],
        }
        yield row
