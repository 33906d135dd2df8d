"""How far a set is, and whether its annotators mean the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection

from db.annotations import Annotated, SetOfGroups, annotated, shares
from scheduler.annotating.agreement import Agreement, agreement
from scheduler.annotating.criteria import Criteria


def standing(connection: Connection, to_score: SetOfGroups) -> dict[str, Any]:
    """Progress, who did what, and Krippendorff's alpha per criterion and of the score that is exported."""
    groups = annotated(connection, to_score.id)
    criteria = Criteria.model_validate(to_score.criteria)
    done = [len(group.annotations) for group in groups]
    wanted = [group.wanted for group in groups]
    return {
        "set": to_score.name,
        "criteria": criteria.version,
        "groups": len(groups),
        "items": sum(len(group.items) for group in groups),
        "finished_groups": sum(have >= want for have, want in zip(done, wanted, strict=True)),
        "annotations_wanted": sum(wanted),
        "annotations_done": sum(done),
        "groups_wanted_twice": sum(want > 1 for want in wanted),
        "groups_scored_twice": sum(have > 1 for have in done),
        "annotators": [asdict(share) for share in shares(connection, to_score.id)],
        "alpha": {name: asdict(_agreement(groups, [name])) for name in criteria.names},
        "alpha_overall": asdict(_agreement(groups, criteria.names)),
    }


def _agreement(groups: Sequence[Annotated], names: Sequence[str]) -> Agreement:
    """Of the mean over these criteria, item by item."""
    return agreement({group.key: values_of(group, lambda scores: _mean(scores, names)) for group in groups})


def values_of(group: Annotated, value: Callable[[dict[str, float]], float]) -> list[list[float]]:
    """Per item of a group, a figure of each annotator's scores."""
    said = [annotation["scores"] for annotation in group.annotations]
    return [[value(scores[place]) for scores in said] for place in range(len(group.items))]


def _mean(scores: dict[str, float], names: Sequence[str]) -> float:
    return sum(scores[name] for name in names) / len(names)
