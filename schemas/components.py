"""The components of object quality: what each is called and means, and the ramp that makes a score of it.

One declaration each: the column of `object_scores`, the settings and the report follow from it. How those of refloom
are computed, together and fast, is in `curation/annotate/quality.py`; a plugin's component computes itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from refloom.schemas.fields import field
from refloom.schemas.plugins import Registry

Points = tuple[tuple[float, float], ...]
"""A piecewise-linear ramp: (value, score) points with rising values; flat outside."""

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a plugin's component sees of one object.

    Attributes:
        rgb: (h, w, 3) uint8, the upright image inside the box.
        mask: (h, w) uint8, 0 and 1, inside the box; None for an object without a mask.
        box: x0, y0, x1, y1 in whole pixels of the upright image.
        size: height and width of the image.
        kind: object, whole or face.
    """

    rgb: Pixels
    mask: Pixels | None
    box: tuple[int, int, int, int]
    size: tuple[int, int]
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One component of object quality.

    Attributes:
        doc: what it is, for the schema and the report.
        ramp: makes a score in 0 to 1 of it, unless the settings say otherwise; empty for what only bounds judge.
        unit, span: of its values.
        objects, wholes: whether it is part of the mean of objects, of whole images and faces, unless the settings say
            otherwise.
        measure: of a plugin's component; NaN where it cannot be told.
    """

    doc: str
    ramp: Points = ()
    unit: str | None = None
    span: str | None = None
    objects: bool = False
    wholes: bool = False
    measure: Callable[[Seen], float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A number that a plugin says of a whole image, a column of `image_scores`.

    Attributes:
        doc, unit, span: see `Component`.
        measure: of (H, W, 3) uint8, upright sRGB; NaN where it cannot be told.
    """

    doc: str
    measure: Callable[[Pixels], float]
    unit: str | None = None
    span: str | None = None


COMPONENTS: Registry[Component] = Registry(
    "components",
    "component of quality",
    {
        "area_share": Component(
            doc="mask (else box) area over picture area",
            span="0..1",
            # large enough to show detail, small enough to leave a scene around it
            ramp=((0.0, 0.0), (0.01, 0.3), (0.05, 1.0), (0.5, 1.0), (0.8, 0.5), (1.0, 0.1)),
            objects=True,
        ),
        "short_side_px": Component(
            doc="shorter side of the box",
            unit="px",
            # encoders see 224 px; below a seventh of that there is nothing to see
            ramp=((16.0, 0.0), (32.0, 0.2), (128.0, 0.8), (224.0, 1.0)),
            objects=True,
            wholes=True,
        ),
        "aspect": Component(doc="box width over height"),
        "box_fill": Component(
            doc="mask area over box area",
            span="0..1",
            # a disc fills 0.79 of its box; a thin or broken mask much less
            ramp=((0.1, 0.0), (0.3, 0.5), (0.5, 1.0)),
            objects=True,
        ),
        "border_share": Component(
            doc="share of the mask's outline on the picture's border",
            span="0..1",
            # cut off by the picture's edge
            ramp=((0.0, 1.0), (0.1, 0.8), (0.3, 0.3), (0.6, 0.05)),
            objects=True,
        ),
        "largest_part": Component(
            doc="largest connected part over mask area",
            span="0..1",
            ramp=((0.5, 0.1), (0.9, 0.8), (0.98, 1.0)),
            objects=True,
        ),
        "hole_share": Component(
            doc="enclosed holes over filled area", span="0..1", ramp=((0.0, 1.0), (0.2, 0.6), (0.5, 0.1))
        ),
        "contained": Component(
            doc="largest share of the mask inside one larger mask",
            span="0..1",
            ramp=((0.5, 1.0), (0.9, 0.3), (1.0, 0.1)),
        ),
        "sharpness": Component(
            doc="log10(1 + variance of the Laplacian inside the mask)",
            span="0..5",
            # below 1 is blur, above 2.5 is crisp
            ramp=((0.5, 0.05), (1.5, 0.5), (2.5, 1.0)),
            objects=True,
            wholes=True,
        ),
        "contrast": Component(
            doc="standard deviation of grey inside the mask",
            span="0..0.5",
            ramp=((0.01, 0.1), (0.08, 0.7), (0.15, 1.0)),
            objects=True,
            wholes=True,
        ),
        "exposure": Component(
            doc="share of mask pixels neither black (< 8) nor white (> 247)",
            span="0..1",
            ramp=((0.3, 0.1), (0.8, 0.8), (0.95, 1.0)),
            objects=True,
            wholes=True,
        ),
        "mask_confidence": Component(
            doc="predicted IoU of the mask, from the source or the model",
            span="0..1",
            ramp=((0.7, 0.1), (0.88, 0.7), (0.95, 1.0)),
        ),
    },
    of=Component,
)

SCORES: Registry[Score] = Registry("scores", "score of images", {}, of=Score)

ADDED: dict[str, Registry[Any]] = {"object_scores": COMPONENTS, "image_scores": SCORES}
"""Tables to which plugins add columns."""


def own_columns() -> list[pa.Field]:
    """The columns of refloom's own components."""
    return [
        field(name, pa.float32(), own.doc, unit=own.unit, span=own.span)
        for name, own in ((name, COMPONENTS[name]) for name in COMPONENTS.own)
    ]


def added_columns(table: str) -> list[str]:
    """Names of the columns that the plugins of this process add to a table."""
    registry = ADDED.get(table)
    return [] if registry is None else [name for name in registry if name not in registry.own]


def added_settings(table: str) -> dict[str, dict[str, str]]:
    """What manifests keep of the columns that plugins add: whose each is, and what it means."""
    registry = ADDED.get(table)
    if registry is None:
        return {}
    found = registry.record(added_columns(table))
    for name, one in found.items():
        of = registry[name]
        more = {"doc": of.doc, "unit": of.unit, "span": of.span}
        found[name] = one | {key: value for key, value in more.items() if value is not None}
    return found


def column_of(name: str, kept: dict[str, str]) -> pa.Field:
    """A plugin's column as `added_settings` keeps it, where the plugin itself may be absent."""
    made = field(name, pa.float32(), kept.get("doc", ""), unit=kept.get("unit"), span=kept.get("span"))
    return made.with_metadata({**(made.metadata or {}), "plugin": f"{kept.get('plugin')} {kept.get('version')}"})
