"""Composed requests with known answers, drawn from a seed: two numbers, one file each, and a question about them."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, Literal

from scheduler.evaluation.pipeline.numbers import in_words, number_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

OCR = "image-to-text/ocr"
SPEECH = "automatic-speech-recognition"
TEXT = "text-generation"

READ, HEAR, ANSWER = "read", "hear", "answer"
STEPS = {READ: OCR, HEAR: SPEECH, ANSWER: TEXT}
Operation = Literal["add", "compare", "look up"]
OPERATIONS: tuple[Operation, ...] = ("add", "compare", "look up")

NOISES = ("clean", "hiss 5 dB", "hiss 0 dB", "hiss -5 dB", "hum 0 dB")
LONGEST_ANSWER = 48  # tokens; an answer is a number

_PICTURE_SAYS, _RECORDING_SAYS = "The picture says:", "The recording says:"
_CAPTIONS = (
    "Invoice total: {} crowns",
    "Order {} is ready",
    "Locker {}, second floor",
    "Meter reading: {} units",
    "Ticket {}",
    "Weight: {} kg",
)
_UTTERANCES = (
    "The number is {}.",
    "She wrote down {}.",
    "Please remember the number {}.",
    "The answer that he gave was {}.",
    "We counted {} of them.",
)
_ASKED: Mapping[Operation, tuple[str, ...]] = {
    "add": (
        "What is the sum of the number in the picture and the number in the recording? Answer with the equation only.",
        "Add the number that is spoken to the one in the picture. Answer with the equation only.",
        "What do the number in the image and the spoken number make together? Answer with the equation only.",
    ),
    "compare": (
        "Which number is larger, the one in the picture or the one in the recording? Answer with that number only.",
        "Compare the number in the image with the number that is spoken, and answer with the larger of the two only.",
    ),
    "look up": (
        "The picture shows a row, the recording says a seat. What does it cost? Answer with the price only.\n{}",
        "Look up a price: the row is in the picture, the seat in the recording. Answer with the price only.\n{}",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Item:
    """One request. `shown` is the number in the picture, `said` the one in the recording."""

    number: int
    operation: Operation
    request: str
    shown: int
    said: int
    answer: int
    caption: str
    utterance: str
    noise: str
    picture: Path
    recording: Path

    @property
    def subtasks(self) -> list[dict[str, Any]]:
        """The plan: read, hear, then answer from both."""
        return [
            {"id": READ, "capability": OCR, "inputs": [{"attachment": 0}]},
            {"id": HEAR, "capability": SPEECH, "inputs": [{"attachment": 1}]},
            self._answer_step({"output": READ}, {"output": HEAR}),
        ]

    @property
    def params(self) -> dict[str, Any]:
        """How long an answer may be."""
        return {"max_new_tokens": LONGEST_ANSWER}

    def answer_step(self, read: str, heard: str) -> dict[str, Any]:
        """The last step alone, from what was read and heard: a model sees the same words as in the whole plan."""
        return self._answer_step(*({"text": text} if text else None for text in (read, heard)))

    def _answer_step(self, *given: Mapping[str, str] | None) -> dict[str, Any]:
        said = zip((_PICTURE_SAYS, _RECORDING_SAYS), given, strict=True)
        parts = [part for name, words in said for part in ({"text": name}, words) if part is not None]
        return {
            "id": ANSWER,
            "capability": TEXT,
            "inputs": [{"request": True}, *parts],
            "options": {"params": self.params},
        }

    def is_right(self, step: str, text: str | None) -> bool:
        """Whether the last number that a text says is the one that this step should find."""
        return number_of(text) == {READ: self.shown, HEAR: self.said, ANSWER: self.answer}[step]


def draw_items(count: int, seed: int, folder: Path) -> list[Item]:
    """Items whose files are still to be made in `folder`; operations take turns."""
    return [_item(number, seed, folder) for number in range(count)]


def _item(number: int, seed: int, folder: Path) -> Item:
    random = Random(f"pipeline {seed} {number}")  # noqa: S311 - not cryptography
    operation = OPERATIONS[number % len(OPERATIONS)]
    low, high = (20, 99) if operation == "compare" else (100, 899)
    shown = random.randint(low, high)
    said = random.choice([one for one in range(20, 100) if one != shown])
    asked = random.choice(_ASKED[operation])
    answer = {"add": shown + said, "compare": max(shown, said), "look up": random.randint(100, 999)}[operation]
    return Item(
        number=number,
        operation=operation,
        request=asked.format(_prices(random, shown, said, answer)) if operation == "look up" else asked,
        shown=shown,
        said=said,
        answer=answer,
        caption=random.choice(_CAPTIONS).format(shown),
        utterance=random.choice(_UTTERANCES).format(in_words(said)),
        noise=NOISES[number % len(NOISES)],
        picture=folder / f"picture-{number:03d}.png",
        recording=folder / f"recording-{number:03d}.wav",
    )


def _prices(random: Random, row: int, seat: int, price: int) -> str:
    """A table of six places: the one asked for, two of its row, two of its seat, one of neither."""
    other = random.sample([one for one in range(100, 900) if one != row], 3)
    seats = random.sample([one for one in range(20, 100) if one != seat], 3)
    places = [(row, seats[0]), (row, seats[1]), (other[0], seat), (other[1], seat), (other[2], seats[2])]
    prices = random.sample([one for one in range(100, 1000) if one != price], len(places))
    lines = [(row, seat, price), *((r, s, p) for (r, s), p in zip(places, prices, strict=True))]
    random.shuffle(lines)
    return "\n".join(f"row {r}, seat {s}: {p} crowns" for r, s, p in lines)
