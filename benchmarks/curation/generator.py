"""Machine-made instructions with known faults: copies, near copies of known likeness, noise, leaks.

It imports nothing of the curation code. What likeness means is said here once more, and independently: the Jaccard
index of the sets of three words in a row of all of a record's text, lower case. Unplanted records are drawn from a
large vocabulary without regard to each other, and `check` asserts on a sample of all pairs that they stay far apart.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

LEVELS = (0.5, 0.6, 0.7, 0.75, 0.85, 0.9, 0.95, 0.99)
NOISE = ("refusal", "markup", "too_short", "repetition", "no_answer", "two_marks")
UNKNOWN_NOISE = ("shuffled_words", "foreign_answer")  # no rule knows of them: how many are found is reported
LEAKS = (1.0, 0.8, 0.5)  # share of an item's words that the record has, in one piece
CLEAN, EXACT, NEAR, LEAK = "clean", "exact", "near", "leak"
SHARE = {EXACT: 0.02, NEAR: 0.04, "noise": 0.03, "unknown": 0.01, LEAK: 0.01}

_ONSETS = ("b", "br", "c", "ch", "d", "dr", "f", "fl", "g", "gr", "h", "j", "k", "l", "m", "n", "p", "pl", "pr", "qu",
           "r", "s", "sh", "sl", "st", "t", "tr", "v", "w", "z")  # fmt: skip
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ea", "ee", "oa", "ou")
_CODAS = ("", "b", "ck", "d", "g", "l", "m", "n", "nd", "ng", "nt", "p", "r", "rd", "s", "sh", "st", "t", "x")
_GLUE = ("the", "a", "of", "in", "on", "with", "and", "is", "are", "near", "to", "under", "by", "from", "that", "it")


@dataclass(frozen=True, kw_only=True)
class Planted:
    """What a record is: its kind, its level (likeness, or share of an item), and the record that it copies."""

    position: int
    kind: str
    level: float | None = None
    of: int | None = None


class Generator:
    """Records in LLaVA's form. The same seed and count give the same file."""

    def __init__(self, count: int, seed: int = 1) -> None:
        self.count = count
        self._random = Random(f"{seed}/{count}")
        words = [a + b + c for a in _ONSETS for b in _VOWELS for c in _CODAS]
        self._words = [*words, *(one + two for one in words[::7] for two in words[3::90])]
        self.items = [self._said(18) for _ in range(max(20, count // 300))]
        self.planted: list[Planted] = []
        self._sources: list[tuple[int, dict[str, Any]]] = []

    def evaluation_set(self) -> list[dict[str, str]]:
        """The items that must not leak."""
        return [{"question": " ".join(item)} for item in self.items]

    def records(self) -> Iterator[dict[str, Any]]:
        """All records in their order; `planted` grows with them."""
        kinds = list(SHARE)
        for position in range(self.count):
            drawn = self._random.random()
            kind = next((one for one in kinds if (drawn := drawn - SHARE[one]) < 0), CLEAN)
            if kind in {EXACT, NEAR} and len(self._sources) < 50:
                kind = CLEAN
            yield self._of_kind(kind, position)

    def _of_kind(self, kind: str, position: int) -> dict[str, Any]:
        make = {EXACT: self._exact, NEAR: self._near, "noise": self._noise, "unknown": self._unknown, LEAK: self._leak}
        if kind in make:
            return make[kind](position)
        record = self._record(position)
        self.planted.append(Planted(position=position, kind=CLEAN))
        if len(self._sources) < 2000:
            self._sources.append((position, record))
        else:
            self._sources[self._random.randrange(2000)] = (position, record)
        return record

    def _said(self, least: int) -> list[str]:
        length = least + self._random.randrange(least)
        return [
            self._random.choice(_GLUE) if self._random.random() < 0.3 else self._random.choice(self._words)
            for _ in range(length)
        ]

    def _record(self, position: int) -> dict[str, Any]:
        turns = self._random.choice((1, 1, 2, 4))
        talk = []
        for turn in range(turns):
            mark = "<image>\n" if turn == 0 else ""
            question, answer = " ".join(self._said(7)), " ".join(self._said(25))
            talk += [{"from": "human", "value": f"{mark}{question.capitalize()}?"},
                     {"from": "gpt", "value": f"{answer.capitalize()}."}]  # fmt: skip
        return {"id": f"{position:09d}", "image": f"{position:012d}.jpg", "conversations": talk}

    def _exact(self, position: int) -> dict[str, Any]:
        source, record = self._random.choice(self._sources)
        self.planted.append(Planted(position=position, kind=EXACT, of=source))
        return {**record, "id": f"{position:09d}"}

    def _near(self, position: int) -> dict[str, Any]:
        """A copy whose last answer ends in other words, so many that the likeness is what it should be."""
        level = LEVELS[len(self.planted) % len(LEVELS)]
        source, record = self._random.choice(self._sources)
        words = words_of(record)
        # n runs of the source, of which the last x change: likeness = (n - x) / (n + x).
        runs = len(runs_of(words))
        changed = max(1, round(runs * (1 - level) / (1 + level)))
        copy = json.loads(json.dumps(record))
        copy["id"] = f"{position:09d}"
        self._change_end(copy, changed)
        found = likeness(record, copy)
        self.planted.append(Planted(position=position, kind=NEAR, level=round(found, 4), of=source))
        return dict(copy)

    def _change_end(self, record: dict[str, Any], count: int) -> None:
        """Put `count` other words in the place of the last ones, from the last turn backwards."""
        for entry in reversed(record["conversations"]):
            words = entry["value"].split(" ")
            mine = min(count, len(words) - (1 if "<image>" in words[0] else 0))
            if mine:
                words[-mine:] = [self._random.choice(self._words) + "ish" for _ in range(mine)]
                entry["value"] = " ".join(words)
            count -= mine
            if not count:
                return

    def _noise(self, position: int) -> dict[str, Any]:
        kind = NOISE[self._random.randrange(len(NOISE))]
        record = self._record(position)
        talk = record["conversations"]
        if kind == "refusal":
            talk[1]["value"] = f"I'm sorry, but I can not say. {talk[1]['value']}"
        elif kind == "markup":
            talk[1]["value"] = f"<div class='x'>{talk[1]['value']}</div> https://example.org"
        elif kind == "too_short":
            talk[0]["value"] = "<image>\nWhat?"
        elif kind == "repetition":
            talk[1]["value"] = " ".join([self._random.choice(self._words)] * 30)
        elif kind == "no_answer":
            record["conversations"] = talk[:1]
        else:
            talk[0]["value"] = f"<image>\n{talk[0]['value']}"
        self.planted.append(Planted(position=position, kind=f"noise:{kind}"))
        return record

    def _unknown(self, position: int) -> dict[str, Any]:
        kind = UNKNOWN_NOISE[self._random.randrange(len(UNKNOWN_NOISE))]
        record = self._record(position)
        said = record["conversations"][1]["value"].rstrip(".").split()
        if kind == "shuffled_words":
            self._random.shuffle(said)
        else:
            said = ["".join(chr(0x430 + ord(c) % 32) for c in word) for word in said]
        record["conversations"][1]["value"] = " ".join(said) + "."
        self.planted.append(Planted(position=position, kind=f"unknown:{kind}"))
        return record

    def _leak(self, position: int) -> dict[str, Any]:
        level = LEAKS[len(self.planted) % len(LEAKS)]
        item = self._random.choice(self.items)
        record = self._record(position)
        part = " ".join(item[: max(1, round(level * len(item)))])
        record["conversations"][0]["value"] = f"<image>\n{part.capitalize()}?"
        self.planted.append(Planted(position=position, kind=LEAK, level=level))
        return record


def write(count: int, folder: Path, seed: int = 1) -> tuple[Path, Path, list[Planted]]:
    """The records as a JSON array and the evaluation set as JSON lines, written as they are made; what was planted."""
    generator = Generator(count, seed)
    records, items = folder / f"records-{count}.json", folder / f"evaluation-{count}.jsonl"
    with records.open("w", encoding="utf-8") as file:
        for number, record in enumerate(generator.records()):
            file.write(("[\n" if number == 0 else ",\n") + json.dumps(record, ensure_ascii=False))
        file.write("\n]\n")
    items.write_text("".join(json.dumps(item) + "\n" for item in generator.evaluation_set()), encoding="utf-8")
    return records, items, generator.planted


def words_of(record: dict[str, Any]) -> list[str]:
    """The words of a record, lower case, punctuation and mark left out."""
    said = " ".join(entry["value"] for entry in record["conversations"]).replace("<image>", " ").lower()
    return "".join(c if c.isalnum() else " " for c in said).split()


def runs_of(words: list[str]) -> set[tuple[str, ...]]:
    """Every three words in a row."""
    return {tuple(words[start : start + 3]) for start in range(max(1, len(words) - 2))}


def likeness(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The Jaccard index of two records."""
    a, b = runs_of(words_of(one)), runs_of(words_of(other))
    return len(a & b) / len(a | b)


def check(records: Path, planted: list[Planted], threshold: float, pairs: int = 200_000) -> float:
    """The greatest likeness of drawn unplanted pairs, and of those that share any rare run; below half the threshold.

    Drawn pairs alone would miss a rare accident, so every two clean records that share a run of three words are
    compared, up to `pairs` of them. Raises `AssertionError`.
    """
    clean = {one.position for one in planted if one.kind == CLEAN}
    seen: dict[int, int] = {}
    kept: dict[int, set[tuple[str, ...]]] = {}
    greatest, compared = 0.0, 0
    with records.open(encoding="utf-8") as file:
        for position, line in enumerate(line for line in file if line.startswith("{")):
            if position not in clean:
                continue
            own = runs_of(words_of(json.loads(line.rstrip(",\n"))))
            for run in own:
                other = seen.setdefault(hash(run), position)
                if other != position and other in kept and compared < pairs:
                    compared += 1
                    greatest = max(greatest, len(own & kept[other]) / len(own | kept[other]))
            if len(kept) < 20_000:
                kept[position] = own
    if greatest >= threshold / 2:
        raise AssertionError(
            f"Unplanted records are alike by {greatest:.3f}; the generator promises {threshold / 2:g}."
        )
    return greatest
