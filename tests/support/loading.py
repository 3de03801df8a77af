"""Small datasets of samples, made without curation: what the loader and the views read."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from drawing import gradient
from helpers import blob

from refloom.schemas import masks, pictures
from refloom.schemas.dataset import Dataset
from refloom.schemas.unit import UnitKey, UnitWriter

Row = dict[str, Any]
SIZES = ((64, 48), (48, 64), (56, 56))


def picture(image_id: str, width: int, height: int, captions: Sequence[str] = (), **more: Any) -> Row:
    """An entry of `pictures`."""
    row: Row = {
        "image_id": image_id,
        "source": "test",
        "video_id": None,
        "frame_index": None,
        "time_s": None,
        "width": width,
        "height": height,
        "orientation": 1,
        "original_size": None,
        "captions": list(captions),
        "caption_from": "source" if captions else None,
        "license": "CC0",
    }
    return row | more


def appearance(number: int, mask: np.ndarray, **more: Any) -> Row:
    """An entry of `appearances` of a mask (h, w)."""
    encoded = masks.encode(mask)
    row: Row = {
        "picture": number,
        "object_id": f"o{number}",
        "box": masks.tight_boxes([encoded])[0].tolist(),
        "mask": encoded,
        "confidence": 0.9,
        "quality": 0.8,
        "phrase_cosine": None,
        "face": None,
    }
    return row | more


def subject(name: str, phrase: str | None, appearances: Sequence[Row], **more: Any) -> Row:
    """An entry of `subjects`."""
    row: Row = {
        "subject_id": name,
        "track_id": None,
        "kind": "object",
        "category": phrase,
        "phrase": phrase,
        "mentions": [],
        "appearances": list(appearances),
        "similarity": None,
    }
    return row | more


def sample_row(sample_id: str, kind: str, listed: Sequence[Row], subjects: Sequence[Row]) -> Row:
    """A row of `samples` without pictures."""
    return {
        "sample_id": sample_id,
        "kind": kind,
        "why": "a test",
        "scores": {"mip_s": None, "min_quality": 0.8},
        "pictures": list(listed),
        "subjects": list(subjects),
    }


def image_row(number: int) -> tuple[Row, list[bytes]]:
    """An image sample: its row, and its JPEG; sizes differ by number."""
    width, height = SIZES[number % len(SIZES)]
    seen = appearance(0, blob(width, height, number))
    row = sample_row(
        f"image/test/{number}",
        "image",
        [picture(f"test/{number}", width, height, [f"a cup, number {number}", f"cup {number}"])],
        [subject(f"test/{number}#1", "cup", [seen])],
    )
    return row, [pictures.encode_jpeg(gradient(width, height, number), 90)]


def write_samples(
    root: Path | str,
    units: int,
    rows: int,
    make: Callable[[int], tuple[Row, list[bytes]]] = image_row,
    first: int = 0,
    held_out: int = 0,
) -> str:
    """A dataset of image samples, each unit one row group, the last ones of the validation split; returns its url."""
    dataset = Dataset(str(root), create=True)
    for unit in range(units):
        with UnitWriter(dataset.folder, UnitKey("compose", f"u{unit}", "test")) as out:
            for number in range(unit * rows, (unit + 1) * rows):
                row, data = make(first + number)
                images = [{"bytes": one, "path": f"{number}.jpg"} for one in data]
                out.expect("image")
                split = "validation" if unit >= units - held_out else "train"
                out.add("samples", row | {"images": images}, below=split)
                out.keep("image")
    return str(root)
