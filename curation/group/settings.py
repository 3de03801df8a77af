"""Settings of the groups inside units; those over the whole dataset stand beside their rules."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Groups of objects that show one subject.

    Attributes:
        min_members: fewer make no group.
        switch_iou: two tracks whose masks swap places between neighbouring frames with at least this overlap, and
            at most `switch_own_iou` with themselves, have exchanged their masks.
        switch_own_iou: see above.
        switch_gain: two tracks whose motion, size and look go on better by this with their names exchanged have
            exchanged their masks too, see `switches`: sizes of the subject; null asks for overlaps alone.
    """

    min_members: int = 2
    switch_iou: float = 0.5
    switch_own_iou: float = 0.2
    switch_gain: float | None = 0.5

    def __post_init__(self) -> None:
        if self.min_members < 2:
            raise ValueError("min_members must be 2 or more: a group shows one subject more than once")
        if self.switch_gain is not None and self.switch_gain <= 0:
            raise ValueError(f"switch_gain is more than 0, not {self.switch_gain}")
