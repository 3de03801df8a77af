"""The SA-1B tree: `sa1b/sa_000000.tar` and so on, each with pairs of `sa_<id>.jpg` and `sa_<id>.json`.

Masks as SAM finds them: whole things, their parts, parts of those, areas of a pattern, pieces of ground and wall. No
classes, no captions, faces blurred; the sides of a box are max - min, one less than the pixels that it covers.
"""

import io
import tarfile
from collections.abc import Iterator
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt
import orjson

from refloom.ingest.sampledata import backdrops, casting, segmentations
from refloom.ingest.sampledata.casting import Brief, Still
from refloom.ingest.sampledata.identities import Identities
from refloom.ingest.sampledata.scenes import NOBODY
from refloom.ingest.sampledata.segmentations import Visible
from refloom.ingest.sampledata.subjects import PATTERN_BIT
from refloom.schemas.storage import Folder

BRIEF = Brief(
    code=2,
    sizes=((1024, 768), (1024, 768), (1200, 800), (768, 1024), (1500, 1000)),
    fewest=3,
    most=7,
    view_share=0.15,
    real_share=0.5,
    blurred=True,
)
PER_TAR = 24
_FEWEST_MASKS, _MOST_MASKS = 8, 40
_LEAST_AREA = 0.001  # of the picture
_LEAST_REGION = 0.02
_MOST_PATTERN_AREAS = 2
_NEARLY_ALL = 0.93
_Rng = np.random.Generator
_Bools = npt.NDArray[np.bool_]


def write(out: Folder, seed: int, count: int, identities: Identities) -> int:
    """Write the tree.

    Args:
        out: folder of all trees.
        seed: of the whole.
        count: pictures.
        identities: takes who is where: of the masks of whole subjects.

    Returns:
        Number of tars.
    """
    starts = range(0, count, PER_TAR)
    for start in starts:
        with (
            out.create(f"sa1b/sa_{start // PER_TAR:06d}.tar") as file,
            tarfile.open(fileobj=cast(io.BytesIO, file), mode="w|", format=tarfile.USTAR_FORMAT) as tar,
        ):
            for index in range(start, min(start + PER_TAR, count)):
                still = casting.still(BRIEF, seed, index, held_out=False)
                number = index + 1
                record = _record(still, seed, number, identities)
                _add(tar, f"sa_{number}.jpg", still.jpeg)
                _add(tar, f"sa_{number}.json", orjson.dumps(record))
    return len(starts)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """A member without clock or user, so that the same pictures give the same tar."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o644
    tar.addfile(member, io.BytesIO(data))


def _record(still: Still, seed: int, number: int, identities: Identities) -> dict[str, Any]:
    height, width = still.picture.owner.shape
    rng = np.random.default_rng([seed, BRIEF.code, number, 1])
    found = list(_masks(still))
    if len(found) < _FEWEST_MASKS:
        found += _shades(still)
    found = sorted(found, key=lambda entry: -entry[0].area)[:_MOST_MASKS]
    annotations = []
    for position, (shown, subject) in enumerate(found):
        annotation = _annotation(shown, number * 1000 + position, rng)
        annotations.append(annotation)
        if subject is not None:
            identities.objects[f"sa1b/{number}#{annotation['id']}"] = subject
    image = {"image_id": number, "width": width, "height": height, "file_name": f"sa_{number}.jpg"}
    return {"image": image, "annotations": annotations}


def _annotation(shown: Visible, number: int, rng: _Rng) -> dict[str, Any]:
    x0, y0, x1, y1 = shown.box
    inside = np.flatnonzero(shown.pixels)
    row, column = divmod(int(inside[int(rng.integers(len(inside)))]), x1 - x0)
    stable = float(rng.uniform(0.92, 0.995))
    return {
        "bbox": [float(x0), float(y0), float(x1 - x0 - 1), float(y1 - y0 - 1)],
        "area": shown.area,
        "segmentation": segmentations.compressed(shown),
        "predicted_iou": min(1.02, stable - 0.02 + float(rng.normal(0, 0.02))),
        "point_coords": [[x0 + column + 0.5, y0 + row + 0.5]],
        "crop_box": [0.0, 0.0, float(shown.width), float(shown.height)],
        "id": number,
        "stability_score": stable,
    }


def _masks(still: Still) -> Iterator[tuple[Visible, int | None]]:
    """Everything that would be found in a picture, with the identity of whole subjects."""
    owner = still.picture.owner
    least = _LEAST_AREA * owner.size
    for index, subject in enumerate(still.picture.cast):
        whole = segmentations.visible(owner == index)
        if whole is None or whole.area < 2 * least:
            continue
        yield whole, subject.number
        x0, y0, x1, y1 = whole.box
        parts = still.picture.parts[y0:y1, x0:x1]
        for inside in _parts(parts, subject.parts, whole.pixels.view(bool)):
            if least <= np.count_nonzero(inside) <= _NEARLY_ALL * whole.area:
                part = _moved(inside, whole)
                if part is not None:
                    yield part, None
    for region in (0, backdrops.WALL, backdrops.FLOOR):
        where = (owner == NOBODY) & (still.backdrop.regions == region)
        shown = segmentations.visible(where)
        if shown is not None and shown.area >= _LEAST_REGION * owner.size:
            yield shown, None


def _shades(still: Still) -> list[tuple[Visible, int | None]]:
    """Pieces of the ground and walls of about one brightness, the largest first: for places with little in them."""
    grey = cv2.GaussianBlur(cv2.cvtColor(still.picture.pixels, cv2.COLOR_RGB2GRAY), (0, 0), 6)
    bare = still.picture.owner == NOBODY
    if not bare.any():
        bare = np.ones_like(bare)
    edges = np.quantile(grey[bare], (0.2, 0.4, 0.6, 0.8))
    levels = np.searchsorted(edges, grey)
    shown = [
        segmentations.visible(piece)
        for level in range(len(edges) + 1)
        for piece in _pieces(bare & (levels == level), _LEAST_AREA * grey.size)
    ]
    largest = sorted((one for one in shown if one is not None), key=lambda one: -one.area)
    return [(one, None) for one in largest[:_FEWEST_MASKS]]


def _parts(parts: npt.NDArray[np.uint8], names: tuple[str, ...], whole: _Bools) -> Iterator[_Bools]:
    """Each part with what lies on it, both ears together and one by one, and the largest areas of a pattern."""
    numbers = np.where(whole, parts & ~np.uint8(PATTERN_BIT), 0)
    present = set(np.unique(numbers).tolist()) - {0}
    groups = {frozenset([number]) for number in present}
    for name in names:
        bare = name.removesuffix(" left").removesuffix(" right")
        for stem in (name, bare):
            groups.add(
                frozenset(
                    number
                    for number, other in enumerate(names, 1)
                    if number in present and (other.startswith((stem, f"{stem}/")))
                )
            )
    for group in sorted(groups - {frozenset()}, key=sorted):
        yield np.isin(numbers, list(group))
    pattern = whole & ((parts & PATTERN_BIT) != 0)
    yield from list(_pieces(pattern, 1))[:_MOST_PATTERN_AREAS]


def _pieces(where: _Bools, least_px: float) -> Iterator[_Bools]:
    """Connected pieces of at least so many pixels, the largest first."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(where.view(np.uint8))
    areas = stats[1:, cv2.CC_STAT_AREA]
    for label in np.argsort(-areas, kind="stable").tolist():
        if areas[label] < least_px:
            return
        yield labels == label + 1


def _moved(inside: _Bools, whole: Visible) -> Visible | None:
    """A part of a whole's window, in the whole's picture."""
    found = segmentations.visible(inside)
    if found is None:
        return None
    x, y = whole.box[:2]
    x0, y0, x1, y1 = found.box
    return Visible((x0 + x, y0 + y, x1 + x, y1 + y), found.pixels, whole.height, whole.width)
