"""Variants: a fixed number of examples of each target, instead of a new one each time, so that they can be kept.

A variant is a function of the sample, the target and its number; which one a position of the stream gets is drawn, and
so are its drops, which no variant has of its own.
"""

import hashlib
from dataclasses import replace

from refloom.training.data.buckets import Size
from refloom.training.data.draws import Purpose, generator
from refloom.training.data.sample import Sample
from refloom.training.views.example import Example
from refloom.training.views.view import View


def variant(view: View, sample: Sample, target: int, size: Size, number: int) -> Example:
    """One of the variants of a target; its drops mean nothing.

    Args:
        view: that makes it.
        sample: one that the view accepts.
        target: one of its targets.
        size: (height, width) of the target, pixels.
        number: of the variant, from 0.

    Raises:
        Rejected: a picture or a mask is damaged.
    """
    digest = hashlib.sha256(str(sample.row["sample_id"]).encode("utf-8", "backslashreplace")).digest()
    about = int.from_bytes(digest[:8], "big") >> 1
    return view.example(sample, target, size, generator(0, about, Purpose.VARIANT, stream=target, part=number))


def chosen(seed: int, position: int, count: int) -> int:
    """Which of `count` variants the sample at a position of the stream is."""
    return int(generator(seed, position, Purpose.CHOICE).integers(count))


def placed(example: Example, view: View, seed: int, position: int) -> Example:
    """A variant at its position in the stream, with drops of its own."""
    drops = view.dropout.draw(generator(seed, position, Purpose.VIEW))
    return replace(example, drops=drops, position=position)
