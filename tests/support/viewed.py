"""Samples that every recipe's view accepts one of, and the examples that it makes of them, as the loader makes them."""

from typing import Any

from scenes import scene

from refloom.training.data.draws import Purpose, generator
from refloom.training.data.sample import Sample
from refloom.training.recipes import book
from refloom.training.views.example import Example
from refloom.training.views.view import View

SIZE = (192, 256)
FRAMES = (
    {"cup": (20, 60, 100, 160), "dog": (150, 50, 260, 150)},
    {"cup": (40, 80, 120, 180), "dog": (180, 90, 290, 200)},
    {"cup": (100, 20, 200, 130), "dog": (20, 135, 98, 235)},
)
RECIPES = {name: book.load(name).view for name in book.names() if not name.startswith(("debug/", "tiny/"))}
VIDEO = scene("video", FRAMES)
IMAGE = scene("image", FRAMES[:1])


def made(view: View, sample: Sample, number: int = 0, size: tuple[int, int] = SIZE) -> tuple[int, Example]:
    """An example as the loader makes it: its target and itself."""
    targets = view.targets(sample.row)
    assert isinstance(targets, list), targets
    target = targets[number % len(targets)]
    fresh = Sample(sample.row, sample._images)
    return target, view.example(fresh, target, size, generator(0, number, Purpose.VIEW))


def content(example: Example) -> tuple[Any, ...]:
    return (
        example.target.tobytes(),
        example.caption,
        example.drops,
        example.sizes,
        tuple((one.phrase, one.boxes, tuple(image.tobytes() for image in one.images)) for one in example.references),
        tuple(None if mask is None else mask.tobytes() for mask in example.masks),
    )
