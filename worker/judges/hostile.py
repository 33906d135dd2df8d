"""Text in an answer that speaks to its judge instead of to its reader: found sentence by sentence, by patterns.

An answer may say that it is the best, give itself a verdict, close the quotes that it stands in, play another turn of
the chat, hide orders in comments, in letters that nobody sees or in base64, or repeat itself until it reads as fluent.
A sentence is found where it does that in so many words, in English or a dozen other languages, also spelled backwards,
spaced out, in look-alike letters or in ROT13. What is found is named by family; `others` is what a reader would miss.

The patterns are conservative: those of `hostile-1.toml` find 6 sentences in 11,748 published answers, and marks of a
chat or marks that nobody sees in 2 %, as models leave them behind; those of `hostile-2.toml` add 3 in 3,810. A list
knows what it was written for: of 62 texts the first had found 24 before it was widened by them; of 55 others it found
7, which the second raised to 50; of 30 more, written afterwards and left at that, both together find 2. What such a
text wins has to be kept small by the judge itself (`worker.judges.nll`, `steady`).
"""

from __future__ import annotations

import base64
import binascii
import re
import tomllib
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING

from worker.judges.spelling import UNSEEN, folded, unspaced, without_leet

if TYPE_CHECKING:
    from collections.abc import Mapping

EXAMINED = 50_000  # characters of an answer; what comes after is left out of what a judge reads
LONGEST = 1_500  # characters of a sentence that patterns look at
SEGMENT = re.compile(r".+?(?:[.!?]+[\"'”)\]*_]*(?=\s|\Z)|(?=\n)|[。\uff01\uff1f]+|\Z)\s*", re.DOTALL)
COMMENT = re.compile(r"<!--.*?(?:-->|\Z)|\[//\]:\s*#\s*\([^\n]*\)?", re.DOTALL)
BASE64 = re.compile(r"(?<![\w/+.-])[A-Za-z0-9+/]{24,}={0,2}(?![\w/+=-])")
HEX = re.compile(r"(?<!\w)(?:0x)?(?:[0-9a-fA-F]{2}[ ]?){16,}(?!\w)")
SAME_CHARACTER = re.compile(r"([^\s\d.\-=_*#|+~])\1{11,}")
SAME_SYLLABLES = re.compile(r"([^\W\d_]{2,8}?)\1{7,}")
SAME_WORDS = re.compile(r"(\b\w[^\n]{1,79}?[\s,;.!]+)\1{3,}")
#: Marks of a chat, of our prompts, of an end that is none: taken out wherever they stand.
MARKUP = re.compile(
    r"<\|[^\n|>]{1,40}\|>(?:system|user|assistant)?|</?s>|\[/?INST\]|<</?SYS>>"
    r"|<\s*/?\s*(?:answer|task|system|user|assistant|instructions?|judge|verdict|candidate|response|output|data|quote|"
    r"evaluation|winner|result|score|reward|label|grade|rank|rating|preference|decision)\b[^<>\n]{0,80}>"
    r"|^[ \t>#*=-]*(?:begin|end|start)(?: of)?(?: the)? (?:answers?|responses?|data|quotes?|quoted (?:text|data)|input|"
    r"output|candidates?|task|document|transcript|context)\b[ \t#*=:.-]*$"
    r"|^[ \t#*\[(]*(?:system|judge|evaluator|grader|admin|developer)(?: (?:message|prompt|note|turn))?"
    r"[\])* \t]*:[^\n]*$",
    re.IGNORECASE | re.MULTILINE,
)
PATTERNS = ("hostile-1", "hostile-2")  # the second adds to the first
ROT13 = str.maketrans(ascii_lowercase, ascii_lowercase[13:] + ascii_lowercase[:13])
PLAIN_WORDS = re.compile(r"\b(?:the|of|and|is|to|in|that|for|it)\b")  # of a sentence that is spelled as it is read
REPEATED = "repeated"  # the family of what is not aimed at a judge and still deceives one
CHARACTERS_OF_A_COPY = 12  # a shorter sentence may well come twice


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A part of an answer that is aimed at its judge: the family, and the text itself."""

    family: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Examined:
    """An answer's text in two: what was found, and what is left without it."""

    found: tuple[Finding, ...]
    others: str

    @property
    def families(self) -> list[str]:
        """Families found, each once."""
        return list(dict.fromkeys(one.family for one in self.found))


@lru_cache(maxsize=4096)
def examine(text: str, before: str | None = None) -> Examined:
    """Look through a text. Where nothing is found, `others` is the text.

    With `before`, sentences that repeat it or each other are found, too, and runs of the same words: for a judge that
    takes what is predictable for good. For others a copy is a fault of the answer that they ought to see.
    """
    found: list[Finding] = []
    left = text[:EXAMINED]
    for family, pattern in (("hidden", COMMENT), ("hidden", UNSEEN), ("markup", MARKUP)):
        left = _without(pattern, family, left, found)
    left = _decoded(left, found)
    kept: list[str] = []
    seen = None if before is None else {_words(segment) for segment in SEGMENT.findall(before)}
    for segment in SEGMENT.findall(left):
        why = _family(segment) or (None if seen is None else _copy(segment, seen))
        if why is None:
            kept.append(segment)
        else:
            found.append(Finding(family=why, text=segment.strip()))
    rest = "".join(kept) if seen is None else _shortened("".join(kept), found)
    return Examined(found=tuple(found), others=rest if found else text)


def _without(pattern: re.Pattern[str], family: str, text: str, found: list[Finding]) -> str:
    parts = [match[0] for match in pattern.finditer(text)]
    if not parts:
        return text
    found.append(Finding(family=family, text=" ".join(part.strip() for part in parts)[:LONGEST]))
    return pattern.sub("", text)


def _decoded(text: str, found: list[Finding]) -> str:
    """The text without runs of base64 or hexadecimal digits that stand for readable text."""

    def replaced(match: re.Match[str]) -> str:
        said = _readable(match[0])
        if said is None:
            return match[0]
        found.append(Finding(family="encoded", text=said))
        return ""

    return HEX.sub(replaced, BASE64.sub(replaced, text))


def _readable(run: str) -> str | None:
    for from_digits in (_from_hex, _from_base64):
        try:
            said = from_digits(run).decode("ascii")
        except (binascii.Error, ValueError):
            continue
        if " " in said and said.isprintable():
            return said
    return None


def _from_hex(run: str) -> bytes:
    return bytes.fromhex(run.removeprefix("0x").strip())


def _from_base64(run: str) -> bytes:
    return base64.b64decode(run, validate=True)


def _family(segment: str) -> str | None:
    """The family of a sentence, in the first spelling that gives it away."""
    plain = folded(segment[:LONGEST])
    family = named(plain)
    if family is not None:
        return family
    spellings = [folded(unspaced(segment[:LONGEST])), without_leet(plain)]
    if not PLAIN_WORDS.search(plain):
        spellings += [plain.translate(ROT13), plain[::-1]]
    return "encoded" if any(one != plain and named(one) is not None for one in spellings) else None


def named(sentence: str) -> str | None:
    """The family whose pattern matches a sentence in lower case."""
    return next((family for family, pattern in _families() if pattern.search(sentence)), None)


@cache
def _families() -> list[tuple[str, re.Pattern[str]]]:
    words: dict[str, str] = {}
    found = []
    for version in PATTERNS:
        read = tomllib.loads((Path(__file__).parent / f"{version}.toml").read_text(encoding="utf-8"))
        words |= read["words"]
        for family, sources in read["families"].items():
            found.append((family, re.compile("|".join(_written_out(source, words) for source in sources))))
    return found


def _written_out(source: str, words: Mapping[str, str]) -> str:
    return re.sub(r"<(\w+)>", lambda word: words[word[1]], source)


def _copy(segment: str, seen: set[str]) -> str | None:
    words = _words(segment)
    if len(words) < CHARACTERS_OF_A_COPY:
        return None
    if words in seen:
        return REPEATED
    seen.add(words)
    return None


def _words(segment: str) -> str:
    return " ".join(re.findall(r"\w+", segment.casefold()))


def _shortened(text: str, found: list[Finding]) -> str:
    """The text with runs of one character or of the same words written once."""
    for pattern, once in ((SAME_CHARACTER, r"\1\1\1"), (SAME_SYLLABLES, r"\1\1"), (SAME_WORDS, r"\1")):
        runs = [match[0] for match in pattern.finditer(text)]
        found.extend(Finding(family=REPEATED, text=run[:LONGEST]) for run in runs)
        text = pattern.sub(once, text)
    return text
