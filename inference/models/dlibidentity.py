"""dlib's identity of a face: three places by its 5-point predictor, an aligned crop of them, 128 numbers."""

from dataclasses import dataclass
from pathlib import Path

import dlib
import numpy as np

from refloom.inference.checkpoints import cause as filecause
from refloom.inference.models.entry import Entry
from refloom.inference.models.faces import Floats, Pixels, check_pixels
from refloom.schemas.errors import Refused

CHIP_PX = 150
"""Side of the aligned crop that the identity network was trained on."""
_CHIP_PADDING = 0.25
_POINTS = 5


@dataclass(frozen=True, slots=True, eq=False)
class DlibIdentity:
    """Landmarks and embedding of a face whose box is known.

    Attributes:
        predictor: dlib's 5-point `shape_predictor`; for faces that are upright within about 30 degrees.
        encoder: dlib's `face_recognition_model_v1`.
    """

    predictor: "dlib.shape_predictor"
    encoder: "dlib.face_recognition_model_v1"

    def of(self, pixels: Pixels, box: Floats) -> tuple[Floats, Floats]:
        """Places and embedding of one face.

        Args:
            pixels: (H, W, 3) uint8 sRGB, C-contiguous.
            box: (4,) xyxy in pixels, as dlib's own detector draws it, from brows to chin; it may leave the picture.

        Returns:
            Middles of left eye, right eye and nose as (3, 2) in pixels, left as the viewer sees it, and the embedding
            (128,), unit length.
        """
        left, top, right, bottom = (round(float(edge)) for edge in box)
        shape = self.predictor(pixels, dlib.rectangle(left, top, max(left, right - 1), max(top, bottom - 1)))
        chip = dlib.get_face_chip(pixels, shape, CHIP_PX, _CHIP_PADDING)
        raw = np.array(self.encoder.compute_face_descriptor(chip), np.float64)
        points = np.array([(part.x, part.y) for part in shape.parts()], np.float32) + 0.5  # of a pixel: its middle
        # dlib counts from the viewer's right, and knows two corners of each eye
        places = np.stack([points[2:4].mean(axis=0), points[0:2].mean(axis=0), points[4]])
        return places, (raw / max(float(np.linalg.norm(raw)), 1e-12)).astype(np.float32)


def load(entry: Entry, landmarks: Path, identity: Path) -> DlibIdentity:
    """From the files of weights of an entry.

    Raises:
        Refused: a file of weights is damaged.
    """
    try:
        predictor = dlib.shape_predictor(str(landmarks))
        encoder = dlib.face_recognition_model_v1(str(identity))
    except RuntimeError as error:
        files = {file.name: filecause.of_any(file) for file in (landmarks, identity)}
        told = next(
            (f"{name}: {cause}" for name, cause in files.items() if cause), f"{' or '.join(files)} is another's"
        )
        raise Refused(f"the weights of {entry.name} are damaged: {told}; reinstall them: {entry.get}") from error
    black = np.zeros((CHIP_PX, CHIP_PX, 3), np.uint8)
    points = predictor(black, dlib.rectangle(0, 0, CHIP_PX - 1, CHIP_PX - 1)).num_parts
    if points != _POINTS:
        raise Refused(
            f"the weights of {entry.name} are damaged: {landmarks.name} finds {points} points of a face, not "
            f"{_POINTS}; reinstall them: {entry.get}"
        )
    return DlibIdentity(predictor, encoder)


def dense(pixels: Pixels) -> Pixels:
    """The pixels with the strides dlib asks for; `np.ascontiguousarray` leaves odd ones on axes of length 1.

    Raises:
        ValueError: other than (H, W, 3) uint8, or no pixels.
    """
    check_pixels(pixels)
    return pixels if pixels.strides == (3 * pixels.shape[1], 3, 1) else pixels.copy(order="C")
