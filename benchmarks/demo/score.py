"""How wrong an answer is, and how wrong each way to choose one of several is on average.

Errors are fractions of the truth's characters (OCR) or words (speech), never more than 1.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

from rapidfuzz.distance import Levenshtein

_ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_ONES += ["thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SPELLED_OUT = {"mr": "mister", "mrs": "missus", "dr": "doctor"}

Errors = Callable[[str, str], float]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One input of which the truth is known: each model's output (None: it failed), and which one won (None: nobody).

    `outputs` is in the selectors' order, first rank first.
    """

    family: str
    truth: str
    outputs: Mapping[str, str | None]
    winner: str | None


@dataclass(frozen=True, kw_only=True)
class FamilySummary:
    """Mean errors over the inputs of a family, by who chooses."""

    n: int
    best_single: float  # the one model with the lowest mean, the same one for every input of the family
    random: float  # any of the candidates, drawn
    consensus: float  # the candidate that is nearest to the others
    judge: float  # the verdict's winner
    oracle: float  # the best of the candidates, known only to who knows the truth
    best_model: str  # who `best_single` is


def character_error(truth: str, answer: str) -> float:
    """Edits per character of the truth; white space folded, case counts."""
    return _distance(list(" ".join(truth.split())), list(" ".join(answer.split())))


def word_error(truth: str, answer: str) -> float:
    """Edits per word of the truth; case and punctuation do not count, nor whether a number is written in digits."""
    return _distance(words(truth), words(answer))


def words(text: str) -> list[str]:
    """Words as they are said: "Mr. Lee, 42" → mister lee forty two; digits beyond two are said one by one."""
    plain = unicodedata.normalize("NFKC", text).lower().replace("\u2019", "'")
    found = re.findall(r"\d+|[^\W\d_]+(?:'[^\W\d_]+)*", plain)
    return [said for word in found for said in _said(word)]


def _said(word: str) -> list[str]:
    if not word.isdigit():
        return [_SPELLED_OUT.get(word, word)]
    number = int(word)
    if len(word) > 2 or (len(word) == 2 and word.startswith("0")):
        return [_ONES[int(digit)] for digit in word]
    if number < len(_ONES):
        return [_ONES[number]]
    tens = _TENS[number // 10 - 2]
    return [tens, _ONES[number % 10]] if number % 10 else [tens]


def _distance(truth: Sequence[str], answer: Sequence[str]) -> float:
    if not truth:
        return float(bool(answer))
    return min(1.0, Levenshtein.distance(truth, answer) / len(truth))


def error_of(output: str | None, truth: str, errors: Errors) -> float:
    """Error of one candidate; one that failed is as wrong as can be."""
    return 1.0 if output is None else errors(truth, output)


def consensus(outputs: Mapping[str, str | None]) -> str | None:
    """The model whose output is nearest to all the others by edit distance; of equals the first. None: all failed."""
    alive = {model: text for model, text in outputs.items() if text is not None}
    if not alive:
        return None
    # `min` keeps the first of equals, and the mapping is in order of rank.
    return min(
        alive, key=lambda model: sum(Levenshtein.normalized_distance(alive[model], other) for other in alive.values())
    )


def summarize(items: Sequence[Scored], errors: Errors) -> dict[str, FamilySummary]:
    """Summary of every family, and of `all` together. An input without a winner counts as an error of 1."""
    families: dict[str, list[Scored]] = defaultdict(list)
    for item in items:
        families[item.family].append(item)
    if items:
        families["all"] = list(items)
    return {family: _family(members, errors) for family, members in families.items()}


def _family(items: Sequence[Scored], errors: Errors) -> FamilySummary:
    tables = [{m: error_of(text, item.truth, errors) for m, text in item.outputs.items()} for item in items]
    # A model that was no candidate of an input gave no answer there.
    models = dict.fromkeys(model for table in tables for model in table)
    means = {model: fmean(table.get(model, 1.0) for table in tables) for model in models}
    best = min(means, key=means.__getitem__, default="")
    return FamilySummary(
        n=len(items),
        best_model=best,
        best_single=means.get(best, 1.0),
        random=fmean(fmean(table.values()) if table else 1.0 for table in tables),
        consensus=fmean(_chosen(table, consensus(item.outputs)) for item, table in zip(items, tables, strict=True)),
        judge=fmean(_chosen(table, item.winner) for item, table in zip(items, tables, strict=True)),
        oracle=fmean(min(table.values(), default=1.0) for table in tables),
    )


def _chosen(table: Mapping[str, float], model: str | None) -> float:
    return 1.0 if model is None else table[model]


def as_json(summaries: Mapping[str, Mapping[str, FamilySummary]]) -> dict[str, dict[str, dict[str, float]]]:
    """`{variant: {family: {n, best_single, random, consensus, judge, oracle}}}`, errors rounded to six digits."""
    return {
        variant: {
            family: {key: round(value, 6) for key, value in asdict(summary).items() if key != "best_model"}
            for family, summary in families.items()
        }
        for variant, families in summaries.items()
    }
