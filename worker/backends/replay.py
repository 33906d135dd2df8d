"""A model whose outputs were stored by somebody else: what it said to each input is read from a file.

So published outputs of large models go through the real queue, judges included, on a machine that runs none of them.
Each line of the file is one input: `{"id": ..., "instruction": ..., "candidates": [{"model": ..., "output": ...}]}`.
`question`, `source_text` or `dialogue` may stand instead of `instruction`; an input is found by that text or by its id.

    [models.vicuna-7b]
    capability = "text-generation"
    backend = "replay"
    params = { file = "multi_alpacaeval2_mid6.jsonl", model = "vicuna-7b" }
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from db.errors import WeightsError
from db.settings import load_settings
from worker.backends import BadInput, Input, OneByOne, Output
from worker.params import Params, checked_params

if TYPE_CHECKING:
    from collections.abc import Iterator

    from db.registry import ModelEntry
    from worker.backends import Place

#: Fields that may hold the text that the model was given.
TEXTS = ("instruction", "question", "source_text", "dialogue")
SHOWN = 60  # characters of an input in an error


class ReplayParams(Params):
    """`file`: a JSONL file; a relative path is looked for in BAKEOFF_EVAL_DATA. `model`: its name in the file."""

    file: Path
    model: str


class Replay(OneByOne):
    """Says what the file says that the model said."""

    def __init__(self, model: ModelEntry, place: Place) -> None:
        super().__init__(model, place)
        self._params = checked_params(model, ReplayParams)
        self._said: dict[str, str] = {}
        self._unclear: set[str] = set()

    def load(self) -> None:
        """Read the file. Raises `WeightsError` where it is missing, not JSONL, or does not know the model."""
        path = find_data(self._params.file, f"models.{self.model.name}.params.file")
        models = set()
        for row in read_rows(path):
            for candidate in row.get("candidates", ()):
                models.add(candidate["model"])
                if candidate["model"] == self._params.model:
                    self._keep(row, str(candidate["output"]))
        if not self._said:
            known = ", ".join(sorted(models)) or "none"
            raise WeightsError(
                f"models.{self.model.name}.params.model = {self._params.model!r} is not in {path}; there are: {known}."
            )

    def _keep(self, row: dict[str, Any], output: str) -> None:
        for key in {text.strip() for field in ("id", *TEXTS) if (text := str(row.get(field) or ""))}:
            if self._said.setdefault(key, output) != output:
                self._unclear.add(key)

    def answer(self, item: Input) -> Output:
        """What the model said to this input. Raises `BadInput` for one that the file does not hold."""
        key = item.text.strip()
        shown = key if len(key) <= SHOWN else f"{key[:SHOWN]}…"
        if key in self._unclear:
            raise BadInput(f"{self._params.file.name} holds several rows with the text {shown!r}: ask by their id.")
        if key not in self._said:
            raise BadInput(f"{self._params.file.name} holds no output of {self._params.model} for {shown!r}.")
        said = self._said[key]
        return Output(text=said, usage={"output_chars": len(said)})


def find_data(file: Path, named: str) -> Path:
    """Where an evaluation file is: as given, else in BAKEOFF_EVAL_DATA. Raises `WeightsError`."""
    folder = load_settings().eval_data
    for path in (file, *([] if folder is None else [folder / file])):
        if path.is_file():
            return path
    looked = (
        "BAKEOFF_EVAL_DATA, where it may lie, is not set" if folder is None else f"not in BAKEOFF_EVAL_DATA ({folder})"
    )
    raise WeightsError(f"{named} = {str(file)!r} is no file here, and {looked}.")


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file. Raises `WeightsError`, which names the line that is none."""
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise WeightsError(f"{path}, line {number}: not JSON ({error}).") from None
            if not isinstance(row, dict):
                raise WeightsError(f"{path}, line {number}: not an object.")
            yield row
