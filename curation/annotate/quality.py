"""Object quality: decode-free filter, components on the pixels of the box, and the weighted mean of their ramps.

Pure functions of one picture's objects and pixels. A component that cannot be computed is NaN, and so is a quality
that needs it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco

from refloom.curation.annotate.decoded import Decoded, laplacian, sharpness, shrink
from refloom.curation.annotate.occlusion import covered
from refloom.curation.annotate.outline import cut_share, faint_outline
from refloom.curation.annotate.settings import Filter, Quality
from refloom.curation.objects import Objects
from refloom.schemas import boxes, masks
from refloom.schemas.components import COMPONENTS, Component, Points, Seen, added_columns

VERSION = 2

_BLACK, _WHITE = 8, 247
_MIN_PIXELS = 16

Floats = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]
Corners = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Scores:
    """Components of the N objects of one picture.

    Attributes:
        filtered: (N,) the reason why the decode-free filter spared an object's pixels, or None.
        components: component to (N,) values, NaN where it was not computed.
    """

    filtered: list[str | None]
    components: dict[str, Floats]


def score(
    objects: Objects,
    picture: Decoded,
    config: Quality,
    bounds: Filter,
    decode: Callable[[list[int], list[Corners]], list[Pixels | None]] | None = None,
) -> Scores:
    """Components of the objects of one picture; `quality` makes one score of them.

    Args:
        objects: of the picture.
        picture: its pixels.
        config, bounds: settings.
        decode: gives the masks of some objects in their boxes, as `shapes` does, where others look at them too.
    """
    height, width = picture.size
    components = decode_free(objects, width, height)
    filtered = filter_reasons(objects, components, bounds)
    wanted = [index for index in range(len(objects)) if config.all_components or filtered[index] is None]
    added = {name: COMPONENTS[name] for name in added_columns("object_scores")}
    if wanted:
        inner = [boxes.pad(objects.boxes[index], width, height) for index in wanted]
        found = shapes(objects, wanted, inner) if decode is None else decode(wanted, inner)
        for index, box, shape in zip(wanted, inner, found, strict=True):
            for name, value in look(picture, box, shape, config).items():
                components[name][index] = value
            for name, component in added.items():
                components[name][index] = _added(component, picture, box, shape, objects.kinds[index])
        components["covered_share"][wanted] = _covered(objects, wanted, width, height, decode)
        components["contained"][wanted] = contained([objects.masks[index] for index in wanted], objects.areas[wanted])
    return Scores(filtered, components)


def decode_free(objects: Objects, width: int, height: int) -> dict[str, Floats]:
    """Components that need no pixel; the others as NaN.

    Args:
        objects: of one picture, or of pictures of one size.
        width, height: of the picture.
    """
    components = {name: np.full(len(objects), np.nan) for name in COMPONENTS}
    sides = (objects.boxes[:, 2:] - objects.boxes[:, :2]).astype(np.float64)
    box_areas = sides[:, 0] * sides[:, 1]
    has_mask = ~np.isnan(objects.areas)
    taken = np.where(has_mask, objects.areas, box_areas)
    components["area_px"] = taken
    components["area_share"] = taken / (width * height)
    components["short_side_px"] = sides.min(axis=1, initial=np.inf)
    components["aspect"] = sides[:, 0] / np.maximum(sides[:, 1], 1e-6)
    components["box_fill"] = np.where(has_mask, np.minimum(objects.areas / np.maximum(box_areas, 1e-6), 1.0), np.nan)
    components["mask_confidence"] = objects.confidence.copy()
    return components


def filter_reasons(objects: Objects, components: dict[str, Floats], bounds: Filter) -> list[str | None]:
    """Why each object is spared pixel work, or None. Whole pictures and faces are never spared.

    Args:
        objects: of one picture.
        components: from `decode_free`.
        bounds: settings.
    """
    sides = objects.boxes[:, 2:] - objects.boxes[:, :2]
    covered = np.where(np.isnan(objects.areas), sides[:, 0] * sides[:, 1], objects.areas)
    aspect = components["aspect"]
    small = (
        (covered < bounds.min_area_px)
        | (components["area_share"] < bounds.min_area_share)
        | (components["short_side_px"] < bounds.min_short_side_px)
    )
    large = components["area_share"] > bounds.max_area_share
    odd = (np.maximum(aspect, 1 / aspect) > bounds.max_aspect) | (components["box_fill"] < bounds.min_box_fill)
    reasons: list[str | None] = []
    for index, kind in enumerate(objects.kinds):
        if kind != "object":
            reasons.append(None)
        else:
            reasons.append(
                "too_small" if small[index] else "too_large" if large[index] else "odd_shape" if odd[index] else None
            )
    return reasons


def shapes(objects: Objects, wanted: list[int], inner: list[Corners]) -> list[Pixels | None]:
    """Masks of some objects inside their boxes, 0 and 1; None for an object without a mask.

    Args:
        objects: of one picture.
        wanted: indices of the objects.
        inner: whole pixels inside the picture, a box for each of them.
    """
    found = [
        (mask, box) for index, box in zip(wanted, inner, strict=True) if (mask := objects.masks[index]) is not None
    ]
    decoded = iter(masks.decode_boxes([mask for mask, _ in found], [box for _, box in found]))
    return [next(decoded) if objects.masks[index] is not None else None for index in wanted]


def look(picture: Decoded, box: tuple[int, int, int, int], shape: Pixels | None, config: Quality) -> dict[str, float]:
    """Pixel components of one object.

    Args:
        picture: its pixels.
        box: whole pixels inside it.
        shape: (y1 - y0, x1 - x0) mask inside the box, or None.
        config: settings.
    """
    height, width = picture.size
    found = {} if shape is None else _shape(_shrink_mask(shape, config.shape_side_px), box, width, height)
    if found and shape is not None:
        found["cut_share"] = cut_share(shape, box, width, height)
        found["faint_outline"] = faint_outline(picture.rgb, shape, box)
    return found | _light(picture, box, shape, config.sharpness_side_px)


def _covered(
    objects: Objects,
    wanted: list[int],
    width: int,
    height: int,
    decode: Callable[[list[int], list[Corners]], list[Pixels | None]] | None,
) -> Floats:
    """`covered` of some objects by all others, those that the filter spares too."""
    others = [index for index, kind in enumerate(objects.kinds) if kind == "object"]
    inner = [boxes.pad(box, width, height) for box in objects.boxes]
    if len(others) < 2:
        return np.full(len(wanted), np.nan)
    asked = [inner[index] for index in others]
    found = iter(shapes(objects, others, asked) if decode is None else decode(others, asked))
    every = [next(found) if kind == "object" else None for kind in objects.kinds]
    return covered(wanted, inner, every)


def _added(component: Component, picture: Decoded, box: Corners, shape: Pixels | None, kind: str) -> float:
    """What a plugin's component says of one object."""
    if component.measure is None:
        return float("nan")
    x0, y0, x1, y1 = box
    return float(component.measure(Seen(picture.rgb[y0:y1, x0:x1], shape, box, picture.size, kind)))


def _shrink_mask(mask: Pixels, max_side_px: int) -> Pixels:
    height, width = mask.shape
    scale = max_side_px / max(height, width)
    if scale >= 1:
        return mask
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST), np.uint8)


def _shape(mask: Pixels, box: tuple[int, int, int, int], width: int, height: int) -> dict[str, float]:
    """Shape of a mask inside its box: largest part, holes, and how much of its outline is cut off by the picture."""
    total = cv2.countNonZero(mask)
    if total == 0:
        return {}
    # labels and a count of them: a quarter of the time that the statistics of OpenCV take
    labels, parts = cv2.connectedComponents(mask, connectivity=8, ltype=cv2.CV_16U)
    largest = total if labels == 2 else int(np.bincount(parts.reshape(-1))[1:].max())
    outside = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    cv2.floodFill(outside, None, (0, 0), 1)
    holes = outside.size - cv2.countNonZero(outside)
    return {
        "largest_part": largest / total,
        "hole_share": holes / (holes + total),
        "border_share": _border_share(mask, box, width, height),
    }


def _border_share(mask: Pixels, box: tuple[int, int, int, int], width: int, height: int) -> float:
    x0, y0, x1, y1 = box
    lines = [
        line
        for touches, line in (
            (x0 == 0, mask[:, 0]),
            (y0 == 0, mask[0]),
            (x1 == width, mask[:, -1]),
            (y1 == height, mask[-1]),
        )
        if touches
    ]
    cut = sum(int(line.sum()) for line in lines)
    if cut == 0:
        return 0.0
    inner = cv2.erode(mask, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    outline = cv2.countNonZero(mask) - cv2.countNonZero(inner)
    return min(1.0, cut / outline)


def _light(picture: Decoded, box: tuple[int, int, int, int], mask: Pixels | None, max_side_px: int) -> dict[str, float]:
    """Sharpness, contrast and exposure of grey values inside a mask (or of the whole box)."""
    x0, y0, x1, y1 = box
    if max(x1 - x0, y1 - y0) <= max_side_px:
        crop, edges = picture.gray[y0:y1, x0:x1], picture.edges[y0:y1, x0:x1]
    else:
        crop = shrink(picture.gray[y0:y1, x0:x1], max_side_px)
        edges = laplacian(crop)
        size = (crop.shape[1], crop.shape[0])
        mask = None if mask is None else np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST))
    count = crop.size if mask is None else cv2.countNonZero(mask)
    if count < _MIN_PIXELS:
        return {}
    histogram = cv2.calcHist([crop], [0], mask, [256], [0, 256]).reshape(-1)
    values = np.arange(256)
    mean = float(histogram @ values) / count
    variance = float(histogram @ (values - mean) ** 2) / count
    return {
        "sharpness": float(np.log10(1 + sharpness(edges, mask))),
        "contrast": float(np.sqrt(max(variance, 0.0))) / 255,
        "exposure": float(histogram[_BLACK : _WHITE + 1].sum()) / count,
    }


def contained(shapes: list[masks.Mask | None], areas: Floats) -> Floats:
    """Largest share of each mask that lies inside one larger mask of the same picture; NaN without a mask.

    Args:
        shapes: N masks of one size, or None.
        areas: (N,) their pixels.
    """
    out = np.full(len(shapes), np.nan)
    rows = [index for index, shape in enumerate(shapes) if shape is not None]
    if not rows:
        return out
    present = [shapes[index] for index in rows]
    # with iscrowd set, pycocotools divides the intersection by the first mask's area alone
    shares = np.asarray(coco.iou(present, present, [1] * len(rows)))
    own = areas[rows]
    larger = (own[None, :] > own[:, None]) | ((own[None, :] == own[:, None]) & np.tri(len(rows), k=-1, dtype=bool))
    out[rows] = np.where(larger, shares, 0.0).max(axis=1)
    return out


def quality(kinds: list[str], components: dict[str, Floats], config: Quality) -> Floats:
    """Weighted geometric mean of the ramps of components, (N,); NaN where a listed one is missing.

    Optional components count where they are known; elsewhere the others make the mean.

    Args:
        kinds: (N,) object, whole or face.
        components: component to (N,) values; optional ones may be absent.
        config: settings.
    """
    is_object = np.array([kind == "object" for kind in kinds], bool)
    result = np.full(len(kinds), np.nan)
    for kind, rows, listed in (
        ("object", is_object, config.object_components),
        ("whole", ~is_object, config.whole_components),
    ):
        if rows.any():
            scores = {
                name: (ramp(components[name][rows], config.ramp_of(name)), weight)
                for name, weight in config.counted(kind).items()
                if name in listed or name in components
            }
            result[rows] = _mean(scores, listed)
    return result


def _mean(scores: dict[str, tuple[Floats, float]], listed: tuple[str, ...]) -> Floats:
    """Geometric mean of components, each with its (M,) scores and its weight; NaN where a listed one is NaN."""
    count = len(next(iter(scores.values()))[0])
    total, weights, missing = np.zeros(count), np.zeros(count), np.zeros(count, bool)
    with np.errstate(divide="ignore"):  # the log of a score of zero makes a mean of zero
        for name, (values, weight) in scores.items():
            known = ~np.isnan(values)
            if name in listed:
                missing |= ~known
            if weight:
                total[known] += weight * np.log(values[known])
                weights[known] += weight
    mean: Floats = np.exp(total / np.where(weights > 0, weights, 1.0))
    return np.where(missing, np.nan, mean)


def ramp(values: Floats, points: Points) -> Floats:
    """A piecewise-linear function of values, flat outside its points; NaN stays NaN."""
    knots = np.array(points)
    scored: Floats = np.where(np.isnan(values), np.nan, np.clip(np.interp(values, knots[:, 0], knots[:, 1]), 0, 1))
    return scored
