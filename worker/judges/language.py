"""Which language a text is in, by its letters and, in Latin or Cyrillic ones, by its commonest words. A light guess:
right for a sentence or more, None where it cannot tell."""

from __future__ import annotations

import re
from collections import Counter

#: Languages with letters of their own: (first, last) code points.
SCRIPTS = {
    "ja": (0x3040, 0x30FF),  # before Chinese: Japanese has Chinese letters, too
    "ko": (0xAC00, 0xD7AF),
    "zh": (0x4E00, 0x9FFF),
    "ar": (0x0600, 0x06FF),
    "he": (0x0590, 0x05FF),
    "el": (0x0370, 0x03FF),
    "hi": (0x0900, 0x097F),
    "th": (0x0E00, 0x0E7F),
}
WORDS = {
    "en": "the of and to in is that it was for on are with as his they be at this have from or had by but not what",
    "de": "der die und das ist nicht den von zu mit sich auf für ein eine dem im als auch es an werden aus er hat dass",
    "fr": "le la les de des et est un une du que en dans qui pour pas sur au avec ce il sont par plus ne se nous vous",
    "es": "el la los las de y que en un una es por con no para su se del al como más pero sus le ha lo este está",
    "it": "il lo la i gli le di e che è un una per non in con si del della sono da come più anche ma questo nel al",
    "pt": "o a os as de e que em um uma é do da para com não no na por mais dos se como mas foi ao ele das tem são",
    "nl": "de het een en van in is dat op te zijn met voor niet die aan er om ook als dan maar bij uit naar wordt door",
    "pl": "i w na z się nie do to jest że o jak za od po przez dla są co tak ale był oraz który może tym jego",
    "sv": "och i att det som en på är av för med den till inte ett om har de jag var från men så vi kan han eller",
    "ru": "и в не на что с по это как а но к из у за от он было для мы так же вы все бы его она они который был",  # noqa: RUF001
    "uk": "і в не на що з та до це як а але у за від він було для ми так ж ви всі її вона вони який був або є",  # noqa: RUF001
}
COMMON = {language: frozenset(words.split()) for language, words in WORDS.items()}
LANGUAGES = frozenset((*SCRIPTS, *WORDS))
ENOUGH_LETTERS = 2  # of a script of its own
ENOUGH_WORDS = 4  # in a text of which a language's commonest words say anything
SHARE = 0.12  # of the words that must be among the commonest


def language_of(text: str) -> str | None:
    """The two letters of a text's language, or None."""
    letters = [ord(letter) for letter in text if letter.isalpha()]
    for language, (first, last) in SCRIPTS.items():
        own = sum(first <= letter <= last for letter in letters)
        if own >= ENOUGH_LETTERS and own > len(letters) * (0.05 if language == "ja" else 0.5):
            return language
    words = re.findall(r"[^\W\d_]+", text.casefold())
    if len(words) < ENOUGH_WORDS:
        return None
    hits = Counter({language: sum(word in common for word in words) for language, common in COMMON.items()})
    (best, most), (_, second) = hits.most_common(2)
    return best if most > second and most >= SHARE * len(words) else None
