"""How far a face's identity embedding can be trusted: 0 to 1, by what the detector and the picture say of the face.

A face that looks down, is turned away, small, blurred or hardly seen resembles many; `identities` asks more of it.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_EYES_PX = (10.0, 20.0)
"""Distance of the eyes, pixels; a face box is about 2.2 times as wide."""
_SHARPNESS = (1.0, 1.8)
"""log10(1 + variance of the Laplacian) at 128 px: portraits have 2.1 and more, faces blurred by motion 1.5 and less."""
_ASIDE = (0.4, 0.2)
"""Distance of the nose from the middle of the eyes along their line, over the distance of the eyes: 0 is frontal."""
_DOWN = (1.0, 0.9)
"""Distance of the nose from the line of the eyes, over the distance of the eyes: frontal faces have 0.55 to 0.86."""
_UP = (0.25, 0.45)
_TURNED = (55.0, 30.0)
"""Degrees of pitch or yaw, where the model gives them."""


def face_quality(
    det_scores: Floats,
    landmarks: Sequence[Sequence[Sequence[float]] | None],
    poses: Sequence[Sequence[float] | None],
    sharpness: Floats,
    score_bounds: tuple[float, float] | None,
) -> Floats:
    """The weakest of score, frontality, size and sharpness; what is not known counts for nothing.

    Args:
        det_scores: (N,) of the detector, NaN where there is none.
        landmarks: N times five points (x, y) in pixels: eyes, nose, corners of the mouth, NaN where one is missing.
        poses: N times pitch, yaw and roll in degrees, or None.
        sharpness: (N,) variance of the Laplacian, NaN where it is not known.
        score_bounds: scores from which a face counts for nothing, and fully; None asks no score.

    Returns:
        (N,) 0 to 1.
    """
    eyes, aside, down = _geometry(landmarks)
    angles = np.array([max(abs(pose[0]), abs(pose[1])) if pose is not None else np.nan for pose in poses], np.float64)
    scores = [
        np.ones(len(det_scores)) if score_bounds is None else _ramp(det_scores, score_bounds),
        _ramp(eyes, _EYES_PX),
        _ramp(np.log10(1 + sharpness), _SHARPNESS),
        _ramp(aside, _ASIDE),
        _ramp(down, _DOWN),
        _ramp(down, _UP),
        _ramp(angles, _TURNED),
    ]
    weakest: Floats = np.min(scores, axis=0)
    return weakest


def _geometry(landmarks: Sequence[Sequence[Sequence[float]] | None]) -> tuple[Floats, Floats, Floats]:
    """Distance of the eyes, pixels, and where the nose stands beside and below their middle, in that distance."""
    missing = np.full((5, 2), np.nan)
    points = np.array([missing if one is None else one for one in landmarks], np.float64).reshape(-1, 5, 2)
    across = points[:, 1] - points[:, 0]
    apart = np.linalg.norm(across, axis=1)
    safe = np.where(apart > 0, apart, np.nan)
    along = across / safe[:, None]
    nose = points[:, 2] - (points[:, 0] + points[:, 1]) / 2
    beside = np.abs((nose * along).sum(axis=1)) / safe
    below = (along[:, 0] * nose[:, 1] - along[:, 1] * nose[:, 0]) / safe
    return apart, beside, below


def _ramp(values: Floats, bounds: tuple[float, float]) -> Floats:
    """0 at the first bound, 1 at the second and beyond, which may be the smaller one; 1 where nothing is known."""
    low, high = bounds
    score: Floats = np.nan_to_num(np.clip((values - low) / (high - low), 0, 1), nan=1.0)
    return score
