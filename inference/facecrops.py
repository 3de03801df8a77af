"""Faces out of reference pictures, found by the registry's face model."""

from functools import cache

from refloom.inference.adapters.reading import Pixels
from refloom.inference.adapters.reference import Reference
from refloom.inference.models.crops import cut_square, square_face_box
from refloom.inference.models.faces import FaceModel
from refloom.inference.models.registry import by_name, resolve
from refloom.schemas.errors import Refused

_EXPAND = 0.25
"""Margin as a share of the face: the middle of what EasyRef's training draws (spec A3.2)."""
_NO_FINDER = "crop='face' needs a face model, and none is there: `refloom models` says how to get one"


def cropped(reference: Reference, model: str = "auto") -> Reference:
    """The reference with the best face of each of its pictures, if it asks for faces; else itself.

    Args:
        reference: any.
        model: name of the face model, or `auto` for the best one that is present.

    Raises:
        Refused: a picture has no face, or there is no face model.
    """
    if reference.crop is None:
        return reference
    finder = _finder(model)
    images = tuple(_face(image, finder, reference.phrase, at) for at, image in enumerate(reference.images))
    return Reference(images, reference.phrase, reference.boxes, reference.masks, reference.scale)


def check_finder(model: str, *, needed: bool = False) -> None:
    """Refuse a face model that is not known; and, where one is needed, that is not there.

    Raises:
        Refused: with the nearest name, or with how to get it.
    """
    if model not in ("auto", "none"):
        by_name("face", model)
    if needed and resolve("face", model) is None:
        raise Refused(_NO_FINDER)


def _face(pixels: Pixels, finder: FaceModel, phrase: str | None, at: int) -> Pixels:
    found = finder.find(pixels, max_faces=1)
    if not found:
        name = f"the reference {phrase!r}" if phrase else "a reference"
        raise Refused(f"no face was found on picture {at + 1} of {name}: leave crop out, or give another picture")
    height, width = pixels.shape[:2]
    return cut_square(pixels, square_face_box(found[0].box, width, height, _EXPAND))


@cache
def _finder(model: str) -> FaceModel:
    entry = resolve("face", model)
    if entry is None:
        raise Refused(_NO_FINDER)
    finder: FaceModel = entry.load()
    return finder
