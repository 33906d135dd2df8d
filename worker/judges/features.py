"""What can be seen of an answer without a language model: its form, what it takes from the request, who agrees with it.

Every feature is a number of one answer beside the others of its question. None is good or bad in itself: what a longer
or a more repetitive answer is worth is fitted per capability (`worker.judges.fitting`).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from worker.judges.similarity import final_answer, marked_answer, matrix

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

COMPARED = 1500  # characters of an answer that are compared with the others: the edit distance is quadratic
WORD = re.compile(r"\w+")
LIST_ITEM = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s", re.MULTILINE)
MARKUP = re.compile(r"```|\*\*|^#{1,6}\s", re.MULTILINE)
REFUSAL = re.compile(
    r"\b(?:as an ai|i(?:'m| am) (?:sorry|unable|not able)|i (?:cannot|can't|can not|do(?:n't| not) have)|"
    r"(?:not|in)sufficient information|not possible to|cannot be determined|does not (?:provide|contain|specify))",
    re.IGNORECASE,
)
OPERAND = r"\$?(-?\d[\d,]*(?:\.\d+)?)%?"
TIMES, OVER = "*x\u00d7", "/\u00f7"
SUM = re.compile(rf"{OPERAND}\s*([-+{TIMES}{OVER}])\s*{OPERAND}\s*=\s*{OPERAND}")
ASKS_NUMBER = re.compile(
    r"\bhow (?:many|much|old|long|far|tall)\b|\bwhat (?:number|is the (?:sum|difference|total|value))"
)
CHOICES = re.compile(r"^Choices: (.+)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Features per answer, and how alike the answers are: `alike[i][j]` in 0..1, the higher of words and result."""

    features: tuple[dict[str, float], ...]
    alike: tuple[tuple[float, ...], ...]


def seen(request: str, texts: Sequence[str]) -> Seen:
    """Features of every answer to a request."""
    cut = [text.strip()[:COMPARED] for text in texts]
    words, results = matrix(cut, "words"), [final_answer(text) for text in cut]
    marked = [marked_answer(text) for text in cut]
    closed = 2 * sum(answer is not None for answer in marked) > len(cut)
    same = [[float(closed and one is not None and one == other) for other in results] for one in results]
    alike = [[max(a, b) if closed else a for a, b in zip(*rows, strict=True)] for rows in zip(words, same, strict=True)]
    asked = _Request(request)
    most = max((sum(row) - 1 for row in same), default=0.0) / max(1, len(cut) - 1)
    rows = []
    for place, text in enumerate(texts):
        others = [value for other, value in enumerate(words[place]) if other != place]
        votes = [value for other, value in enumerate(same[place]) if other != place]
        row = _form(text) | _against(asked, text, results[place]) | _sums(text)
        row["alike"] = sum(others) / len(others) if others else 0.0
        row["nearest"] = max(others, default=0.0)
        row["votes"] = sum(votes) / len(votes) if votes else 0.0
        row["majority"] = float(0 < row["votes"] == most)
        row["alone"] = float(row["votes"] == 0)
        row["result"] = float(marked[place] is not None)
        rows.append(row)
    return Seen(features=tuple(rows), alike=tuple(tuple(row) for row in alike))


def _form(text: str) -> dict[str, float]:
    bare = text.strip()
    words = [word.casefold() for word in WORD.findall(bare)]
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    size = max(1, len(bare))
    length = math.log1p(len(bare))
    return {
        "length": length,
        "length_squared": length * length / 10,
        "lines": math.log1p(bare.count("\n")),
        "items": math.log1p(len(LIST_ITEM.findall(bare))),
        "markup": float(bool(MARKUP.search(bare))),
        "repeats": 1 - len(set(trigrams)) / len(trigrams) if trigrams else 0.0,
        "varied": len(set(words)) / len(words) if words else 0.0,
        "word_length": sum(map(len, words)) / len(words) if words else 0.0,
        "digits": sum(character.isdigit() for character in bare) / size,
        "capitals": sum(character.isupper() for character in bare) / size,
        "marks": sum(not character.isalnum() and not character.isspace() for character in bare) / size,
        "ends": float(bare.endswith((".", "!", "?", '"', "'", ")", "```", "”"))),
        "begins": float(bare[:1].isupper()),
        "refuses": float(bool(REFUSAL.search(bare))),
        "asks": float(bare.endswith("?")),
    }


class _Request:
    """A request's words and pairs of words, with the place where each is first seen."""

    def __init__(self, text: str) -> None:
        words = [word.casefold() for word in WORD.findall(text)]
        self.text = text.casefold()
        self.words = set(words)
        self.content = {word for word in words if len(word) > 3}
        self.pairs: dict[tuple[str, str], float] = {}
        for place, pair in enumerate(pairwise(words)):
            self.pairs.setdefault(pair, place / len(words))
        self.wants_number = bool(ASKS_NUMBER.search(self.text))
        choices = CHOICES.search(text)
        self.choices = {choice.strip().casefold() for choice in choices[1].split(";")} if choices else set()


def _against(request: _Request, text: str, result: str | None) -> dict[str, float]:
    words = [word.casefold() for word in WORD.findall(text)]
    pairs = list(pairwise(words))
    places = [request.pairs[pair] for pair in pairs if pair in request.pairs]
    answer = (marked_answer(text) or "").casefold()
    return {
        "echoes": sum(word in request.words for word in words) / len(words) if words else 0.0,
        "copies": len(places) / len(pairs) if pairs else 0.0,
        "copies_early": 1 - sum(places) / len(places) if places else 0.0,
        "covers": len(request.content & set(words)) / len(request.content) if request.content else 0.0,
        "number_wanted": float(request.wants_number and result is not None and result[-1:].isdigit()),
        "among_choices": float(answer in request.choices) if request.choices else 0.0,
        "result_given": float(bool(answer) and answer in request.text),
    }


def _sums(text: str) -> dict[str, float]:
    """Sums that are written out, counted as right and wrong ones: a wrong one seldom leads to a right result."""
    right = wrong = 0
    for first, sign, second, result in SUM.findall(text):
        holds = _holds(_number(first), sign, _number(second), _number(result))
        right, wrong = right + holds, wrong + (not holds)
    return {"sums_right": math.log1p(right), "sums_wrong": math.log1p(wrong)}


def _number(text: str) -> float:
    return float(text.replace(",", ""))


def _holds(first: float, sign: str, second: float, result: float) -> bool:
    if sign in OVER:
        return second != 0 and _close(first / second, result)
    percent = first * second / 100  # "20% x 50 = 10"
    product = sign in TIMES
    value = first * second if product else first + second if sign == "+" else first - second
    return _close(value, result) or (product and _close(percent, result))


def _close(value: float, written: float) -> bool:
    return abs(value - written) <= max(0.011, 0.005 * abs(value))


def with_models(
    row: Mapping[str, float], place: int, models: Sequence[str], alike: Sequence[float]
) -> dict[str, float]:
    """A row with whose answer it is, and how like it is to what each of the models said.

    `with:` is what makes a fitted vote: what a strong model also says counts for more than what a weak one says.
    """
    out = dict(row) | {f"by:{models[place]}": 1.0}
    for model, value in zip(models, alike, strict=True):
        out[f"with:{model}"] = max(out.get(f"with:{model}", 0.0), value)
    return out
