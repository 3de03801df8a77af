"""Samples whose larger pictures are re-encoded, with everything on them that is measured in pixels."""

import posixpath
from typing import Any

from refloom.curation.annotate.decoded import shrink
from refloom.schemas import masks, pictures


def shrunk(row: dict[str, Any], max_side_px: int, jpeg_quality: int) -> dict[str, Any]:
    """A sample whose larger pictures are re-encoded upright, with boxes and masks scaled.

    Args:
        row: of `samples`; its subjects are changed in place.
        max_side_px: longer side of the result.
        jpeg_quality: of the result.
    """
    scales = []
    for picture, image in zip(row["pictures"], row["images"], strict=True):
        width, height = picture["width"], picture["height"]
        if max(width, height) <= max_side_px:
            scales.append((1.0, 1.0))
            continue
        pixels = shrink(pictures.decode(image["bytes"]), max_side_px)
        image["bytes"] = pictures.encode_jpeg(pixels, jpeg_quality)
        image["path"] = posixpath.splitext(image["path"])[0] + ".jpg"
        picture |= {"width": pixels.shape[1], "height": pixels.shape[0], "orientation": 1}
        scales.append((pixels.shape[1] / width, pixels.shape[0] / height))
    for subject in row["subjects"]:
        for appearance in subject["appearances"]:
            picture, scale = row["pictures"][appearance["picture"]], scales[appearance["picture"]]
            if scale == (1.0, 1.0):
                continue
            appearance["box"] = _scaled(appearance["box"], scale)
            if appearance["mask"] is not None:
                appearance["mask"] = masks.resize(appearance["mask"], picture["height"], picture["width"])
            if appearance["face"] is not None:
                face = appearance["face"]
                points = [[x * scale[0], y * scale[1]] for x, y in face["landmarks"]]
                appearance["face"] = face | {"box": _scaled(face["box"], scale), "landmarks": points}
    return row


def _scaled(box: list[float], scale: tuple[float, float]) -> list[float]:
    return [edge * scale[index % 2] for index, edge in enumerate(box)]
