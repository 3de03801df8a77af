"""What a view is: which samples it accepts, which of their pictures may be targets, and the example it makes."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np

from refloom.training.data.buckets import Size
from refloom.training.data.sample import Row, Sample
from refloom.training.views.captions import Dropout
from refloom.training.views.example import Example
from refloom.training.views.subjects import may_be_target

NOT_ALLOWED = "the sample does not allow such a picture as its target"


@dataclass(frozen=True, slots=True, kw_only=True)
class View(ABC):
    """A view is its own settings; two with equal settings see the same.

    `targets` looks at what Parquet says of a sample, without pictures, once for the whole dataset. It is also where a
    view applies its method's bounds, so that `example` never turns an accepted sample away, except for damaged bytes.

    Attributes:
        dropout: of conditions; `example` draws it first and always with as many numbers.
    """

    name: ClassVar[str]

    dropout: Dropout = field(default_factory=Dropout)

    @abstractmethod
    def targets(self, row: Row) -> list[int] | str:
        """Pictures of a sample that may be the target; if there is none, why, in a few words.

        They are some of `subjects.may_be_target`: a sample may say its target, and a reference is never one.
        """

    def accepts(self, row: Row) -> bool:
        """Whether the view can use a sample."""
        return not isinstance(self.targets(row), str)

    @abstractmethod
    def example(self, sample: Sample, target: int, size: Size, rng: np.random.Generator) -> Example:
        """What is trained on: a function of its arguments and nothing else.

        Args:
            sample: one that the view accepts.
            target: one of its `targets`.
            size: (height, width) of the target, pixels.
            rng: of this sample in this epoch.

        Raises:
            Rejected: a picture or a mask is damaged.
        """

    def settings(self) -> dict[str, Any]:
        """All that the view's examples depend on, as json."""
        return {"view": self.name, **asdict(self)}


def found(targets: Iterable[int], reason: str) -> list[int] | str:
    """The targets, or the reason if there are none."""
    return list(targets) or reason


def targets_of(view: View, row: Row) -> list[int] | str:
    """What a view takes of a sample, without pictures that the sample does not allow: a plugin's view may know of none.

    Args:
        view: any.
        row: of the sample.

    Returns:
        As `View.targets`.
    """
    taken = view.targets(row)
    if isinstance(taken, str):
        return taken
    allowed = may_be_target(row)
    return found((number for number in taken if number in allowed), NOT_ALLOWED)
