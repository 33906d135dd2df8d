"""ddddocr: one small network for captchas. It reads a picture as a single line and knows no spaces."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.backends import BadInput, Input, OneByOne, Output
from worker.backends.engine import import_engine
from worker.media import decode_image, only_file
from worker.params import Params, checked_params

if TYPE_CHECKING:
    from db.registry import ModelEntry
    from worker.backends import Place

_HEIGHT = 64  # what the network reads; the width follows
_MAX_WIDTH = 64 * 100  # of a picture brought to that height


class DdddOCRParams(Params):
    """Which of the networks inside the package reads."""

    beta: bool = False  # the newer network


class DdddOCR(OneByOne):
    """The package `ddddocr`."""

    def __init__(self, model: ModelEntry, place: Place) -> None:
        super().__init__(model, place)
        self.params = checked_params(model, DdddOCRParams)
        self._engine: Any = None

    def load(self) -> None:
        """Build the engine and show it a tiny input. Raises `WeightsError` where something is not installed."""
        from PIL import Image

        package = import_engine(self.model, "ddddocr")
        self._engine = package.DdddOcr(show_ad=False, beta=self.params.beta)
        weights = Path(package.__file__).parent / ("common.onnx" if self.params.beta else "common_old.onnx")
        self._engine.ocr_engine.session = self._session(weights)
        self._engine.classification(Image.new("RGB", (160, _HEIGHT), "white"))

    def _session(self, weights: Path) -> Any:
        """A session with our number of threads; the package offers no way to set it, and takes every core."""
        runtime = import_engine(self.model, "onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = self.place.threads
        options.inter_op_num_threads = 1
        return runtime.InferenceSession(str(weights), options, providers=["CPUExecutionProvider"])

    def answer(self, item: Input) -> Output:
        """The picture as one line of text without spaces."""
        file = only_file(item, "image")
        picture = decode_image(file)
        width = max(1, round(picture.width * _HEIGHT / picture.height))
        if width > _MAX_WIDTH:
            raise BadInput(f"{file.name}: {picture.width} x {picture.height} pixels is too wide for one line of text.")
        usage = {"pixels": picture.width * picture.height}
        darkest, lightest = picture.convert("L").getextrema()
        if darkest == lightest:
            return Output(text="", usage=usage)  # the network would see a dash on an empty page
        read = self._engine.classification(picture.resize((width, _HEIGHT)), probability=True)
        return Output(
            text=str(read["text"]).strip(),
            detail={"confidence": round(float(read["confidence"]), 4)},
            usage=usage,
        )
