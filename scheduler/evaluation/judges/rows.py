"""Published answers to one question each, read into what a judge may see and what scores its choice.

A row's form is known by its fields, so that a new set of a known form needs no code. From a row only the fields named
here reach a judge; labels end up in `Row.scores`, which no judge is given. Rows are split by the hash of what they are
about: 50 % to fit on, 20 % to tune on, 30 % to report.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from db.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from worker.judges.similarity import Similarity

Part = Literal["fit", "tune", "report"]
OCR_TEXT = re.compile(r"\], (['\"])(.+?)\1, ")  # of a list of (box, text, confidence) that may end anywhere
#: People's answers in sets of models' answers: the best "model" would be a person.
PEOPLE = frozenset({"Human", "Original Ground Truth", "New Human Generated"})


@dataclass(frozen=True, kw_only=True)
class Row:
    """One question: what was asked, each answer as a judge sees it, and each answer's score, by the answer's key.

    The key is the model's name, or `1` and `2` in a pair, whose models `names` tells where they are known.
    """

    id: str
    group: str
    request: str
    answers: Mapping[str, str]
    scores: Mapping[str, float]
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How one form of set is read. `note` says what a reader of its figures must know."""

    capability: str
    instruction: str
    request: Callable[[dict[str, Any]], str]
    group: tuple[str, ...]  # the fields that name what a row is about
    similarity: Similarity = "words"  # of what similarity-based judges compare
    answer: Callable[[dict[str, Any]], str] = lambda candidate: str(candidate["output"])
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


def _asked(row: dict[str, Any]) -> str:
    return "\n\n".join(filter(None, [str(row["instruction"]), str(row.get("input") or "")]))


PICTURE = Kind(
    capability="image-text-to-text",
    instruction="Answer the question about the picture.",
    request=_seen_in_words,
    group=("image",),
    similarity="answer",
    answer=_solution,
    note="picture as caption and OCR text",
)
CAPTION = Kind(
    capability="image-to-text/caption",
    instruction="Describe the picture in one sentence.",
    request=lambda _: "",
    group=("image",),
    note="image unseen",
)
SUMMARY = Kind(
    capability="summarization",
    instruction="Summarise the text in a few sentences.",
    request=lambda row: str(row["source_text"]),
    group=("source_text",),
)
DIALOGUE = Kind(
    capability="text-generation",
    instruction="Write the next turn of the conversation. It may use the fact.",
    request=lambda row: f"{row['dialogue']}\n\nFact: {row['fact']}",
    group=("dialogue", "fact"),
)
TRANSLATION = Kind(
    capability="translation",
    instruction="Translate the text into English.",
    request=lambda row: str(row["source"]),
    group=("source",),
)
PROBLEM = Kind(
    capability="text-generation",
    instruction="Solve the problem.",
    request=_asked,
    group=("instruction", "input"),
    similarity="answer",
)
ASSISTANT = Kind(
    capability="text-generation",
    instruction="Answer the request.",
    request=_asked,
    group=("instruction", "input"),
)
FORMS = "candidates [{model, output, score or correct}], or output_1 and output_2 with a label"


def kind_of(row: Mapping[str, Any]) -> Kind:
    """The form of a row. Raises `KeyError` for one that says nothing of its question."""
    if "question" in row and "image" in row:
        return PICTURE
    if "image" in row:
        return CAPTION
    if "source_text" in row:
        return SUMMARY
    if "dialogue" in row:
        return DIALOGUE
    if "instruction" in row:
        candidates = row.get("candidates") or [{}]
        return PROBLEM if "correct" in candidates[0] else ASSISTANT
    if "source" in row:
        return TRANSLATION
    raise KeyError("instruction")


def find_set(name: str, folder: Path | None) -> Path:
    """A file by its path, or by its name in the folder of evaluation data. Raises `UsageError`."""
    from pathlib import Path  # noqa: PLC0415 - a type elsewhere in this module

    places = [Path(name)]
    if folder is not None:
        places += [folder / name, folder / f"{name}.jsonl"]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        where = f"nor in {folder}" if folder else "and BAKEOFF_EVAL_DATA, the folder of evaluation sets, is not set"
        raise UsageError(f"No evaluation set {name!r} here, {where}.")
    return found


def read_set(path: Path, excluded: Collection[str] = ()) -> EvaluationSet:
    """Read a set, without the models `excluded`. Raises `UsageError` with the line that cannot be read."""
    rows: list[Row] = []
    kind: Kind | None = None
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                read = json.loads(line)
                kind = kind or kind_of(read)
                rows.append(_row(read, kind, excluded, number))
            except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
                raise UsageError(f"{path}, line {number}: no row with {FORMS} ({error!r}).") from None
    if kind is None:
        raise UsageError(f"{path} has no rows.")
    return EvaluationSet(name=path.stem, kind=kind, rows=tuple(sorted(rows, key=lambda row: _hash(row.id))))


def _row(read: dict[str, Any], kind: Kind, excluded: Collection[str], number: int) -> Row:
    group = "\n".join(str(read.get(name) or "") for name in kind.group)
    # A file may name two rows alike; a row's place keeps them apart.
    common: dict[str, Any] = {"id": f"{read.get('id')} {number}", "group": group, "request": kind.request(read)}
    if "candidates" in read:
        left_out = PEOPLE | set(excluded)
        candidates = [candidate for candidate in read["candidates"] if candidate["model"] not in left_out]
        return Row(
            **common,
            answers={candidate["model"]: kind.answer(candidate) for candidate in candidates},
            scores={candidate["model"]: _score(candidate) for candidate in candidates},
        )
    label = preferred(read)
    names = {key: read.get(f"model_{key}") or read.get(f"system_{key}") for key in ("1", "2")}
    return Row(
        **common,
        answers={key: str(read[f"output_{key}"]) for key in ("1", "2")},
        scores={key: 0.5 if label == 0 else float(label == int(key)) for key in ("1", "2")},
        names={key: str(name) for key, name in names.items() if name},
    )


def _score(candidate: Mapping[str, Any]) -> float:
    return float(candidate["score"] if "score" in candidate else candidate["correct"])


def preferred(read: Mapping[str, Any]) -> int:
    """Which output of a pair is better, 0 for a tie: its label, its annotators' majority, or GPT-4's mean score.

    Raises `KeyError` where it has none of them.
    """
    if "human" in read:
        votes = [int(vote) for vote in read["human"]]
        return next((choice for choice in (1, 2) if 2 * votes.count(choice) > len(votes)), 0)
    if "gpt4_order12" in read:
        first, second = (sum(pair) for pair in zip(read["gpt4_order12"], read["gpt4_order21"], strict=True))
        return int(first > second) + 2 * int(second > first)
    label = int(read["label"])
    if label not in {0, 1, 2}:
        raise ValueError(f"label = {label} is none of 0, 1, 2")
    return label


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
