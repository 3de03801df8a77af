"""Look groups: objects of different pictures that show one thing, found by their image embeddings.

Cosines lie between the model's `similar` and `max_cosine`: less is another thing, more is the same picture again and
teaches copy-paste. Objects are joined by average linkage; two of one picture or one video are never in one group (a
track is a group of its own), nor two of different classes where both are named. The group is checked for outliers and
limited in size. Whether it says more than the source does is asked in `matching`.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from refloom.curation.group.spread import spread
from refloom.curation.neighbours.clusters import mean_link, thinned, within_sigma
from refloom.curation.neighbours.pairs import Floats, Pairs
from refloom.curation.neighbours.plan import EXACT_BELOW, NEAR_CELLS
from refloom.curation.neighbours.search import codes_of
from refloom.curation.neighbours.vectors import matrix
from refloom.curation.objects import float_array, read_objects
from refloom.schemas.dataset import Dataset

MOST_NEIGHBOURS = 64
"""Pairs of one object that are kept, the strongest."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """Groups of objects that look the same.

    Attributes:
        without: classes whose members a look cannot tell apart. With EfficientNet-Lite0 all ten wrong groups among 275
            objects of COCO and DAVIS were of persons, whom `identities` groups by their faces.
        strictness: where between the embedding model's `similar` (0) and `near_copy` (1) two are one thing; `similar`
            was measured on photographs. Drawn toys that share shapes and differ in paint, as those of `refloom
            sample-data`, need 0.55.
        min_cosine: of one thing, instead.
        min_side_px: shorter side of the box; what the embedder sees enlarged to its 224 px twice and more looks like
            much else.
        cut_out_margin: what a cut-out needs more than that, two whole photographs do not. Things of one class are
            common on pictures that show many, and two of them are as near to each other as two photographs of one
            subject: of 265 objects that show 8 subjects and 217 other things no pair is wrong with 0.1 or more.
        max_cosine: from here on two are near-copies and the lesser goes; null takes the model's own `near_copy`. Higher
            by default, because copies are dedup's work: what it has left by its look at pixels are two photographs,
            and those of one sitting are the pairs that one wants.
        max_sigma: members this much less like the others than is usual in the group go; PhotoMaker 8.
        min_members: fewer make no group.
        max_members: the best by quality stay.
        exact_below: of the neighbour search; see `neighbours.plan`.
        near_cells: of the neighbour search; more than its default, because the bound is low: of pairs at 0.65 and more
            among 200,000 random directions 32 cells find 0.962, 64 find 0.986 and 96 find 0.994.
    """

    without: tuple[str, ...] = ("person",)
    strictness: float = 0.0
    min_cosine: float | None = None
    min_side_px: float = 128.0
    cut_out_margin: float = 0.15
    max_cosine: float | None = 0.99
    max_sigma: float = 8.0
    min_members: int = 2
    max_members: int = 30
    near_cells: int = 3 * NEAR_CELLS
    exact_below: int = EXACT_BELOW

    def __post_init__(self) -> None:
        if self.min_members < 2 or self.max_members < self.min_members:
            raise ValueError("min_members is 2 or more, and max_members no less")
        if not 0 <= self.strictness < 1:
            raise ValueError(f"strictness lies between 0 and 1, not {self.strictness}")
        if self.cut_out_margin < 0:
            raise ValueError(f"cut_out_margin is 0 or more, not {self.cut_out_margin}")

    def lower(self, similar: float, near_copy: float) -> float:
        """The cosine from which two objects are one thing, given a model's thresholds."""
        return similar + self.strictness * (near_copy - similar) if self.min_cosine is None else self.min_cosine

    def upper(self, near_copy: float) -> float:
        """The cosine from which two objects are near-copies, given a model's threshold."""
        return near_copy if self.max_cosine is None else self.max_cosine


@dataclass(frozen=True, slots=True, eq=False)
class Sights:
    """Columns of N kept objects with embeddings.

    Attributes:
        ids: object ids.
        images: image ids.
        videos: of frames, else None.
        categories: the source's class, or None.
        cut_outs: (N,) whether it is a part of its picture, not the whole.
        sides: (N,) shorter side of the box, pixels.
        quality: (N,) NaN where there is none.
        areas: (N,) pixels of the mask, NaN where there is none.
        vectors: (N, D) float32, unit length.
    """

    ids: list[str]
    images: list[str]
    videos: list[str | None]
    categories: list[str | None]
    cut_outs: npt.NDArray[np.bool_]
    sides: npt.NDArray[np.float64]
    quality: npt.NDArray[np.float64]
    areas: npt.NDArray[np.float64]
    vectors: Floats

    def take(self, rows: Sequence[int]) -> "Sights":
        """Some of them, in that order."""
        taken: dict[str, Any] = {}
        for field in fields(self):
            column = getattr(self, field.name)
            taken[field.name] = [column[row] for row in rows] if isinstance(column, list) else column[list(rows)]
        return Sights(**taken)

    def places(self) -> list[str]:
        """Where each was taken: its video or its picture. Two of one place are never in one group."""
        return [video or image for video, image in zip(self.videos, self.images, strict=True)]

    def kinds(self) -> list[str | None]:
        """Their classes as sources agree on them."""
        return [_word(category) for category in self.categories]


def usable(objects: Sights, config: Looks) -> list[int]:
    """Those of a class that a look can tell apart, and large enough."""
    without = {_word(name) for name in config.without}
    large = objects.sides >= config.min_side_px
    return [row for row, kind in enumerate(objects.kinds()) if large[row] and (kind is None or kind not in without)]


def joined(objects: Sights, pairs: Pairs, config: Looks, lower: float, upper: float) -> list[Row]:
    """The groups of objects, by id; connected parts of the pairs can be given one by one.

    Args:
        objects: usable ones, by id.
        pairs: of objects, with a cosine between the bounds.
        config: settings.
        lower, upper: bounds of one thing.
    """
    places = [frozenset((code,)) for code in codes_of(objects.places()).tolist()]
    cut_out = objects.cut_outs[pairs.i] | objects.cut_outs[pairs.j]
    pairs = pairs.where(pairs.cosine >= np.where(cut_out, lower + config.cut_out_margin, -1))
    clusters = mean_link(objects.vectors, pairs, lower, places, codes_of(objects.kinds()))
    rows = [_group(objects, cluster, config, upper) for cluster in clusters]
    return sorted((row for row in rows if row is not None), key=lambda row: str(row["group_id"]))


def _word(category: str | None) -> str | None:
    """A class as sources agree on it: `giant_panda` is `giant panda`."""
    return " ".join(category.lower().replace("_", " ").replace("-", " ").split()) or None if category else None


def _group(objects: Sights, found: list[int], config: Looks, upper: float) -> Row | None:
    inside = within_sigma(objects.vectors[found], config.max_sigma)
    left = [row for row, stays in zip(found, inside, strict=True) if stays]
    left.sort(key=lambda row: (-np.nan_to_num(objects.quality[row], nan=-1.0), objects.ids[row]))
    stay = thinned(objects.vectors[left], range(len(left)), upper, config.max_members)
    chosen = sorted((left[place] for place in stay), key=objects.ids.__getitem__)
    if len(chosen) < config.min_members:
        return None
    members = [objects.ids[row] for row in chosen]
    return {
        "group_id": f"look/{members[0]}",
        "kind": "look",
        "members": members,
        "video_id": None,
        "frame_gap": None,
        **asdict(spread(objects.vectors[chosen], objects.areas[chosen])),
    }


def read_columns(dataset: Dataset, units: Sequence[str]) -> Sights:
    """The kept objects of some units that hold no face, without vectors."""
    columns: dict[str, list[Any]] = defaultdict(list)
    for unit in units:
        verdicts = dataset.read("selection", ["object_id", "verdict"], unit=unit).to_pylist()
        kept = {row["object_id"] for row in verdicts if row["verdict"] == "keep"}
        kept -= set(
            dataset.read("faces", ["object_id"], unit=unit)["object_id"].to_pylist()
        )  # `identities` groups these
        images = dataset.read("images", ["image_id", "video_id"], unit=unit).to_pylist()
        videos = {row["image_id"]: row["video_id"] for row in images}
        scores = dataset.read("object_scores", ["object_id", "quality"], unit=unit)
        quality = dict(zip(scores["object_id"].to_pylist(), float_array(scores["quality"]), strict=True))
        objects = read_objects(dataset, unit, ["object_id", "image_id", "category", "area", "kind", "box"])
        objects = objects.filter(np.array([name in kept for name in objects["object_id"].to_pylist()], bool))
        names, on = objects["object_id"].to_pylist(), objects["image_id"].to_pylist()
        columns["ids"] += names
        columns["images"] += on
        columns["videos"] += [videos[image] for image in on]
        columns["categories"] += objects["category"].to_pylist()
        edges = matrix(objects["box"]).reshape(-1, 4)
        columns["sides"] += np.minimum(edges[:, 2] - edges[:, 0], edges[:, 3] - edges[:, 1]).tolist()
        columns["cut_outs"] += [kind != "whole" for kind in objects["kind"].to_pylist()]
        columns["quality"] += [quality.get(name, np.nan) for name in names]
        made = dataset.read("masks", ["object_id", "area"], unit=unit)
        areas = dict(zip(made["object_id"].to_pylist(), float_array(made["area"]).tolist(), strict=True))
        given = float_array(objects["area"]).tolist()
        columns["areas"] += [areas.get(name, area) for name, area in zip(names, given, strict=True)]
    count = len(columns["ids"])
    return Sights(
        columns["ids"],
        columns["images"],
        columns["videos"],
        columns["categories"],
        np.array(columns["cut_outs"], bool),
        np.array(columns["sides"], np.float64),
        np.array(columns["quality"], np.float64),
        np.array(columns["areas"], np.float64),
        np.zeros((count, 0), np.float32),
    )
