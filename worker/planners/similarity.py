"""How much alike two texts are: by a sentence embedder where there is one, else by the words and letters they share."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections import Counter
from operator import mul
from typing import TYPE_CHECKING, Any

from db.errors import BakeoffError
from worker.backends import Failure, Input

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from db.plan import Tool
    from worker.backends import Backend

REMEMBERED = 20_000  # texts whose vectors are kept

QUOTE = re.compile(r"“[^”]{30,}”|«[^»]{30,}»|\"[^\"]{30,}\"")
CLAUSE = re.compile(r"[,;:.!?]\s+|\b(?:and then|after that|afterwards|finally|then|also|and)\b", re.IGNORECASE)


class EmbedderError(BakeoffError):
    """The embedder gave no vector."""

    code = "embedder"


class Encoder(ABC):
    """Texts as vectors of length 1, remembered."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}

    def encode(self, texts: Sequence[str]) -> list[Any]:
        """One vector per text."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if len(self._known) + len(new) > REMEMBERED:
            self._known.clear()
            new = list(dict.fromkeys(texts))
        self._known.update(zip(new, self.vectors(new), strict=True))
        return [self._known[text] for text in texts]

    @abstractmethod
    def vectors(self, texts: Sequence[str]) -> list[Any]:
        """Vectors of texts never seen before."""

    @abstractmethod
    def alike(self, first: Any, second: Any) -> float:
        """Cosine of two vectors, 0..1 for texts of one language."""


class Embedded(Encoder):
    """A sentence embedder's vectors."""

    def __init__(self, embedder: Backend) -> None:
        super().__init__()
        self._embedder = embedder

    def vectors(self, texts: Sequence[str]) -> list[list[float]]:
        """Raises `EmbedderError` with the embedder's own sentence."""
        size = self._embedder.model.max_batch
        found: list[list[float]] = []
        for start in range(0, len(texts), size):
            for reply in self._embedder.run([Input(text=text) for text in texts[start : start + size]]):
                if isinstance(reply, Failure):
                    raise EmbedderError(f"{self._embedder.model.name}: {reply.message}")
                found.append([float(value) for value in reply.detail["vector"]])
        return found

    def alike(self, first: list[float], second: list[float]) -> float:
        """Dot product: the vectors have length 1."""
        return float(sum(map(mul, first, second)))


class Lexical(Encoder):
    """Words and runs of four letters, weighed by how rare they are in a corpus (TF-IDF)."""

    def __init__(self, corpus: Sequence[str]) -> None:
        super().__init__()
        seen = Counter(part for text in corpus for part in set(_parts(text)))
        self._rarity = {part: math.log((1 + len(corpus)) / (1 + count)) + 1 for part, count in seen.items()}
        self._unseen = math.log(1 + len(corpus)) + 1

    def vectors(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """Weights by part."""
        return [self._vector(text) for text in texts]

    def _vector(self, text: str) -> dict[str, float]:
        counts = Counter(_parts(text))
        raw = {part: (1 + math.log(n)) * self._rarity.get(part, self._unseen) for part, n in counts.items()}
        length = math.sqrt(sum(value * value for value in raw.values())) or 1.0
        return {part: value / length for part, value in raw.items()}

    def alike(self, first: dict[str, float], second: dict[str, float]) -> float:
        """Dot product over the parts that both have."""
        small, large = sorted((first, second), key=len)
        return sum(value * large.get(part, 0.0) for part, value in small.items())


def _parts(text: str) -> Iterable[str]:
    for word in re.findall(r"\w+", text.lower()):
        yield word
        padded = f" {word} "
        yield from (padded[start : start + 4] for start in range(len(padded) - 3))


def encoder_of(embedder: Backend | None, corpus: Sequence[str]) -> Encoder:
    """The embedder's vectors, or those of words and letters where no embedder is named."""
    return Lexical(corpus) if embedder is None else Embedded(embedder)


def described_as(tool: Tool) -> str:
    """A capability in words, as it is embedded."""
    return f"{tool.name.replace('-', ' ').replace('/', ' ')}: {tool.description}"


def asking(request: str) -> str:
    """A request without the long passages that it quotes: they say what to work on, not what to do."""
    return QUOTE.sub("“…”", request)


def clauses(request: str) -> list[str]:
    """The parts of a request that may each ask for something; the request itself where it has but one."""
    parts = [part.strip(" .") for part in CLAUSE.split(asking(request))]
    return [part for part in parts if len(part.split()) >= 3] or [request]


def varied(alike: Sequence[float], between: Sequence[Sequence[float]], most: int, variety: float) -> list[int]:
    """Places of up to `most` items, near to what is asked and far from each other (maximal marginal relevance).

    `alike` is each item's similarity to what is asked, `between` that of two items; `variety` 0 looks at the first
    only, 1 at the second only.
    """
    chosen: list[int] = []
    left = list(range(len(alike)))
    while left and len(chosen) < most:
        best = max(
            left,
            key=lambda place: (
                (1 - variety) * alike[place] - variety * max((between[place][other] for other in chosen), default=0.0)
            ),
        )
        chosen.append(best)
        left.remove(best)
    return chosen
