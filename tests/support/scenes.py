"""Samples of plain coloured things on grey, so that a pixel says which subject it belongs to."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from loading import appearance, picture, sample_row, subject
from PIL import Image

from refloom.training.data.sample import Sample

Row = dict[str, Any]
COLOURS = {"cup": (220, 30, 30), "dog": (30, 30, 220), "car": (30, 160, 30)}
GREY = 128
Box = tuple[int, int, int, int]


def thing(size: tuple[int, int], box: Box) -> np.ndarray:
    """The mask (h, w) of a box without its upper left quarter, so that it tells left from right."""
    width, height = size
    mask = np.zeros((height, width), np.uint8)
    x0, y0, x1, y1 = box
    mask[y0:y1, x0:x1] = 1
    mask[y0 : (y0 + y1) // 2, x0 : (x0 + x1) // 2] = 0
    return mask


def scene(
    kind: str,
    frames: Sequence[dict[str, Box]],
    *,
    size: tuple[int, int] = (320, 240),
    captions: Sequence[str] = ("A cup and a dog and a car.",),
    caption_from: str = "source",
    similarity: float | None = None,
    faces: bool = False,
) -> Sample:
    """A sample of some pictures, each with some things at some places.

    Args:
        kind: image, video, group or cross.
        frames: of each picture, name of the thing to its box.
        size: (width, height) of all pictures.
        captions, caption_from: of all pictures.
        similarity: of every pair of appearances; None has none.
        faces: each thing is its own face.
    """
    width, height = size
    pixels = [np.full((height, width, 3), GREY, np.uint8) for _ in frames]
    subjects = []
    for name, colour in COLOURS.items():
        seen = []
        for number, boxes in enumerate(frames):
            if name in boxes:
                mask = thing(size, boxes[name])
                pixels[number][mask > 0] = colour
                box = [float(edge) for edge in boxes[name]]
                face = {"box": box, "landmarks": None, "det_score": 0.9} if faces else None
                seen.append(appearance(number, mask, box=box, face=face))
        if seen:
            pairs = len(seen) * (len(seen) - 1) // 2
            subjects.append(
                subject(
                    f"s/{name}",
                    name,
                    seen,
                    mentions=[
                        {"picture": one["picture"], "caption": at, "start": text.find(name), "end": 0}
                        for one in seen
                        for at, text in enumerate(captions)
                        if name in text
                    ],
                    similarity=None if similarity is None else [similarity] * pairs,
                )
            )
    listed = [
        picture(f"test/{number}", width, height, captions, caption_from=caption_from if captions else None)
        for number in range(len(frames))
    ]
    return Sample(sample_row(f"{kind}/test", kind, listed, subjects), [_png(one) for one in pixels])


def directed(sample: Sample, target: int = 0, *instructions: tuple[str, Sequence[int]]) -> Sample:
    """The same with a target and references, as cross samples and records have them.

    Args:
        sample: of `scene`.
        target: number of the picture.
        instructions: texts with the numbers of the pictures that they count.
    """
    row = sample.row
    roles = ["target" if number == target else "reference" for number in range(len(row["pictures"]))]
    listed = [one | {"role": role} for one, role in zip(row["pictures"], roles, strict=True)]
    texts = [{"text": text, "from": "source", "references": list(counted)} for text, counted in instructions]
    return Sample(row | {"target": target, "pictures": listed, "instructions": texts}, sample._images)


def shows(pixels: np.ndarray, name: str) -> np.ndarray:
    """Where a thing is seen, (h, w) boolean."""
    colours = np.array([*COLOURS.values(), (GREY,) * 3, (255,) * 3, (0,) * 3])
    nearest = np.abs(pixels[:, :, None, :].astype(int) - colours).sum(axis=-1).argmin(axis=-1)
    found: np.ndarray = nearest == list(COLOURS).index(name)
    return found


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union."""
    return float((one & other).sum() / max((one | other).sum(), 1))


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
