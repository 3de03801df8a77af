"""Samples of every kind of plain coloured things, so that a pixel says what a trainer was given of which image."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from loading import write_samples
from PIL import Image
from scenes import scene

Row = dict[str, Any]
Frames = tuple[dict[str, tuple[int, int, int, int]], ...]

SIZE = (160, 120)
NEXT = {"cup": (10, 12, 58, 72), "dog": (90, 30, 150, 90)}
"""The second image of most samples."""
_TWO: Frames = (
    {"cup": (10, 10, 50, 60), "dog": (80, 20, 140, 80)},
    NEXT,
    {"cup": (30, 30, 70, 90), "dog": (90, 5, 150, 60)},
)
_OWN = "Put what image 1 shows beside image 2"


def made(kind: str, number: int) -> tuple[Row, list[bytes]]:
    """One sample.

    Args:
        kind: video (cup and dog on three frames), group (the dog on one image only), image, cross (the first image is
            the target), directed (of three images the second is made from the third and the first).
        number: tells it from others of its kind, by its id and by a pixel of each image.
    """
    frames = {"image": _TWO[:1], "group": (_TWO[0], {"cup": NEXT["cup"]}, {"cup": _TWO[2]["cup"]})}.get(kind, _TWO)
    drawn = scene("group" if kind == "directed" else kind, frames, size=SIZE, faces=True)
    row: Row = drawn.row | {"sample_id": f"{kind}/test/{number}", "target": None, "instructions": []}
    for at, picture in enumerate(row["pictures"]):
        picture |= {"image_id": f"{kind}/{number}/{at}", "role": None}
    if kind in ("cross", "directed"):
        row["target"] = 0 if kind == "cross" else 1
        for at, picture in enumerate(row["pictures"]):
            picture["role"] = "target" if at == row["target"] else "reference"
    if kind == "directed":
        row["instructions"] = [{"text": _OWN, "from": "source", "references": [2, 0]}]
    return row, [_signed(data, number, at) for at, data in enumerate(drawn._images)]


KINDS = ("video", "cross", "directed", "image", "group")


def every_kind(number: int) -> tuple[Row, list[bytes]]:
    """Samples of all kinds in turn."""
    return made(KINDS[number % len(KINDS)], number)


def write(root: Path, units: int = 2, rows: int = 5, held_out: int = 1, make: Any = every_kind) -> str:
    return write_samples(root, units, rows, make, held_out=held_out)


def _signed(data: bytes, number: int, at: int) -> bytes:
    """The picture as a PNG whose corner says which it is."""
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).copy()
    pixels[-1, 0] = (number, at, 0)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
