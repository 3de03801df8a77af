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
        optional: whether the mean of objects is made without it where it is not known.
        weight: of refloom's own in the mean of objects, unless the settings say otherwise; a plugin's counts as 1.
        fault: what is wrong with an object of a low score, for people: one or two words.
        model: the role of the model that makes it.
        late: its column follows `quality`, because the first units were written without it.
        measure: of a plugin's component; NaN where it cannot be told.
    """

    doc: str
    ramp: Points = ()
    unit: str | None = None
    span: str | None = None
    objects: bool = False
    wholes: bool = False
    optional: bool = False
    weight: float = 1.0
    fault: str = ""
    model: str | None = None
    late: bool = False
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
            fault="odd size",
            ramp=((0.0, 0.0), (0.01, 0.3), (0.05, 1.0), (0.5, 1.0), (0.8, 0.5), (1.0, 0.1)),
        ),
        "short_side_px": Component(
            doc="shorter side of the box",
            unit="px",
            # encoders see 224 px; below a seventh of that there is nothing to see
            fault="small",
            ramp=((16.0, 0.0), (32.0, 0.2), (128.0, 0.8), (224.0, 1.0)),
            wholes=True,
        ),
        "aspect": Component(doc="box width over height"),
        "box_fill": Component(
            doc="mask area over box area",
            span="0..1",
            # a disc fills 0.79 of its box; a thin or broken mask much less
            fault="thin",
            ramp=((0.1, 0.0), (0.3, 0.5), (0.5, 1.0)),
        ),
        "border_share": Component(
            doc="share of the mask's outline on the picture's border",
            span="0..1",
            # cut off by the picture's edge
            fault="cut off",
            ramp=((0.0, 1.0), (0.1, 0.8), (0.3, 0.3), (0.6, 0.05)),
        ),
        "largest_part": Component(
            doc="largest connected part over mask area",
            span="0..1",
            fault="in pieces",
            ramp=((0.5, 0.2), (0.95, 1.0)),
            objects=True,
            weight=0.5,
        ),
        "hole_share": Component(
            doc="enclosed holes over filled area",
            span="0..1",
            fault="with holes",
            ramp=((0.0, 1.0), (0.2, 0.6), (0.5, 0.1)),
        ),
        "contained": Component(
            doc="largest share of the mask inside one larger mask",
            span="0..1",
            fault="a part",
            ramp=((0.5, 1.0), (0.9, 0.3), (1.0, 0.1)),
        ),
        "sharpness": Component(
            doc="log10(1 + variance of the Laplacian inside the mask)",
            span="0..5",
            fault="blurred",  # photographs that are in focus have 2.5 to 4
            ramp=((1.0, 0.05), (2.5, 0.7), (3.3, 1.0)),
            objects=True,
            weight=0.5,
            wholes=True,
        ),
        "contrast": Component(
            doc="standard deviation of grey inside the mask",
            span="0..0.5",
            fault="flat",
            ramp=((0.02, 0.1), (0.1, 0.7), (0.15, 1.0)),
            objects=True,
            weight=0.5,
            wholes=True,
        ),
        "exposure": Component(
            doc="share of mask pixels neither black (< 8) nor white (> 247)",
            span="0..1",
            fault="black or white",
            ramp=((0.3, 0.1), (0.8, 0.8), (0.95, 1.0)),
            wholes=True,
        ),
        "mask_confidence": Component(
            doc="predicted IoU of the mask, from the source or the model",
            span="0..1",
            fault="uncertain mask",
            ramp=((0.7, 0.1), (0.88, 0.7), (0.95, 1.0)),
        ),
        "area_px": Component(
            doc="mask (else box) area",
            unit="px",
            fault="tiny",
            # what a square of 100 px a side shows is enough; one of 30 leaves few details
            ramp=((300.0, 0.1), (1000.0, 0.4), (3000.0, 0.7), (10000.0, 1.0)),
            objects=True,
            late=True,
        ),
        "cut_share": Component(
            doc="set pixels on the picture's edge over the side of the box there, summed over its four sides",
            span="0..4",
            fault="cut off",
            ramp=((0.0, 1.0), (1.0, 0.3), (2.0, 0.05)),
            objects=True,
            late=True,
        ),
        "faint_outline": Component(
            doc="share of the outline along which the picture shows no edge",
            span="0..1",
            fault="faint outline",
            ramp=((0.0, 1.0), (0.5, 0.4), (0.9, 0.1)),
            objects=True,
            late=True,
        ),
        "covered_share": Component(
            doc="share of the box that masks of other objects cover; null where no other object has one",
            span="0..1",
            fault="occluded",
            ramp=((0.0, 1.0), (0.5, 0.2)),
            objects=True,
            optional=True,
            late=True,
        ),
        "alone_cosine": Component(
            doc="cosine of the cut-out on white and of all that its box shows",
            span="-1..1",
            fault="incomplete",
            # of an object that is all there, its box shows little else
            ramp=((0.1, 0.1), (0.75, 1.0)),
            objects=True,
            optional=True,
            model="classifier",
            late=True,
        ),
        "class_entropy": Component(
            doc="entropy of the classes that the cut-out is taken for, nats: 0 certain, 6.9 anything",
            span="0..7",
            fault="unrecognised",
            ramp=((1.0, 1.0), (5.5, 0.2)),
            objects=True,
            optional=True,
            model="classifier",
            late=True,
        ),
    },
    of=Component,
)

SCORES: Registry[Score] = Registry("scores", "score of images", {}, of=Score)

ADDED: dict[str, Registry[Any]] = {"object_scores": COMPONENTS, "image_scores": SCORES}
"""Tables to which plugins add columns."""


def own_columns(*, late: bool) -> list[pa.Field]:
    """The columns of refloom's own components: those before `quality`, or the `late` ones."""
    return [
        field(name, pa.float32(), own.doc, unit=own.unit, span=own.span, model=own.model)
        for name, own in ((name, COMPONENTS[name]) for name in COMPONENTS.own)
        if own.late == late
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
