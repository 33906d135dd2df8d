"""Numbers in what models say, in digits or in English words: the one thing by which an answer is right or wrong."""

from __future__ import annotations

import re

_ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_ONES += ["thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_VALUES = {word: value for value, word in enumerate(_ONES)} | {word: 20 + 10 * n for n, word in enumerate(_TENS)}
_TOKEN = re.compile(r"\d{1,3}(?:,\d{3})+(?!\d)|\d+(?:\.\d+)?|[a-z]+")


def number_of(text: str | None) -> float | None:
    """The last number in a text, None where there is none.

    Models that show their work write the result last: "348 + 47 = 395". Digits may have separators ("1,234"), words
    are English ("three hundred and forty-eight"). A lone "one" is no number: "348 is the larger one".
    """
    found = numbers(text or "")
    return found[-1] if found else None


def numbers(text: str) -> list[float]:
    """Every number in a text, in order."""
    found: list[float] = []
    words: list[str] = []
    for word in [*_TOKEN.findall(text.lower()), ""]:
        if _goes_on(words, word):
            words.append(word)
            continue
        found += _value(words)
        words = [word] if word in _VALUES or word == "hundred" else []
        if word[:1].isdigit():
            found.append(float(word.replace(",", "")))
    return found


def in_words(number: int) -> str:
    """A number below 1000 as people say it: "three hundred and forty eight"."""
    hundreds, rest = divmod(number, 100)
    said = [f"{_ONES[hundreds]} hundred"] if hundreds else []
    if rest or not hundreds:
        tens, ones = divmod(rest, 10)
        below = _ONES[rest] if rest < len(_ONES) else _TENS[tens - 2] + (f" {_ONES[ones]}" if ones else "")
        said.append(below)
    return " and ".join(said)


def _goes_on(words: list[str], word: str) -> bool:
    """Whether a word belongs to the number whose words stand before it."""
    if not words:
        return False
    last = words[-1]
    if word == "hundred":
        return 0 < _VALUES.get(last, 0) < 10 and len(words) == 1
    if word == "and":
        return last == "hundred"
    if word not in _VALUES:
        return False
    return last in {"hundred", "and"} or (last in _TENS and 0 < _VALUES[word] < 10)


def _value(words: list[str]) -> list[float]:
    """The number that words make, where they make one."""
    if not words or words == ["one"]:
        return []
    total = 0
    for word in words:
        if word == "hundred":
            total = (total or 1) * 100
        else:
            total += _VALUES.get(word, 0)
    return [float(total)]
