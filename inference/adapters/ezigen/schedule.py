"""How EZIGen divides a schedule between text and subjects, and when its loops end. Pure functions, see spec A.4.

`faithful` is the published code: the share of the steps is computed in floats, the noise before a loop is that of
another step than the loop's first, and backgrounds are two steps behind and never the picture itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from refloom.inference.adapters.windows import ShareWindow
from refloom.schemas.errors import Refused

LEAST_LOOPS = 3
MOST_LOOPS = 9


@dataclass(frozen=True, slots=True)
class Split:
    """Which steps are the subjects'.

    Attributes:
        start: first step of the whole schedule in which the adapter acts.
        timesteps: of a loop, all with the adapter.
        noise: timestep whose noise a loop starts with.
    """

    start: int
    timesteps: tuple[int, ...]
    noise: int


@dataclass(frozen=True, slots=True)
class Trajectory:
    """Which latents of an inversion are used.

    Attributes:
        stop: number of steps of the inversion; a loop starts with x_stop.
        background: k of the x_k that lies behind the mask after each step of a loop.
    """

    stop: int
    background: tuple[int, ...]


def split(
    timesteps: Sequence[int], split_ratio: float, *, train_timesteps: int = 1000, faithful: bool = False
) -> Split:
    """Divide a schedule; the subjects have at least one step.

    Args:
        timesteps: of the whole schedule, descending.
        split_ratio: share of it that is the subjects', in (0, 1].
        train_timesteps: of the base.
        faithful: as the published code does it, see above.

    Raises:
        Refused: the share is out of range.
    """
    steps = len(timesteps)
    if not 0 < split_ratio <= 1:
        raise Refused(f"split_ratio is a share of the steps, above 0 and at most 1, not {split_ratio}")
    start = ShareWindow.last(split_ratio).resolve(steps).start
    if not faithful:
        return Split(start, tuple(timesteps[start:]), timesteps[start])
    noise = int(split_ratio * train_timesteps)
    if noise >= train_timesteps:
        raise Refused("a split_ratio of 1 has no noise level in the published code: use less, or faithful = False")
    start = next(step for step in range(steps) if (1 - split_ratio) * steps < step + 1)
    return Split(start, tuple(timesteps[int(steps - split_ratio * steps) :]), noise)


def trajectory(
    part: Split, inverse_timesteps: Sequence[int], split_ratio: float, *, faithful: bool = False
) -> Trajectory:
    """Match an inversion to the steps of a loop by noise level.

    Args:
        part: the loop's.
        inverse_timesteps: of the whole inversion, ascending from 0; x_k is at the k-th.
        split_ratio: see `split`.
        faithful: as the published code does it, see above.
    """
    steps = len(inverse_timesteps)
    if faithful:
        stop = sum(split_ratio * steps > step for step in range(steps))
        return Trajectory(stop, tuple(stop - step for step in range(len(part.timesteps))))

    def nearest(timestep: int) -> int:
        return min(range(steps), key=lambda k: abs(inverse_timesteps[k] - timestep))

    # after a step the latents are at the next one's noise level, and clean after the last
    return Trajectory(nearest(part.timesteps[0]), (*map(nearest, part.timesteps[1:]), 0))


def goes_on(loops: int, similarity: float, *, iterations: int | None, sim_threshold: float) -> bool:
    """Whether a picture goes through another loop (spec A.4.1).

    Args:
        loops: done so far.
        similarity: of the picture before and after the last of them; 0 before the first.
        iterations: how many there shall be; None for until it stands still, 3 to 9.
        sim_threshold: from here on it stands still.
    """
    if iterations is not None:
        return loops < iterations
    return loops < LEAST_LOOPS or (loops < MOST_LOOPS and similarity < sim_threshold)
