"""Published answers of many models to one question each, read into what a judge may see and what scores its choice.

Labels (`correct`, `score`) end up in `Row.scores`, which no judge is given. Rows are split by the hash of what they are
about: 50 % to fit on, 20 % to tune on, 30 % to report.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from db.errors import UsageError
from worker.judges.similarity import Similarity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Part = Literal["fit", "tune", "report"]
OCR_TEXT = re.compile(r"\], (['\"])(.+?)\1, ")  # of a list of (box, text, confidence) that may end anywhere


@dataclass(frozen=True, kw_only=True)
class Row:
    """One question: what was asked, each model's answer as a judge sees it, and each answer's score."""

    id: str
    group: str
    request: str
    answers: Mapping[str, str]
    scores: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How one published set is read. `note` says what a reader of its figures must know."""

    capability: str
    instruction: str
    similarity: Similarity  # of what similarity-based judges compare
    request: Callable[[dict[str, Any]], str]
    answer: Callable[[dict[str, Any]], str]
    score: Callable[[dict[str, Any]], float]
    group: str  # the field that names what a row is about
    dropped: frozenset[str] = frozenset()
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class EvaluationSet:
    """A set's rows, in an order that is fixed and says nothing."""

    name: str
    kind: Kind
    rows: tuple[Row, ...]

    def part(self, part: Part) -> list[Row]:
        """The rows of one part of the split."""
        return [row for row in self.rows if part_of(row.group) == part]


def _seen_in_words(row: dict[str, Any]) -> str:
    """MathVista's question with its picture as a caption and the text in it."""
    lines = [row["question"]]
    if row.get("choices"):
        lines.append("Choices: " + "; ".join(map(str, row["choices"])))
    if row.get("unit"):
        lines.append(f"Unit: {row['unit']}")
    if row.get("caption_bard"):
        lines.append(f"What the picture shows, as another model described it: {row['caption_bard']}")
    texts = [text for _, text in OCR_TEXT.findall(row.get("ocr") or "")]
    if texts:
        lines.append("Text in the picture: " + "; ".join(texts))
    return "\n".join(lines)


def _solution(candidate: dict[str, Any]) -> str:
    """MathVista's output, which is cut, with the answer that was read from it; one without an answer cannot win."""
    if candidate.get("prediction") in {None, ""}:
        return ""
    return f"{candidate['output']}\nAnswer: {candidate['prediction']}".strip()


KINDS = {
    "multi_gsm8k": Kind(
        capability="text-generation",
        instruction="Solve the problem.",
        similarity="answer",
        request=lambda row: str(row["instruction"]),
        answer=lambda candidate: str(candidate["output"]),
        score=lambda candidate: float(candidate["correct"]),
        group="instruction",
        dropped=frozenset({"gpt-4-1106-preview"}),
        note="without the strongest model",
    ),
    "multi_mathvista": Kind(
        capability="image-text-to-text",
        instruction="Answer the question about the picture.",
        similarity="answer",
        request=_seen_in_words,
        answer=_solution,
        score=lambda candidate: float(candidate["correct"]),
        group="image",
        note="picture as caption and OCR text",
    ),
    "multi_thumb_mscoco": Kind(
        capability="image-to-text/caption",
        instruction="Describe the picture in one sentence.",
        similarity="words",
        request=lambda _: "",
        answer=lambda candidate: str(candidate["output"]),
        score=lambda candidate: float(candidate["score"]),
        group="image",
        dropped=frozenset({"Human"}),
        note="image unseen",
    ),
}


def find_set(name: str, folder: Path | None) -> Path:
    """A file by its path, or by its name in the folder of evaluation data. Raises `UsageError`."""
    places = [Path(name)]
    if folder is not None:
        places += [folder / name, folder / f"{name}.jsonl"]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        where = f"nor in {folder}" if folder else "and BAKEOFF_EVAL_DATA, the folder of evaluation sets, is not set"
        raise UsageError(f"No evaluation set {name!r} here, {where}.")
    return found


def read_set(path: Path) -> EvaluationSet:
    """Read one of the sets that are known by name. Raises `UsageError` with the line that cannot be read."""
    try:
        kind = KINDS[path.stem]
    except KeyError:
        raise UsageError(f"{path.name} is no set of the ablation; there are: {', '.join(sorted(KINDS))}.") from None
    rows = []
    with path.open() as lines:
        for number, line in enumerate(lines, 1):
            try:
                rows.append(_row(json.loads(line), kind))
            except (ValueError, KeyError, TypeError) as error:
                raise UsageError(f"{path}, line {number}: not a row of {path.stem} ({error!r}).") from None
    return EvaluationSet(name=path.stem, kind=kind, rows=tuple(sorted(rows, key=lambda row: _hash(row.id))))


def _row(read: dict[str, Any], kind: Kind) -> Row:
    candidates = [candidate for candidate in read["candidates"] if candidate["model"] not in kind.dropped]
    return Row(
        id=str(read["id"]),
        group=str(read[kind.group]),
        request=kind.request(read),
        answers={candidate["model"]: kind.answer(candidate) for candidate in candidates},
        scores={candidate["model"]: kind.score(candidate) for candidate in candidates},
    )


def part_of(group: str) -> Part:
    """Where a group belongs, the same on every machine."""
    place = int(_hash(group)[:8], 16) / 16**8
    if place < 0.5:
        return "fit"
    return "tune" if place < 0.7 else "report"


def best_models(rows: Sequence[Row], count: int) -> list[str]:
    """The models by mean score over these rows, best first. Raises `UsageError` where there are none."""
    scores: dict[str, list[float]] = {}
    for row in rows:
        for model, score in row.scores.items():
            scores.setdefault(model, []).append(score)
    if not scores:
        raise UsageError("The set has no rows to choose its models on.")
    return sorted(scores, key=lambda model: (-sum(scores[model]) / len(scores[model]), model))[:count]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
