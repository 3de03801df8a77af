"""Small pictures that tests draw for themselves."""

import io

import numpy as np
from PIL import Image


def gradient(width: int, height: int, seed: int = 0) -> np.ndarray:
    """(height, width, 3) uint8: a gradient, a bright square and a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    colour = rng.integers(60, 200, 3)
    base = colour + 50 * (x / width)[..., None] - 40 * (y / height)[..., None]
    base[height // 4 : height // 2, width // 4 : width // 2] += 50
    return np.clip(base + rng.normal(0, 4, (height, width, 3)), 0, 255).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """A Pillow image as the bytes of a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
