"""Masks as COCO run-length encodings: `{"size": [h, w], "counts": compressed string}` in the upright picture.

Reading a source's segmentations (polygons, uncompressed and compressed RLE), measuring and combining masks on the
run lengths, and decoding only inside a box. Everything is checked before it reaches pycocotools, which trusts its
input: a NaN in a polygon or an absurd size kills the process.
"""

from array import array
from collections.abc import Sequence
from math import isfinite
from typing import Any, TypedDict

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco

from refloom.schemas import boxes, runs
from refloom.schemas.boxes import Boxes
from refloom.schemas.errors import Rejected

_NUMBERS = frozenset({int, float})
MAX_PARTS = 10_000
"""Polygons of one annotation: joining them takes time by their square."""
MAX_OUTLINE_PX = 1_000_000
"""Length of the outlines of one annotation, which pycocotools walks at five times the scale and sorts; this is 25 times
around the largest square picture."""
MAX_OUTLINES_PX = 10_000_000
"""Of all annotations of a picture."""
_AREA_BATCH = 255  # pycocotools 2.0.11 counts them in a uint8 under numpy 2 and raises beyond

Pixels = npt.NDArray[np.uint8]


class Mask(TypedDict):
    """A sound compressed RLE: `size` is [height, width]."""

    size: list[int]
    counts: str


def read(segmentations: Sequence[Any], height: int, width: int) -> tuple[list[Mask | Rejected], npt.NDArray[np.int64]]:
    """Bring the segmentations of one picture into compressed RLE.

    Args:
        segmentations: what the source's json holds for each annotation: a list of polygons (flat x, y lists), one
            such list without the outer one, polygons as lists of [x, y], an RLE with a list of run lengths, or one with
            a compressed string.
        height, width: of the frame that the annotations are in; polygons take their size from it.

    Returns:
        For each of the N segmentations its mask, or why it is none (`bad_mask`, `size_mismatch`); and set pixels (N,),
        0 where there is no mask.
    """
    out: list[Mask | Rejected] = [Rejected("bad_mask", "segmentation is missing")] * len(segmentations)
    pixels = np.zeros(len(segmentations), np.int64)
    strings: list[int] = []
    polygons: list[int] = []
    for index, segmentation in enumerate(segmentations):
        if isinstance(segmentation, dict):
            counts = segmentation.get("counts")
            if wrong := _wrong_size(segmentation.get("size"), height, width):
                out[index] = wrong
            elif isinstance(counts, str):
                strings.append(index)
            elif isinstance(counts, list):
                out[index] = _from_lengths(counts, height, width)
            else:
                out[index] = Rejected("bad_mask", "counts is neither a string nor a list")
        elif isinstance(segmentation, list):
            polygons.append(index)
        elif segmentation is not None:
            out[index] = Rejected("bad_mask", f"segmentation is a {type(segmentation).__name__}")
    if strings:
        counts = [segmentations[index]["counts"] for index in strings]
        parsed, problems = runs.parse(counts, np.tile([height, width], (len(counts), 1)))
        pixels[strings] = parsed.areas()
        for index, text, problem in zip(strings, counts, problems, strict=True):
            out[index] = Rejected("bad_mask", problem) if problem else Mask(size=[height, width], counts=text)
    if polygons:
        masks = _from_polygons([_polygons(segmentations[index]) for index in polygons], height, width)
        for index, mask in zip(polygons, masks, strict=True):
            out[index] = mask
    made = [index for index, mask in enumerate(out) if not pixels[index] and not isinstance(mask, Rejected)]
    pixels[made] = areas([out[index] for index in made])  # type: ignore[misc]
    return out, pixels


def _wrong_size(size: Any, height: int, width: int) -> Rejected | None:
    if size == [height, width] and type(size[0]) is type(size[1]) is int:
        return None
    if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int for side in size)):
        return Rejected("bad_mask", "size is not [height, width]")
    return Rejected("size_mismatch", f"mask of {size[1]}x{size[0]} in a frame of {width}x{height}")


def _from_lengths(lengths: list[Any], height: int, width: int) -> Mask | Rejected:
    try:
        values = np.frombuffer(array("q", lengths), np.int64)
    except (TypeError, OverflowError):
        return Rejected("bad_mask", "counts is not a list of whole numbers")
    if not len(values) or values.min() < 0:
        return Rejected("bad_mask", "counts is empty or holds a negative run")
    if int(values.sum()) != height * width or values.max() > runs.MAX_PIXELS:
        return Rejected("bad_mask", f"runs add up to {int(values.sum())}, not {height * width} pixels")
    return _text(coco.frPyObjects({"size": [height, width], "counts": lengths}, height, width))


def _polygons(segmentation: list[Any]) -> list[Any]:
    """The polygons of one annotation as flat lists, where their form is plain; anything else as it is."""
    first = segmentation[0] if segmentation else None
    if type(first) in _NUMBERS and all(type(value) in _NUMBERS for value in segmentation):
        return [segmentation]  # one polygon without the list around it
    if type(first) is not list:
        return segmentation
    if len(segmentation) >= 3 and all(_is_point(point) for point in segmentation):
        return [[value for point in segmentation for value in point]]
    if type(first[0] if first else None) is list:
        return [
            [value for point in part for value in point]
            if type(part) is list and all(_is_point(point) for point in part)
            else part
            for part in segmentation
        ]
    return segmentation


def _is_point(value: Any) -> bool:
    return type(value) is list and len(value) == 2 and type(value[0]) in _NUMBERS and type(value[1]) in _NUMBERS


def points(segmentation: Any) -> npt.NDArray[np.float64] | None:
    """The corners (N, 2) x, y of all polygons of a segmentation as it stands in json; None where none is sound."""
    if not isinstance(segmentation, list):
        return None
    parts = _polygons(segmentation)
    try:
        flat = array("d", [value for part in parts for value in part])
    except (TypeError, OverflowError):
        return None
    if not len(flat) or len(flat) % 2 or not isfinite(sum(flat)):
        return None
    return np.frombuffer(flat, np.float64).reshape(-1, 2)


def _from_polygons(groups: list[list[Any]], height: int, width: int) -> list[Mask | Rejected]:
    """The polygons of all annotations in one call; an annotation is one or more polygons."""
    out: list[Mask | Rejected] = []
    parts: list[list[float]] = []
    owners: list[slice | Rejected] = []
    for group in groups:
        sound = [part for part in group if isinstance(part, list)]
        problem = None
        if len(sound) != len(group) or any(len(part) % 2 for part in sound):
            problem = Rejected("bad_mask", "a polygon is not a list of x, y pairs")
        sound = [part for part in sound if len(part) >= 6]  # one or two points have no area
        if not sound:
            problem = problem or Rejected("bad_mask", "no polygon of three points")
        owners.append(problem or slice(len(parts), len(parts) + len(sound)))
        if problem is None:
            parts += sound
    if not _coordinates_sound(parts, height, width):
        for index, owner in enumerate(owners):
            if isinstance(owner, slice) and not _coordinates_sound(parts[owner], height, width):
                owners[index] = Rejected("bad_mask", "a polygon holds something else than numbers near the picture")
    _check_outlines(owners, parts, max(height, width))
    safe = [part for owner in owners if isinstance(owner, slice) for part in parts[owner]]
    encoded = coco.frPyObjects(safe, height, width) if safe else []
    position = 0
    for owner in owners:
        if isinstance(owner, Rejected):
            out.append(owner)
            continue
        count = owner.stop - owner.start
        own = encoded[position : position + count]
        position += count
        out.append(_text(own[0] if count == 1 else coco.merge(own)))
    return out


def _check_outlines(owners: list[slice | Rejected], parts: list[list[float]], side: int) -> None:
    """Refuse annotations that take minutes or gigabytes to draw, and those that come when a picture has had its share.

    Outlines are measured only where their number of points leaves it open.
    """
    own = {index: parts[owner] for index, owner in enumerate(owners) if isinstance(owner, slice)}
    lengths: dict[int, float] = {index: sum(map(len, one)) // 2 * 3 * side for index, one in own.items()}
    if sum(lengths.values()) > MAX_OUTLINE_PX:
        lengths = {index: sum(map(_most_outline_px, one)) for index, one in own.items()}
    if sum(lengths.values()) > MAX_OUTLINE_PX:
        lengths = {index: sum(map(_outline_px, one)) for index, one in own.items()}
    total = 0.0
    for index, length in lengths.items():
        if len(own[index]) > MAX_PARTS:
            owners[index] = Rejected("too_complex", f"more than {MAX_PARTS:,} polygons")
        elif length > MAX_OUTLINE_PX:
            owners[index] = Rejected("too_complex", f"an outline of more than {MAX_OUTLINE_PX:,} pixels")
        elif total + length > MAX_OUTLINES_PX:
            owners[index] = Rejected("too_complex", f"outlines of more than {MAX_OUTLINES_PX:,} pixels")
        else:
            total += length


def _most_outline_px(part: list[float]) -> float:
    """Steps that no polygon of as many points takes that lies where this one does."""
    return len(part) // 2 * (max(part) - min(part) + 1)


def _outline_px(part: list[float]) -> int:
    """Steps that pycocotools takes around a polygon."""
    points = np.array(part, np.float64).reshape(-1, 2)
    return int(np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum())


def _coordinates_sound(parts: list[list[Any]], height: int, width: int) -> bool:
    """All are finite numbers within one picture size of the picture: pycocotools walks every pixel of an edge.

    The built-in functions take a third of the time of an array for the few numbers of a polygon, and refuse anything
    that is no number. A NaN hides from min and max, but not from the sum.
    """
    side = max(height, width)
    try:
        return all(min(part) >= -side and max(part) <= 2 * side and isfinite(sum(part)) for part in parts)
    except (TypeError, OverflowError):
        return False


def _text(rle: dict[str, Any]) -> Mask:
    return Mask(size=list(rle["size"]), counts=rle["counts"].decode("ascii"))


def areas(masks: Sequence[Mask]) -> npt.NDArray[np.int64]:
    """Set pixels of sound masks, (N,)."""
    out = np.zeros(len(masks), np.int64)
    for start in range(0, len(masks), _AREA_BATCH):
        part = slice(start, start + _AREA_BATCH)
        out[part] = coco.area(list(masks[part]))
    return out


def tight_boxes(masks: Sequence[Mask]) -> Boxes:
    """Tight xyxy boxes of sound masks, (N, 4); an empty mask gives zeros."""
    found: Boxes = coco.toBbox(list(masks)).astype(np.float32) if masks else np.zeros((0, 4), np.float32)
    found[:, 2:] += found[:, :2]
    return found


def iou(a: Sequence[Mask], b: Sequence[Mask]) -> npt.NDArray[np.float64]:
    """Intersection over union of every pair of sound masks of one size, (N, M)."""
    if not a or not b:
        return np.zeros((len(a), len(b)))
    return np.asarray(coco.iou(list(a), list(b), [0] * len(b)))


def check(masks: Sequence[Mask]) -> list[str | None]:
    """What is wrong with each mask, or None: for masks that come from a file rather than from `read`."""
    _, problems = runs.parse([mask["counts"] for mask in masks], [mask["size"] for mask in masks] or np.zeros((0, 2)))
    return problems


def decode(mask: Mask) -> Pixels:
    """A mask as pixels: (h, w) uint8 of 0 and 1.

    Raises:
        Rejected: `bad_mask`.
    """
    height, width = mask["size"]
    return decode_box(mask, (0, 0, width, height))


def decode_box(mask: Mask, box: tuple[int, int, int, int]) -> Pixels:
    """The part of a mask inside an integer box, without decoding the columns left and right of it.

    Args:
        mask: checked; raises Rejected otherwise.
        box: (x0, y0, x1, y1) pixels inside the mask.

    Returns:
        (y1 - y0, x1 - x0) uint8 of 0 and 1.
    """
    (pixels,) = decode_boxes([mask], [box])
    return pixels


def decode_boxes(masks: Sequence[Mask], inner: Sequence[tuple[int, int, int, int]]) -> list[Pixels]:
    """As `decode_box` for a box in each of many masks; reading their runs at once is a third of the time."""
    if not masks:
        return []
    parsed, problems = runs.parse([mask["counts"] for mask in masks], [mask["size"] for mask in masks])
    for problem in problems:
        if problem is not None:
            raise Rejected("bad_mask", problem)
    return [
        _decode_runs(parsed.one(index).reshape(-1), mask["size"][0], box)
        for index, (mask, box) in enumerate(zip(masks, inner, strict=True))
    ]


def _decode_runs(lengths: runs.Ints, height: int, box: tuple[int, int, int, int]) -> Pixels:
    x0, y0, x1, y1 = box
    ends = np.clip(np.cumsum(lengths), x0 * height, x1 * height)
    inside = np.diff(ends, prepend=x0 * height)
    values = np.zeros(len(inside), np.uint8)
    values[1::2] = 1
    band = np.repeat(values, inside).reshape(x1 - x0, height)
    return np.ascontiguousarray(band[:, y0:y1].T)


def encode(pixels: npt.NDArray[Any]) -> Mask:
    """(h, w) pixels, non-zero where set, to a mask."""
    height, width = pixels.shape
    return encode_box(pixels, (0, 0, width, height), height, width)


def encode_box(pixels: npt.NDArray[Any], box: tuple[int, int, int, int], height: int, width: int) -> Mask:
    """Pixels inside a box to a mask of the whole picture, without making the picture.

    Args:
        pixels: (y1 - y0, x1 - x0), non-zero where set.
        box: (x0, y0, x1, y1) pixels.
        height, width: of the picture.
    """
    x0, y0, x1, y1 = box
    band = np.zeros((x1 - x0, height), np.uint8)
    band[:, y0:y1] = pixels.T != 0
    flat = band.reshape(-1)
    turns = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    if len(flat) and flat[0]:
        turns = np.concatenate([[0], turns])
    edges = np.concatenate([[0], turns + x0 * height, [height * width]])
    if len(turns) % 2:  # set to the end of the band: the band's end is a turn, unless it ends the picture
        edges = np.concatenate([edges[:-1], [x1 * height], edges[-1:]]) if x1 < width else edges
    return Mask(size=[height, width], counts=runs.write(np.diff(edges)))


def crop(mask: Mask, box: tuple[int, int, int, int]) -> Mask:
    """The part of a mask inside an integer box, as a mask of the box's size."""
    return encode(decode_box(mask, box))


def resize(mask: Mask, height: int, width: int) -> Mask:
    """A mask in a picture resized to (height, width): a pixel is set where at least half of it was."""
    old_height, old_width = mask["size"]
    (x0, y0, x1, y1) = _outer_box(mask)
    if x1 == x0:
        return encode(np.zeros((height, width), np.uint8))
    scale_x, scale_y = width / old_width, height / old_height
    target = boxes.pad((x0 * scale_x, y0 * scale_y, x1 * scale_x, y1 * scale_y), width, height)
    # the part of the old picture that the target box covers, so that pixel centres fall where they belong
    part = (target[0] / scale_x, target[1] / scale_y, target[2] / scale_x, target[3] / scale_y)
    source = boxes.pad(part, old_width, old_height)
    pixels = decode_box(mask, source).astype(np.float32)
    size = (target[2] - target[0], target[3] - target[1])
    to_source = np.array(
        [
            [1 / scale_x, 0, part[0] - source[0] + 0.5 / scale_x - 0.5],
            [0, 1 / scale_y, part[1] - source[1] + 0.5 / scale_y - 0.5],
        ]
    )
    if scale_x < 1 or scale_y < 1:
        # area averaging; the part and the target cover the same ground up to a fraction of a pixel
        covered = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    else:
        covered = cv2.warpAffine(
            pixels, to_source, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
        )
    return encode_box(covered >= 0.5, target, height, width)


def orient(mask: Mask, orientation: int) -> Mask:
    """Turn a mask of the stored picture into the upright picture (EXIF orientation 1..8)."""
    return mask if orientation == 1 else encode(orient_pixels(decode(mask), orientation))


def orient_pixels(pixels: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Turn stored pixels (h, w, ...) upright; EXIF orientation 1..8. The result is a view."""
    if orientation in (2, 3, 7, 8):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 6, 7):
        pixels = pixels[::-1]
    return pixels.swapaxes(0, 1) if orientation >= 5 else pixels


def _outer_box(mask: Mask) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = (int(edge) for edge in tight_boxes([mask])[0])
    return x0, y0, x1, y1
