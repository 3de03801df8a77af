"""A decoded picture with its objects: what several annotators need of both, made once and only if somebody asks."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from refloom.curation.annotate import quality
from refloom.curation.annotate.decoded import Decoded
from refloom.curation.annotate.settings import Filter
from refloom.curation.objects import Objects
from refloom.inference.models.crops import cut_middle, cut_out
from refloom.schemas import boxes

Pixels = npt.NDArray[np.uint8]
Corners = tuple[int, int, int, int]


@dataclass(frozen=True)
class Scene:
    """One picture and its N objects.

    Attributes:
        picture: decoded.
        objects: on it.
        bounds: of the decode-free filter.
    """

    picture: Decoded
    objects: Objects
    bounds: Filter
    _shapes: dict[int, Pixels | None] = field(default_factory=dict)
    _crops: dict[tuple[int, int, bool], Pixels] = field(default_factory=dict)

    @cached_property
    def filtered(self) -> list[str | None]:
        """(N,) why the decode-free filter spares an object's pixels, or None."""
        height, width = self.picture.size
        return quality.filter_reasons(self.objects, quality.decode_free(self.objects, width, height), self.bounds)

    def shapes(self, wanted: list[int], inner: list[Corners]) -> list[Pixels | None]:
        """Masks of some objects inside their padded boxes; see `quality.shapes`. Not to be changed."""
        new = [place for place, index in enumerate(wanted) if index not in self._shapes]
        found = quality.shapes(self.objects, [wanted[place] for place in new], [inner[place] for place in new])
        self._shapes.update(zip((wanted[place] for place in new), found, strict=True))
        return [self._shapes[index] for index in wanted]

    def crops(self, side_px: int, *, middles: bool = False) -> dict[int, Pixels]:
        """Cut-outs (side_px, side_px, 3) of the objects that pass the filter, by index. Not to be changed.

        Args:
            side_px: of the cut-outs.
            middles: of whole pictures without an outline only the middle, see `crops.cut_middle`.
        """
        height, width = self.picture.size
        wanted = [index for index, reason in enumerate(self.filtered) if reason is None]
        inner = [boxes.pad(self.objects.boxes[index], width, height) for index in wanted]
        found = {}
        for index, box, shape in zip(wanted, inner, self.shapes(wanted, inner), strict=True):
            is_middle = middles and shape is None and self.objects.kinds[index] == "whole"
            key = index, side_px, is_middle
            if key not in self._crops:  # a cut-out serves all models that see it at one size
                self._crops[key] = (
                    cut_middle(self.picture.rgb, side_px)
                    if is_middle
                    else cut_out(self.picture.rgb, shape, box, side_px)
                )
            found[index] = self._crops[key]
        return found
