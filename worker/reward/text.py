"""What a reward model reads: an item alone, as a question, or an instruction with its answer.

Training, the `reward` backend, the `reward` judge and curation all render here, so that a score means the same
everywhere. The form is part of an artifact: raise `FORM` when it changes.
"""

from __future__ import annotations

import re

#: Capabilities of reward models in the registry: their input is what `rendered` returns, their output a score as text.
QUESTION_REWARD = "text-classification/question-reward"
ANSWER_REWARD = "text-classification/answer-reward"
FORM = 1
DIVIDER = "\n\n### Answer\n"  # between an instruction and its answer
PLACES = 4  # decimals of a score: fewer digits than the noise that padding a batch makes

_IMAGE = re.compile(r"[\r\n]*<image>[\r\n]*")


def rendered(instruction: str, answer: str) -> str:
    """The text to score: `answer` as the answer to `instruction`; an empty instruction leaves the item alone.

    The mark of an image goes, with the line breaks around it: in published data it stands in the first turn only, and
    so says where an item comes from, not how good it is.
    """
    asked, said = without_image_mark(instruction), without_image_mark(answer)
    return f"{asked.replace(DIVIDER, chr(10) * 2)}{DIVIDER}{said}" if asked else said


def parted(text: str) -> tuple[str, str]:
    """Instruction and answer of a rendered text; the instruction of an item alone is empty."""
    asked, divider, said = text.partition(DIVIDER)
    return (asked, said) if divider else ("", text)


def without_image_mark(text: str) -> str:
    """A text without `<image>` and the line breaks around it, and without blanks at its ends."""
    return _IMAGE.sub(lambda mark: "" if _at_an_end(mark) else " ", text).strip()


def _at_an_end(mark: re.Match[str]) -> bool:
    return mark.start() == 0 or mark.end() == len(mark.string)


def as_text(score: float) -> str:
    """A score as a backend prints it: `-0.3172`."""
    return f"{round(score, PLACES) + 0.0:.{PLACES}f}"  # never -0.0000
