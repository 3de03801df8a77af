"""Similarities between places of a picture and places of a small square, and the pixels that they bring there."""

import cv2
import numpy as np
import numpy.typing as npt

from refloom.inference.models.faces import Pixels

Matrix = npt.NDArray[np.float64]
"""(2, 3): x, y, 1 of the picture to x, y of the square."""


def similarity(points: npt.NDArray[np.floating], targets: npt.NDArray[np.floating]) -> Matrix | None:
    """The rotation, scale and shift that bring points to targets with the least squared distance (Umeyama 1991).

    Args:
        points: (N, 2).
        targets: (N, 2), where they should lie.

    Returns:
        None where the points say nothing of it, because they lie on one another.
    """
    middle, goal = points.mean(axis=0, dtype=np.float64), targets.mean(axis=0, dtype=np.float64)
    here, there = points - middle, targets - goal
    spread = float((here**2).sum())
    if not np.isfinite(spread) or spread <= 0:
        return None
    # in the plane the best rotation and scale are one complex number
    along, across = float((here * there).sum()), float((here[:, 0] * there[:, 1] - here[:, 1] * there[:, 0]).sum())
    if along == across == 0:
        return None
    turn = np.array([[along, -across], [across, along]]) / spread
    return np.column_stack([turn, goal - turn @ middle])


def warp(pixels: Pixels, matrix: Matrix, side_px: int) -> Pixels:
    """The square that a similarity shows; black outside the picture.

    Only the part of the picture that is seen is touched, because OpenCV cannot warp pictures of more than 32,767 px. It
    is shrunk by averages first where it is much larger than the square, so that no detail flickers.

    Args:
        pixels: (H, W, 3) uint8.
        matrix: of the picture to the square.
        side_px: of the square.
    """
    height, width = pixels.shape[:2]
    back = np.linalg.inv(matrix[:, :2])
    corners = (np.array([[0, 0], [side_px, 0], [0, side_px], [side_px, side_px]]) - matrix[:, 2]) @ back.T
    x0, y0 = np.clip(np.floor(corners.min(axis=0)) - 1, 0, (width - 1, height - 1)).astype(int)
    x1, y1 = np.clip(np.ceil(corners.max(axis=0)) + 1, (x0 + 1, y0 + 1), (width, height)).astype(int)
    part = pixels[y0:y1, x0:x1]
    factor = max(1, int(np.sqrt(abs(np.linalg.det(back)))))
    size = (max(1, (x1 - x0) // factor), max(1, (y1 - y0) // factor))
    if factor > 1:
        part = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)
    shrunk = np.array([part.shape[1] / (x1 - x0), part.shape[0] / (y1 - y0)])
    turn = matrix[:, :2] / shrunk
    shift = matrix[:, :2] @ (x0, y0) + matrix[:, 2]
    return np.asarray(cv2.warpAffine(part, np.column_stack([turn, shift]), (side_px, side_px)), np.uint8)
