"""What embedders of images and of texts give, and what those with fixed batches share."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from refloom.inference.models.batching import MicroBatches

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


class ImageEmbedder(Protocol):
    """Turns square crops into unit vectors.

    On one kind of machine the vector of a crop has the same bytes whatever its neighbours, its place in the batch and
    the size of the batch.
    """

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    @property
    def input_px(self) -> int:
        """Side of the crops."""
        ...

    @property
    def batch_size(self) -> int:
        """Crops in a forward pass while memory lasts; other numbers of crops are filled up to a multiple of it."""
        ...

    def embed(self, batch: Pixels) -> Floats:
        """Embed crops.

        Args:
            batch: (N, input_px, input_px, 3) uint8 sRGB, N from 0.

        Returns:
            (N, dim) unit length.

        Raises:
            ValueError: another shape or type.
        """
        ...


class ImageClassifier(ImageEmbedder, Protocol):
    """An image embedder that also says what it takes a crop for, in classes of its own; with the same promise."""

    def describe(self, batch: Pixels) -> tuple[Floats, Floats]:
        """Vectors of crops as `embed` gives them, and probabilities of its classes, by one look at each crop.

        Args:
            batch: as for `embed`.

        Returns:
            (N, dim) unit length, and (N, C) that add up to 1.

        Raises:
            ValueError: another shape or type.
        """
        ...


class TextEmbedder(Protocol):
    """Turns texts into unit vectors in the space of an image embedder, with the same promise as there."""

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    @property
    def image_model(self) -> str:
        """Name of the registry's image embedder that shares the space."""
        ...

    @property
    def logit_scale(self) -> float:
        """What training multiplied cosines by before their softmax; about 100 for CLIP."""
        ...

    def embed(self, texts: Sequence[str]) -> Floats:
        """Embed texts; what does not fit into the model's context is cut off.

        Args:
            texts: N of them, from 0.

        Returns:
            (N, dim) unit length.
        """
        ...

    def truncated(self, texts: Sequence[str]) -> list[bool]:
        """For each of the texts, whether `embed` cuts off its end."""
        ...


def check_crops(batch: Pixels, side: int) -> None:
    """Raise ValueError unless a batch is (N, side, side, 3) uint8."""
    if batch.shape[1:] != (side, side, 3) or batch.dtype != np.uint8:
        raise ValueError(f"a batch is (N, {side}, {side}, 3) uint8, not {batch.shape} {batch.dtype}")


def fixed_batches(
    rows: npt.NDArray[Any], width: int, batches: "MicroBatches", run: Callable[[npt.NDArray[Any]], Floats]
) -> Floats:
    """What a model gives for rows that go through it in batches of one size, because its sums depend on the shape.

    Args:
        rows: (N, ...), N from 0.
        width: numbers that the model gives for a row.
        batches: says the size; it changes only after a batch ran out of memory.
        run: (size, ...) -> (size, width); a last batch is filled up with zeros.

    Returns:
        (N, width).
    """

    def padded(part: npt.NDArray[Any]) -> list[Floats]:
        full = np.zeros((batches.size, *part.shape[1:]), part.dtype)
        full[: len(part)] = part
        return list(run(full)[: len(part)])

    return np.stack(batches.run(padded, rows)) if len(rows) else np.zeros((0, width), np.float32)


def in_fixed_batches(
    rows: npt.NDArray[Any], dim: int, batches: "MicroBatches", run: Callable[[npt.NDArray[Any]], Floats]
) -> Floats:
    """Unit vectors of rows: `fixed_batches` brought to length 1; a vector of zeros stays one.

    Returns:
        (N, dim).
    """
    return unit_vectors(fixed_batches(rows, dim, batches, run))


def unit_vectors(rows: Floats) -> Floats:
    """Rows (N, D) brought to length 1; a row of zeros stays one."""
    features = rows.astype(np.float64)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    unit: Floats = (features / np.maximum(lengths, 1e-12)).astype(np.float32)
    return unit
