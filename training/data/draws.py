"""Random numbers of one sample of the stream: functions of (seed, position in the stream) and of nothing else.

Every purpose has numbers of its own, so that a view that draws more does not change the noise. Philox is counted, not
stepped: the numbers of sample 10^9 cost the same as those of sample 0.
"""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import numpy.typing as npt

MAX_SEED = 2**63 - 1


class Purpose(IntEnum):
    """What numbers are drawn for. The values are part of every run's order: never change one."""

    MIX = 0
    GROUPS = 1
    ROWS = 2
    TARGET = 3
    VIEW = 4
    NOISE = 5
    TIMESTEP = 6
    POSTERIOR = 7
    OFFSET = 8
    VARIANT = 9
    CHOICE = 10
    SUBJECT_NOISE = 11


def generator(seed: int, number: int, purpose: Purpose, *, stream: int = 0, part: int = 0) -> np.random.Generator:
    """The generator of one thing.

    Args:
        seed: of the run, 0 to `MAX_SEED`.
        number: of the thing: a position in the stream, an epoch, a block.
        purpose: what for.
        stream, part: further numbers that tell things apart: a dataset, a window.
    """
    return np.random.Generator(np.random.Philox(key=[seed, number], counter=[0, part, stream, int(purpose)]))


def noise(
    seed: int, positions: Sequence[int], shape: Sequence[int], purpose: Purpose = Purpose.NOISE
) -> npt.NDArray[np.float32]:
    """Standard normal noise of samples, the same on any device, rank and batch size.

    Args:
        seed: of the run.
        positions: of the B samples in the stream.
        shape: of one sample's noise.
        purpose: NOISE for the target, POSTERIOR for the latents' own, OFFSET for noise offset.

    Returns:
        (B, *shape).
    """
    out = np.empty((len(positions), *shape), np.float32)
    for row, position in zip(out, positions, strict=True):
        generator(seed, position, purpose).standard_normal(dtype=np.float32, out=row)
    return out


def timesteps(seed: int, positions: Sequence[int], low: int, high: int) -> npt.NDArray[np.int64]:
    """A uniform timestep in low..high-1 for each of the B samples, (B,)."""
    drawn = [int(generator(seed, position, Purpose.TIMESTEP).integers(low, high)) for position in positions]
    return np.array(drawn, np.int64)
