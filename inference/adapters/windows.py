"""In which denoising steps an adapter acts. Bounds are integers, computed once from exact shares: no float compares."""

import math
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class StepWindow:
    """Steps [start, stop) of the executed timesteps, counted from 0; `stop` None is to the end."""

    start: int = 0
    stop: int | None = None

    def __post_init__(self) -> None:
        if self.start < 0 or (self.stop is not None and self.stop < self.start):
            raise ValueError(f"steps {self.start} to {self.stop} are no window: 0 <= start <= stop")

    def __contains__(self, step: int) -> bool:
        return step >= self.start and (self.stop is None or step < self.stop)

    def resolve(self, steps: int | None) -> "StepWindow":
        """Itself, whatever the number of steps."""
        return self


@dataclass(frozen=True, slots=True)
class ShareWindow:
    """A part of the schedule, as exact shares in 0..1; two windows that share a bound share no step."""

    start: Fraction = Fraction(0)
    stop: Fraction = Fraction(1)

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.stop <= 1:
            raise ValueError(f"{self.start} to {self.stop} is no part of a schedule: 0 <= start <= stop <= 1")

    @classmethod
    def last(cls, share: float) -> "ShareWindow":
        """The last `share` of the schedule."""
        return cls(1 - _exact(share), Fraction(1))

    def resolve(self, steps: int | None) -> StepWindow:
        """The steps of a schedule of `steps` steps.

        Raises:
            ValueError: the number of steps is not known.
        """
        if steps is None:
            raise ValueError("a share of the schedule needs the number of steps; give a StepWindow instead")
        return StepWindow(math.floor(self.start * steps), math.floor(self.stop * steps))


Window = StepWindow | ShareWindow


def _exact(share: float) -> Fraction:
    return Fraction(str(share))
