"""Where a run is in its stream: a few numbers, whatever the number of samples, ranks or threads.

`position` samples were drawn from the stream; all but those that wait in unfilled buckets were trained on.
"""

from dataclasses import dataclass
from typing import Any

from refloom.schemas.errors import Refused
from refloom.schemas.manifest import differing, flatten
from refloom.schemas.wording import some

VERSION = 1
"""Hand-bumped when the order or the draws change: an older state would go on with other samples."""


@dataclass(frozen=True, slots=True)
class State:
    """The state after some global batches.

    Attributes:
        samples: trained on.
        position: of the next sample of the stream.
        waiting: of each bucket, the positions that wait for more of their aspect, in order.
    """

    samples: int
    position: int
    waiting: tuple[tuple[int, ...], ...]

    @classmethod
    def begin(cls, buckets: int) -> "State":
        """Before the first sample."""
        return cls(0, 0, ((),) * buckets)

    def to_json(self, settings: dict[str, Any]) -> dict[str, Any]:
        """For a checkpoint, with what it depends on."""
        return {
            "version": VERSION,
            "samples": self.samples,
            "position": self.position,
            "waiting": [list(positions) for positions in self.waiting],
            "settings": settings,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any], settings: dict[str, Any]) -> "State":
        """Read what `to_json` wrote.

        Args:
            value: from a checkpoint.
            settings: of the run that goes on.

        Raises:
            Refused: the samples have changed, a setting that the order depends on has, or the state is damaged.
        """
        try:
            version, before = value["version"], value["settings"]
            waiting = tuple(tuple(int(one) for one in positions) for positions in value["waiting"])
            state = cls(int(value["samples"]), int(value["position"]), waiting)
        except (KeyError, TypeError, ValueError) as error:
            raise Refused(f"the checkpoint holds no state of a loader ({error!r}): take another checkpoint") from error
        if version != VERSION:
            raise Refused(
                f"the checkpoint's state is of version {version}, this refloom's of {VERSION}: its order would differ; "
                "finish with the refloom that wrote it, or start anew"
            )
        _check_sources(before.get("sources", []), settings["sources"])
        changed = differing(*(flatten({**each, "sources": None}) for each in (before, settings)))
        if changed:
            raise Refused(
                f"the run was begun with other settings, so its order cannot go on: {some(changed, between='; ')}; "
                "set them back, or start anew from the weights alone"
            )
        if state.samples + sum(map(len, waiting)) != state.position:
            raise Refused("the checkpoint's state does not add up: take another checkpoint")
        return state


def _check_sources(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> None:
    if len(before) != len(now):
        raise Refused(f"the run was begun with {len(before)} datasets, not {len(now)}: give it the same ones")
    for number, (one, other) in enumerate(zip(before, now, strict=True)):
        if one.get("fingerprint") != other["fingerprint"]:
            raise Refused(
                f"the samples of dataset {number + 1} are not those that the run was begun with: set them back, or "
                "start anew from the weights alone"
            )
        if changed := differing(flatten(one), flatten(other)):
            raise Refused(
                f"dataset {number + 1} was taken in otherwise when the run began: {some(changed, between='; ')}"
            )
