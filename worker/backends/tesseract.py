"""Tesseract, through its command: the operating system's package brings it, pip cannot.

The picture goes in through stdin as PNG after we decoded it ourselves, so the command's own image readers never meet
a stranger's file. Words come back as a table (TSV) with boxes and confidences.
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby
from typing import TYPE_CHECKING, Any

from pydantic import Field

from db.errors import WeightsError
from worker.backends import Input, OneByOne, Output
from worker.media import decode_image, only_file
from worker.params import Params, checked_params

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

    from db.registry import ModelEntry
    from worker.backends import Place

_WORD_LEVEL = "5"
_WAY_OUT = "install it (Debian, Ubuntu: apt-get install tesseract-ocr) or take the model out of the profile"


class TesseractParams(Params):
    """See `tesseract --help-extra`."""

    language: str = Field(default="eng", pattern=r"^[A-Za-z0-9_]+(\+[A-Za-z0-9_]+)*$")
    psm: int = Field(default=6, ge=3, le=13)  # page layout: 3 automatic, 6 one block of text, 7 a single line


@dataclass(frozen=True, kw_only=True)
class Word:
    """One word, its line, its box (left, top, width, height in pixels), its confidence 0..1."""

    line: tuple[str, ...]
    text: str
    box: tuple[int, int, int, int]
    confidence: float


class Tesseract(OneByOne):
    """The command `tesseract` on the PATH."""

    def __init__(self, model: ModelEntry, place: Place) -> None:
        super().__init__(model, place)
        self.params = checked_params(model, TesseractParams)
        self._command = ""

    def load(self) -> None:
        """Build the engine and show it a tiny input. Raises `WeightsError` where something is not installed."""
        from PIL import Image

        command = shutil.which("tesseract")
        if command is None:
            raise WeightsError(f"Model {self.model.name} needs the command tesseract on the PATH: {_WAY_OUT}.")
        self._command = command
        listed = self._run(["--list-langs"]).decode(errors="replace").split()
        for language in self.params.language.split("+"):
            if language not in listed:
                raise WeightsError(
                    f"tesseract has no language {language!r} (models.{self.model.name}.params.language): "
                    f"install its data (Debian, Ubuntu: apt-get install tesseract-ocr-{language})."
                )
        self._words(Image.new("RGB", (64, 32), "white"))

    def answer(self, item: Input) -> Output:
        """Lines of the picture in tesseract's reading order; one box per word."""
        picture = decode_image(only_file(item, "image"))
        words = self._words(picture)
        lines = [" ".join(word.text for word in line) for _, line in groupby(words, key=lambda word: word.line)]
        found = [{"text": word.text, "confidence": word.confidence, "box": list(word.box)} for word in words]
        return Output(text="\n".join(lines), detail={"boxes": found}, usage={"pixels": picture.width * picture.height})

    def _words(self, picture: Image) -> list[Word]:
        # Pictures of a few pixels make tesseract exit with an error instead of an empty page.
        if min(picture.size) < 3:
            return []
        data = BytesIO()
        picture.save(data, "png", compress_level=1)
        options = ["-l", self.params.language, "--psm", str(self.params.psm), "tsv"]
        return words_of(self._run(["stdin", "stdout", *options], data.getvalue()).decode(errors="replace"))

    def _run(self, arguments: Sequence[str], data: bytes = b"") -> bytes:
        environment = {**os.environ, "OMP_THREAD_LIMIT": str(self.place.threads)}
        try:
            done = subprocess.run(  # noqa: S603 - a fixed command, no shell, arguments of our own
                [self._command, *arguments],
                input=data,
                capture_output=True,
                timeout=self.model.timeout,
                env=environment,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"tesseract took longer than {self.model.timeout:g} seconds.") from None
        if done.returncode != 0:
            said: Any = done.stderr.decode(errors="replace").strip().splitlines()
            raise RuntimeError(f"tesseract ended with code {done.returncode}: {said[-1] if said else 'no word'}")
        return done.stdout


def words_of(table: str) -> list[Word]:
    """The words of tesseract's TSV, in its reading order."""
    rows = csv.DictReader(table.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    return [
        Word(
            line=(row["block_num"], row["par_num"], row["line_num"]),
            text=row["text"],
            box=(int(row["left"]), int(row["top"]), int(row["width"]), int(row["height"])),
            confidence=round(float(row["conf"]) / 100, 4),
        )
        for row in rows
        if row["level"] == _WORD_LEVEL and (row["text"] or "").strip()
    ]
