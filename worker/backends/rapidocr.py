"""RapidOCR: text detection and recognition by PaddleOCR's networks on onnxruntime, in two generations.

`rapidocr` 3 carries PP-OCRv6, `rapidocr-onnxruntime` 1 PP-OCRv4; they err differently, which is why both are here.

Both packages enlarge a picture until its shorter side has 736 pixels, so a line of text becomes 12 times as
large, takes seconds, and is read worse, because its strokes no longer look like those the detector learnt. Our
defaults leave a line about as large as it is.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from worker.backends import BadInput, Input, OneByOne, Output
from worker.backends.engine import import_engine
from worker.media import decode_image, only_file
from worker.params import Params, checked_params

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from db.registry import ModelEntry
    from worker.backends import Place

Point = list[float]
_MAX_RATIO = 200  # long to short side; both packages fail on more, a line of 100 words has 70


class RapidOCRParams(Params):
    """Sizes are pixels, scores 0..1."""

    limit_side_len: int = Field(default=96, ge=32, le=4096)  # the detector's picture; multiples of 32 are exact
    limit_type: Literal["min", "max"] = "min"  # enlarge to at least, or reduce to at most, that side
    use_cls: bool = False  # turn lines that stand on their head; turns some noisy ones too
    text_score: float = Field(default=0.5, ge=0, le=1)  # lines read with less confidence are dropped
    box_thresh: float = Field(default=0.5, ge=0, le=1)  # boxes found with less confidence are dropped
    unclip_ratio: float = Field(default=1.6, gt=0, le=5)  # how far a box reaches beyond the strokes found
    max_side_len: int = Field(default=2000, ge=32, le=8192)  # larger pictures are reduced first


@dataclass(frozen=True, kw_only=True)
class Box:
    """Some words in a row, where they stand (four corners, clockwise from top left), and how sure the engine is."""

    text: str
    score: float
    corners: list[Point]

    @property
    def middle(self) -> float:
        """Height of its centre in the picture."""
        return sum(y for _, y in self.corners) / 4

    @property
    def height(self) -> float:
        """Of its left edge: the letters' size, however far a turned line reaches."""
        (x0, y0), (x1, y1) = self.corners[0], self.corners[3]
        return float(((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5)


def in_reading_order(boxes: Iterable[Box]) -> list[list[Box]]:
    """Rows from top to bottom, each from left to right."""
    rows: list[list[Box]] = []
    for box in sorted(boxes, key=lambda box: box.middle):
        if rows and box.middle - rows[-1][0].middle < 0.5 * min(box.height, rows[-1][0].height):
            rows[-1].append(box)
        else:
            rows.append([box])
    return [sorted(row, key=lambda box: box.corners[0][0]) for row in rows]


class _RapidOCR(OneByOne):
    """What both generations share; `_create` and `_read` differ."""

    package: str

    def __init__(self, model: ModelEntry, place: Place) -> None:
        super().__init__(model, place)
        self.params = checked_params(model, RapidOCRParams)
        self._engine: Any = None

    def load(self) -> None:
        """Build the engine and show it a tiny input. Raises `WeightsError` where something is not installed."""
        import numpy as np
        from PIL import Image, ImageDraw

        module = import_engine(self.model, self.package)
        logging.getLogger("RapidOCR").setLevel(logging.ERROR)
        self._engine = self._create(module)
        page = Image.new("RGB", (160, 48), "white")
        ImageDraw.Draw(page).text((20, 12), "warm 123", fill="black", font_size=24)
        self._read(np.asarray(page)[:, :, ::-1])

    def answer(self, item: Input) -> Output:
        """Lines of the picture, top to bottom; boxes with corners in pixels."""
        import numpy as np

        file = only_file(item, "image")
        picture = decode_image(file)
        if max(picture.size) > _MAX_RATIO * min(picture.size):
            raise BadInput(f"{file.name}: {picture.width} x {picture.height} pixels is too thin to hold text.")
        # OpenCV's networks read blue first.
        boxes = self._read(np.ascontiguousarray(np.asarray(picture)[:, :, ::-1]))
        rows = in_reading_order(boxes)
        lines = [" ".join(box.text for box in row) for row in rows]
        found = [
            {"text": box.text, "confidence": round(box.score, 4), "box": box.corners} for row in rows for box in row
        ]
        return Output(text="\n".join(lines), detail={"boxes": found}, usage={"pixels": picture.width * picture.height})

    @abstractmethod
    def _create(self, module: Any) -> Any:
        """The engine of this generation, with the registry's parameters."""

    @abstractmethod
    def _read(self, pixels: Any) -> list[Box]:
        """What the engine finds in a picture: height x width x 3, blue first, 8 bits."""


def _box(text: str, score: Any, corners: Sequence[Sequence[Any]]) -> Box:
    return Box(text=text, score=float(score), corners=[[round(float(x), 1), round(float(y), 1)] for x, y in corners])


class RapidOCR(_RapidOCR):
    """The package `rapidocr` 3: PP-OCRv6."""

    package = "rapidocr"

    def _create(self, module: Any) -> Any:
        params = self.params
        return module.RapidOCR(
            params={
                "Global.log_level": "error",
                "Global.use_cls": params.use_cls,
                "Global.text_score": params.text_score,
                "Global.max_side_len": params.max_side_len,
                "Det.limit_side_len": params.limit_side_len,
                "Det.limit_type": params.limit_type,
                "Det.box_thresh": params.box_thresh,
                "Det.unclip_ratio": params.unclip_ratio,
                "EngineConfig.onnxruntime.intra_op_num_threads": self.place.threads,
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            }
        )

    def _read(self, pixels: Any) -> list[Box]:
        found = self._engine(pixels)
        if getattr(found, "txts", None) is None or found.boxes is None:
            return []
        return [_box(*parts) for parts in zip(found.txts, found.scores, found.boxes, strict=True)]


class RapidOCROnnxRuntime(_RapidOCR):
    """The package `rapidocr-onnxruntime` 1: PP-OCRv4."""

    package = "rapidocr_onnxruntime"

    def _create(self, module: Any) -> Any:
        params = self.params
        return module.RapidOCR(
            use_cls=params.use_cls,
            text_score=params.text_score,
            max_side_len=params.max_side_len,
            det_limit_side_len=params.limit_side_len,
            det_limit_type=params.limit_type,
            det_box_thresh=params.box_thresh,
            det_unclip_ratio=params.unclip_ratio,
            intra_op_num_threads=self.place.threads,
            inter_op_num_threads=1,
        )

    def _read(self, pixels: Any) -> list[Box]:
        found, _ = self._engine(pixels)
        return [_box(text, score, corners) for corners, text, score in found or ()]
