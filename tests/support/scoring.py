"""What tests of quality share: masks drawn by hand, objects of them, grey pictures, and their components."""

from dataclasses import replace

import numpy as np

from refloom.curation.annotate import quality
from refloom.curation.annotate.decoded import Decoded
from refloom.curation.annotate.settings import Filter, Quality
from refloom.curation.objects import Objects
from refloom.schemas import masks

WIDTH, HEIGHT = 100, 80
CONFIG = Quality()
OPEN = Filter(min_area_px=0, min_area_share=0, max_area_share=1, min_short_side_px=0, max_aspect=1e6, min_box_fill=0)


def drawn(*parts: tuple[int, int, int, int], without: tuple[int, int, int, int] | None = None) -> np.ndarray:
    """(HEIGHT, WIDTH) pixels with boxes filled, and one cut out again."""
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    for x0, y0, x1, y1 in parts:
        pixels[y0:y1, x0:x1] = 1
    if without is not None:
        x0, y0, x1, y1 = without
        pixels[y0:y1, x0:x1] = 0
    return pixels


def objects_of(shapes: list[np.ndarray], kinds: list[str] | None = None, confidence: float = np.nan) -> Objects:
    """Objects with these masks and their tight boxes."""
    found = [masks.encode(shape) for shape in shapes]
    count = len(found)
    return Objects(
        ids=[f"a#{index}" for index in range(count)],
        kinds=kinds or ["object"] * count,
        categories=[None] * count,
        phrases=[None] * count,
        boxes=masks.tight_boxes(found),
        areas=masks.areas(found).astype(np.float64),
        confidence=np.full(count, confidence),
        masks=list(found),
    )


def without_masks(objects: Objects) -> Objects:
    """The same boxes without masks."""
    count = len(objects)
    return replace(objects, masks=[None] * count, areas=np.full(count, np.nan))


def grey(pixels: np.ndarray) -> Decoded:
    """A grey picture."""
    return Decoded(np.repeat(pixels.astype(np.uint8)[..., None], 3, axis=2))


def noise(seed: int = 0, width: int = WIDTH, height: int = HEIGHT) -> Decoded:
    return grey(np.random.default_rng(seed).integers(20, 230, (height, width)))


FLAT = grey(np.full((HEIGHT, WIDTH), 128))


def score(objects: Objects, picture: Decoded = FLAT, config: Quality = CONFIG) -> dict[str, np.ndarray]:
    return quality.score(objects, picture, config, OPEN).components


def one(shape: np.ndarray, picture: Decoded = FLAT, config: Quality = CONFIG) -> dict[str, float]:
    return {name: float(values[0]) for name, values in score(objects_of([shape]), picture, config).items()}
