"""How alike two answers are, from 0 to 1, and what answer a text comes to; no model is asked.

`words` and `characters` are one minus the edit distance over the longer text's length: of words for speech and prose,
of characters for text in pictures. `answer` is 1 where both texts come to the same final answer. `meaning` is the
cosine of the vectors that a sentence embedder gives: for open prose, where the same is said in other words.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, TypeVar

from db.errors import RegistryError
from worker.planners.similarity import Embedded

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from db.registry import JudgeEntry
    from worker.backends import Backend
    from worker.planners.similarity import Encoder

Similarity = Literal["words", "characters", "answer", "meaning"]

T = TypeVar("T")

SHORT = 4  # words: a text this short is its own answer
NUMBER = re.compile(r"[-+]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)%?")
# What introduces a final answer: "#### 13", "A: 13", "Answer: 13", "the answer is (B)", "\boxed{13}".
MARKS = re.compile(r"####|\\boxed\{|(?:^|\n)\s*A\s*:|\banswer\s*(?::|is\b:?)", re.IGNORECASE)
EDGES = " \t\r\n.,;:!?\"'`*()[]{}$€£“”"


def edit_distance(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """Insertions, deletions and replacements that turn one sequence into the other.

    Myers' bit vectors over Python's long integers, in Hyyrö's form: one step per element of the longer sequence.
    """
    if len(first) > len(second):
        first, second = second, first
    if not first:
        return len(second)
    places: dict[Hashable, int] = {}
    for index, element in enumerate(first):
        places[element] = places.get(element, 0) | 1 << index
    mask, last = (1 << len(first)) - 1, 1 << (len(first) - 1)
    up, down, distance = mask, 0, len(first)  # where the column rises by one, and falls by one
    for element in second:
        here = places.get(element, 0)
        equal = (((here & up) + up) ^ up) | here | down
        right_up, right_down = down | ~(equal | up), up & equal
        distance += bool(right_up & last) - bool(right_down & last)
        right_up, right_down = (right_up << 1 | 1), right_down << 1
        up, down = (right_down | ~(equal | right_up)) & mask, right_up & equal & mask
    return distance


def final_answer(text: str) -> str | None:
    """What a text comes to, in a form that equals another's where they agree: its marked answer or its last number."""
    numbers = NUMBER.findall(text)
    return marked_answer(text) or (normalised(numbers[-1]) if numbers else None)


def marked_answer(text: str) -> str | None:
    """The answer that follows the last mark ("####", "answer is", "A:"); a short text without marks is its own answer.

    None where there is neither. After a mark units are left out: "A: 13 stickers" comes to 13.
    """
    marks = list(MARKS.finditer(text))
    if not marks:
        return normalised(text) or None if len(text.split()) <= SHORT else None
    said = next(iter(text[marks[-1].end() :].strip().splitlines()), "")
    number = NUMBER.match(said.strip(EDGES))
    if number:
        return normalised(number[0])
    if len(said.split()) <= SHORT:
        return normalised(said) or None
    numbers = NUMBER.findall(said)
    return normalised(numbers[0]) if numbers else None


def normalised(text: str) -> str:
    """A short answer without case, marks at its edges, and the many ways to write one number."""
    bare = text.strip(EDGES)
    if NUMBER.fullmatch(bare):
        return f"{float(bare.rstrip('%').replace(',', '')):.10g}"
    return " ".join(bare.casefold().split())


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _nearness(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    longest = max(len(first), len(second))
    return 1.0 if longest == 0 else 1 - edit_distance(first, second) / longest


def _same_answer(first: str, second: str) -> float:
    answer = final_answer(first)
    return float(first == second or (answer is not None and answer == final_answer(second)))


MEASURES: Mapping[Similarity, Callable[[str, str], float]] = {
    "words": lambda first, second: _nearness(_words(first), _words(second)),
    "characters": _nearness,
    "answer": _same_answer,
}


def needed_encoder(entry: JudgeEntry, similarity: Similarity, embedder: Backend | None) -> Encoder | None:
    """What `meaning` is compared with; None for other measures. Raises `RegistryError` where no embedder is named."""
    if similarity != "meaning":
        return None
    if embedder is None:
        raise RegistryError(f"judges.{entry.name}.params.similarity = 'meaning' needs judges.{entry.name}.embedder.")
    return Embedded(embedder)


def matrix(texts: Sequence[str], similarity: Similarity, encoder: Encoder | None = None) -> list[list[float]]:
    """Every text against every other; symmetric, 1 on the diagonal. `meaning` needs the encoder."""
    if encoder is None:
        return _every_pair(texts, MEASURES[similarity])
    vectors = encoder.encode(texts)
    return _every_pair(vectors, lambda first, second: max(0.0, min(1.0, encoder.alike(first, second))))


def _every_pair(items: Sequence[T], measure: Callable[[T, T], float]) -> list[list[float]]:
    rows = [[1.0] * len(items) for _ in items]
    for row, item in enumerate(items):
        for column in range(row):
            rows[row][column] = rows[column][row] = measure(item, items[column])
    return rows
