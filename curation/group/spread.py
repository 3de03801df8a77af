"""How different the members of a group are."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Spread:
    """How different the members of a group are; similarities are None without embeddings of all members."""

    min_similarity: float | None
    mean_similarity: float | None
    max_similarity: float | None
    area_ratio: float | None


def spread(embeddings: npt.NDArray[np.float32] | None, areas: npt.NDArray[np.float64]) -> Spread:
    """Spread of a group of N >= 2 members.

    Args:
        embeddings: (N, D) unit length, or None.
        areas: (N,) pixels, NaN where unknown.
    """
    known = areas[~np.isnan(areas)]
    ratio = float(known.min() / known.max()) if len(known) == len(areas) and known.max() > 0 else None
    if embeddings is None:
        return Spread(None, None, None, ratio)
    pairs = pair_similarities(embeddings)
    return Spread(float(pairs.min()), float(pairs.mean()), float(pairs.max()), ratio)


def sharpness_ratio(sharpness: npt.NDArray[np.float64]) -> float | None:
    """Least over greatest sharpness of N members, both log10(1 + variance); None where one is NaN or all are 0."""
    if not len(sharpness) or np.isnan(sharpness).any() or sharpness.max() <= 0:
        return None
    return float(sharpness.min() / sharpness.max())


def pair_similarities(embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Cosines of pairs (0,1), (0,2), ..., (1,2), ...: (N, D) unit length to (N (N - 1) / 2,)."""
    # einsum without BLAS: the same sum for a pair whatever other members there are
    cosines = np.einsum("id,jd->ij", embeddings, embeddings, optimize=False)
    pairs: npt.NDArray[np.float32] = np.clip(cosines[np.triu_indices(len(embeddings), k=1)], -1, 1)
    return pairs
