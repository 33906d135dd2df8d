"""Preference files as groups: people's scores of several items, pairs with a label, and this system's own preferences.

A line with scores is `{"id", "image", "questions": [...], "score": [...]}`, as published and as `bakeoff annotate`
exports it; `answers` come with an `instruction`, and `items` may hold `{"text", "score"}` each. An item is a text, or a
list of texts: several questions as one. Any other line is read as `scheduler.labels` says.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

from db.errors import InvalidRequest, UsageError
from scheduler.labels import read_labels
from worker.cleaning import clean_json
from worker.reward.artifact import digest
from worker.reward.pairs import Group, paired_group, scored_group
from worker.reward.text import parted, rendered

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from db.preferences import PreferredText

ITEMS = ("questions", "answers", "items")
WORDS = ("instruction", "question", "text")  # what an instruction is called
#: A pair's line need not name a capability: a file of them is about one thing.
CAPABILITY = "text-generation"


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where groups come from, and the groups: what a card says of its data."""

    name: str
    sha256: str
    groups: tuple[Group, ...]
    ties: int

    def described(self) -> dict[str, Any]:
        """For the card."""
        return {
            "file": self.name,
            "sha256": self.sha256,
            "groups": len(self.groups),
            "texts": sum(len(group.texts) for group in self.groups),
            "pairs": sum(len(group.pairs) for group in self.groups),
            "ties": self.ties,
        }


def read_source(path: Path) -> Source:
    """Read a file. Raises `UsageError` that names file, line and field of the first line that is wrong."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise UsageError(f"Cannot read {path}: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: {error}.") from None
    first = next((line for line in lines if line.strip()), "")
    read = _of_scores if any(f'"{name}"' in first for name in ITEMS) and '"output_1"' not in first else _of_pairs
    groups, ties = read(path, lines)
    if not any(group.pairs for group in groups):
        raise UsageError(f"{path} has no pair of which one is better.")
    return Source(name=path.name, sha256=digest(path), groups=tuple(groups), ties=ties)


def stored_source(capability: str, texts: Sequence[PreferredText]) -> Source:
    """This system's own preferences about a capability. Raises `UsageError` where there are none."""
    import hashlib  # noqa: PLC0415 - of nothing but this
    from dataclasses import asdict  # noqa: PLC0415

    if not texts:
        raise UsageError(f"--stored = {capability!r}: there are no preferences about it; `bakeoff prefer` stores some.")
    said = sorted(json.dumps(asdict(one), sort_keys=True) for one in texts)
    groups = _by_group(
        (one.group, rendered(one.request, one.better), rendered(one.request, one.worse)) for one in texts
    )
    sha256 = hashlib.sha256("\n".join(said).encode()).hexdigest()
    return Source(name=f"stored preferences, {capability}", sha256=sha256, groups=tuple(groups), ties=0)


def all_groups(sources: Iterable[Source]) -> list[Group]:
    """The groups of all sources; those of one id are one group, so that no split divides them."""
    found: dict[str, Group] = {}
    for group in (group for source in sources for group in source.groups):
        found[group.id] = _joined(found[group.id], group) if group.id in found else group
    return list(found.values())


def subject(groups: Sequence[Group]) -> str:
    """What the texts are: questions alone, answers to instructions, or both."""
    alone = {not parted(text)[0] for group in groups for text in group.texts}
    return "questions and answers" if len(alone) > 1 else "questions" if True in alone else "answers"


def _joined(one: Group, other: Group) -> Group:
    start = len(one.texts)
    shifted = tuple((better + start, worse + start) for better, worse in other.pairs)
    both = one.scores is not None and other.scores is not None
    scores = (*(one.scores or ()), *(other.scores or ())) if both else None
    return replace(one, texts=(*one.texts, *other.texts), pairs=(*one.pairs, *shifted), scores=scores)


def _of_pairs(path: Path, lines: list[str]) -> tuple[list[Group], int]:
    try:
        labels = read_labels(lines, {"capability": CAPABILITY})
    except InvalidRequest as error:
        raise UsageError(f"{path}: {error}") from None
    said = ((p.group_key, rendered(p.text, p.better.text), rendered(p.text, p.worse.text)) for p in labels.preferences)
    return _by_group(said), labels.ties


def _by_group(preferred: Iterable[tuple[str, str, str]]) -> list[Group]:
    rows: dict[str, list[tuple[str, str]]] = {}
    for group, better, worse in preferred:
        rows.setdefault(group, []).append((better, worse))
    return [paired_group(id_, pairs) for id_, pairs in rows.items()]


def _of_scores(path: Path, lines: list[str]) -> tuple[list[Group], int]:
    groups: dict[str, Group] = {}
    ties = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            group = _scored(line)
        except ValueError as error:
            raise UsageError(f"{path}, line {number}, {error}") from None
        scores = group.scores or ()
        ties += sum(one == other for one, other in combinations(scores, 2))
        groups[group.id] = _joined(groups[group.id], group) if group.id in groups else group
    return list(groups.values()), ties


def _scored(line: str) -> Group:
    """One line with scores. Raises `ValueError`: the field, a colon, and what is wrong with it."""
    try:
        read = clean_json(json.loads(line))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the line: not JSON ({error}).") from None
    if not isinstance(read, dict):
        raise ValueError("the line: not an object.")  # noqa: TRY004 - one kind of error for a file
    id_ = read.get("id", read.get("image"))
    if not isinstance(id_, str | int) or isinstance(id_, bool) or not str(id_):
        raise ValueError(f"id: {id_!r} is not a name; every group needs one.")
    name = next((name for name in ITEMS if name in read), None)
    if name is None:
        raise ValueError(f"{ITEMS[0]}: missing, and {' and '.join(ITEMS[1:])}, too; there is nothing to learn from.")
    items, scores = _items(read, name)
    asked = next((read[key] for key in WORDS if isinstance(read.get(key), str)), "") if name != "questions" else ""
    return scored_group(str(id_), [rendered(asked, item) for item in items], scores)


def _items(read: dict[str, Any], name: str) -> tuple[list[str], list[float]]:
    given = read[name]
    if not isinstance(given, list) or len(given) < 2:
        raise ValueError(f"{name}: not a list of at least two.")
    own = all(isinstance(item, dict) for item in given)
    texts = [item.get("text") if own else item for item in given]
    scores = [item.get("score") for item in given] if own else read.get("score", read.get("scores"))
    if not isinstance(scores, list) or len(scores) != len(texts):
        count = len(scores) if isinstance(scores, list) else "no"
        raise ValueError(f"score: {count} numbers for {len(texts)} {name}; each needs one.")
    for score in scores:
        right = isinstance(score, int | float) and not isinstance(score, bool) and math.isfinite(score)
        if not right or not 0 <= score <= 1:
            raise ValueError(f"score: {score!r} is not a number from 0 to 1.")
    return [_text(name, text) for text in texts], [float(score) for score in scores]


def _text(name: str, item: Any) -> str:
    parts = item if isinstance(item, list) and item else [item]
    if not all(isinstance(part, str) and part.strip() for part in parts):
        raise ValueError(f"{name}: {item!r} is not a text, or a list of texts.")
    return "\n".join(parts)
