"""Spellings that hide words from patterns and not from a language model, undone."""

from __future__ import annotations

import re
import unicodedata

#: Nothing to see: zero-width marks, soft hyphens, changes of direction, the invisible copy of ASCII. The joiners that
#: emoji and Indic scripts are written with are not among them.
UNSEEN = re.compile("[\u00ad\u200b\u2060-\u2064\ufeff\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]+")
SPACED = re.compile(r"\b\w(?:[ .\-_*|]\w){2,}\b")
LOOK_ALIKE = str.maketrans("аеорсухіјѕԁһӏΑΒΕΖΗΙΚΜΝΟΡΤΥΧο", "aeopcyxijsdhlabezhikmnoptyxo")  # noqa: RUF001
LEET = str.maketrans("013457@$", "oieastas")


def folded(text: str) -> str:
    """Lower case, one blank between words, full-width, accented and look-alike letters as the plain ones."""
    apart = unicodedata.normalize("NFKD", text.casefold())
    bare = "".join(mark for mark in apart if not unicodedata.combining(mark))
    latin = sum("a" <= letter <= "z" for letter in bare)
    if 2 * latin > sum(letter.isalpha() for letter in bare):  # a text in Greek or Cyrillic is no disguise
        bare = bare.translate(LOOK_ALIKE)
    return " ".join(unicodedata.normalize("NFC", bare).replace("’", "'").casefold().split())  # noqa: RUF001


def unspaced(text: str) -> str:
    """`i g n o r e  i t` as `ignore  i t`: words whose letters stand alone, parted by more than one blank."""
    return SPACED.sub(lambda match: re.sub(r"[ .\-_*|]", "", match[0]), text)


def without_leet(text: str) -> str:
    """`1gn0r3` as `ignore`, in words that have a letter."""
    return re.sub(r"[\w@$]*[a-z][\w@$]*", lambda match: match[0].translate(LEET), text)
