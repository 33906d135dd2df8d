"""`python -m examples.make_inputs [FOLDER]`: the files that the examples attach, in `examples/inputs` by default.

The pictures are rendered. The recording, a sentence of a novel, is test data of PocketSphinx's source package, which
is fetched once with its hash.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from benchmarks.demo.recordings import cache_folder, make_recordings

FOLDER = Path(__file__).resolve().parent / "inputs"
PICTURES = {
    "sign.png": "No parking after 6 pm",
    "shop-a.png": "Apples: 4 crowns",
    "shop-b.png": "Apples: 7 crowns",
}
SPEECH = "speech.wav"
_SEED = 6  # draws the longest of the recordings, a whole sentence


def make_inputs(folder: Path) -> None:
    """Write the pictures and the recording. Raises `WeightsError` where the recording cannot be fetched."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in PICTURES.items():
        picture = Image.new("RGB", (560, 80), "white")
        ImageDraw.Draw(picture).text((20, 18), text, fill="black", font=ImageFont.load_default(36))
        picture.save(folder / name)
    with tempfile.TemporaryDirectory() as place:
        (made,) = make_recordings(Path(place), seed=_SEED, count=1, cache=cache_folder())
        (folder / SPEECH).write_bytes(made.path.read_bytes())


if __name__ == "__main__":
    make_inputs(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
