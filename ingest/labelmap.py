"""Label maps: PNGs whose pixels say which object they belong to, as VOS sets and MIP-Adapter's have them."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from refloom.ingest.files import PictureFile
from refloom.ingest.source import Annotation, Picture
from refloom.schemas import headers, ids
from refloom.schemas.errors import Failed, Rejected

MAX_TRACED_PIXELS = 2_000_000_000
"""Of a label map times the objects in it: twenty in the largest picture, a thousand in one of two megapixels."""
_LABEL_MODES = frozenset({"1", "L", "P", "I", "I;16", "I;16B"})


def label_map(data: bytes) -> npt.NDArray[Any]:
    """Decode a PNG whose pixels are labels: palette indices or grey values as they are stored, never colours.

    Args:
        data: the file's bytes.

    Returns:
        (h, w) uint8 or uint16.

    Raises:
        Rejected: `bad_mask`.
    """
    try:
        header = headers.read(data)
    except Rejected as problem:
        raise Rejected("bad_mask", f"the PNG: {problem}") from problem
    if header.format != "PNG":
        raise Rejected("bad_mask", f"a {header.format}, not a PNG")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sizes that `headers.read` has let pass
        try:
            with headers.open_by_pillow(data) as image:
                if image.mode not in _LABEL_MODES:
                    raise Rejected("bad_mask", f"the PNG has {image.mode} pixels, not palette or grey")
                image.load()
                labels = np.asarray(image)
        except headers.PILLOW_ERRORS as error:
            raise Rejected("bad_mask", f"the PNG does not decode ({type(error).__name__})") from error
    # Pillow spreads 2 and 4 bits of grey over 0..255
    bits, is_grey = data[24], data[25] == 0
    return labels.astype(np.uint8) // (255 // (2**bits - 1)) if is_grey and bits in (2, 4) else _unsigned(labels)


def _unsigned(labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return labels.astype(np.uint8 if labels.dtype.itemsize == 1 else np.uint16)


def check_tracing(objects: int, labels: npt.NDArray[Any]) -> None:
    """Refuse to look through a label map for more objects than any picture has.

    Raises:
        Rejected: `too_complex`.
    """
    if objects * labels.size > MAX_TRACED_PIXELS:
        raise Rejected("too_complex", f"{objects:,} objects to be traced in {labels.shape[1]}x{labels.shape[0]}")


def with_labels(picture: Picture, png: PictureFile, trace: Callable[[npt.NDArray[Any]], None]) -> Callable[[], bytes]:
    """Loading a picture that has a label map: the map is decoded, and its objects traced, when the bytes are wanted.

    By then the picture is noted as the item under work, so that a PNG that kills or stalls the process costs this
    picture. A PNG that is missing or damaged costs the annotations only.

    Args:
        picture: gets the size of the map as its declared size.
        png: the label map.
        trace: fills the picture's annotations from (h, w) labels.
    """
    load = picture.load

    def load_both() -> bytes:
        try:
            labels = label_map(png.load())
            picture.declared_size = (labels.shape[1], labels.shape[0])
            trace(labels)
        except (Rejected, Failed) as problem:
            if not picture.annotations:  # nobody knows what the map holds, but that it is lost goes on record
                picture.annotations = [Annotation(ids.object_id(picture.image_id, "mask"))]
            for annotation in picture.annotations:
                annotation.problem = annotation.problem or problem
        return load()

    return load_both
