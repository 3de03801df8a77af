"""The images of an example as files: whole ones as they are where trainers read them right, crops as JPEG."""

import pyarrow as pa

from refloom.curation.annotate.decoded import shrink
from refloom.inference.models.crops import Pixels, cut_out, cut_square, square_face_box
from refloom.schemas import boxes, masks, pictures
from refloom.sharing.export.edit.settings import Reference, Row
from refloom.sharing.export.reading import PictureBytes, as_trainers_read

MAX_SIDE_PX = 1024
"""Longest side of a crop: trainers show references at 320 to 1024 pixels."""
_FACE_MARGIN = 0.25
"""Around a face, as a share of its longer side on every side."""

Image = tuple[bytes, str]
"""A file's bytes and its extension."""


class SampleImages:
    """The images of one sample, each decoded at most once.

    Args:
        row: of `samples`, with masks where cut-outs are asked for.
        images: (N,) binary, the bytes in the order of `pictures`.
        bare: takes metadata out of what is given whole.
    """

    def __init__(self, row: Row, images: pa.Array, bare: PictureBytes) -> None:
        self._row, self._images, self._bare = row, images, bare
        self._pixels: dict[int, Pixels] = {}

    def whole(self, picture: int) -> Image:
        """An image as it is.

        Raises:
            Rejected: it is damaged, or its metadata cannot be taken out.
        """
        return as_trainers_read(self._row["pictures"][picture]["image_id"], self._data(picture), self._bare)

    def of(self, reference: Reference) -> Image:
        """A reference; raises as `whole`, and Rejected `bad_mask`."""
        if reference.form == "image" or reference.appearance is None:
            return self.whole(reference.picture)
        pixels = self._decoded(reference.picture)
        cut = {"cutout": _cutout, "box": _box, "face": _face}[reference.form]
        return pictures.encode_jpeg(cut(pixels, reference.appearance)), ".jpg"

    def _data(self, picture: int) -> bytes:
        data: bytes = self._images[picture].as_py()
        return data

    def _decoded(self, picture: int) -> Pixels:
        if picture not in self._pixels:
            self._pixels[picture] = pictures.decode(self._data(picture))
        return self._pixels[picture]


def _cutout(pixels: Pixels, appearance: Row) -> Pixels:
    """The subject on a white square; its box where it has no mask."""
    box = boxes.pad(appearance["box"], pixels.shape[1], pixels.shape[0])
    inside = masks.decode_box(appearance["mask"], box) if appearance["mask"] is not None else None
    longer = max(box[2] - box[0], box[3] - box[1])
    return cut_out(pixels, inside, box, min(longer, MAX_SIDE_PX))


def _box(pixels: Pixels, appearance: Row) -> Pixels:
    x0, y0, x1, y1 = boxes.pad(appearance["box"], pixels.shape[1], pixels.shape[0])
    return shrink(pixels[y0:y1, x0:x1], MAX_SIDE_PX)


def _face(pixels: Pixels, appearance: Row) -> Pixels:
    """A square around the face, white where it leaves the image."""
    box = appearance["face"]["box"] if appearance["face"] is not None else appearance["box"]
    square = square_face_box(box, pixels.shape[1], pixels.shape[0], _FACE_MARGIN)
    return cut_square(pixels, square, MAX_SIDE_PX)
