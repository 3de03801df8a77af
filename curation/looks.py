"""Look groups: objects of different pictures that show one thing, found by their image embeddings.

Cosines lie between the model's `similar` and `near_copy`: less is another thing, more is the same picture again and
teaches copy-paste. Objects are joined by average linkage; two of one picture or one video are never in one group (a
track is a group of its own), nor two of different classes where both are named. The group is checked for outliers and
limited in size. Groups whose pictures lie in one source group say nothing new and are left out.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from curation.neighbours.clusters import mean_link, thinned, within_sigma
from curation.neighbours.pairs import Floats
from curation.neighbours.plan import NEAR_CELLS
from curation.neighbours.search import Codes, cosine_pairs
from curation.neighbours.vectors import matrix
from curation.objects import float_array, read_objects
from curation.spread import spread
from schemas.dataset import Dataset

VERSION = 1
_MOST_NEIGHBOURS = 64

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """Groups of objects that look the same.

    Attributes:
        without: classes whose members a look cannot tell apart. With EfficientNet-Lite0 all ten wrong groups among 275
            objects of COCO and DAVIS were of persons, whom `identities` groups by their faces.
        strictness: where between the embedding model's `similar` (0) and `near_copy` (1) two are one thing. With
            EfficientNet-Lite0 on `refloom sample-data`, whose toys share shapes and differ in paint, pairs of one
            toy are 44 % of those in groups at 0, 78 % at 0.35, 96 % at 0.55; of pairs of DreamBooth photographs of one
            subject 72, 44 and 31 % remain, and none of two subjects comes in.
        min_cosine: of one thing, instead.
        max_cosine: from here on two are near-copies and the lesser goes; null takes the model's own `near_copy`.
        max_sigma: members this much less like the others than is usual in the group go; PhotoMaker 8.
        min_members: fewer make no group.
        max_members: the best by quality stay.
        near_cells: of the neighbour search; more than its default, because the bound is low: of pairs at 0.65 and more
            among 200,000 random directions 32 cells find 0.962, 64 find 0.986 and 96 find 0.994.
    """

    without: tuple[str, ...] = ("person",)
    strictness: float = 0.55
    min_cosine: float | None = None
    max_cosine: float | None = None
    max_sigma: float = 8.0
    min_members: int = 2
    max_members: int = 30
    near_cells: int = 3 * NEAR_CELLS

    def __post_init__(self) -> None:
        if self.min_members < 2 or self.max_members < self.min_members:
            raise ValueError("min_members is 2 or more, and max_members no less")
        if not 0 <= self.strictness < 1:
            raise ValueError(f"strictness lies between 0 and 1, not {self.strictness}")

    def lower(self, similar: float, near_copy: float) -> float:
        """The cosine from which two objects are one thing, given a model's thresholds."""
        return similar + self.strictness * (near_copy - similar) if self.min_cosine is None else self.min_cosine


@dataclass(frozen=True, slots=True, eq=False)
class Sights:
    """Columns of N kept objects with embeddings.

    Attributes:
        ids: object ids.
        images: image ids.
        videos: of frames, else None.
        categories: the source's class, or None.
        source_groups: that its picture is in.
        quality: (N,) NaN where there is none.
        areas: (N,) pixels of the mask, NaN where there is none.
        vectors: (N, D) float32, unit length.
    """

    ids: list[str]
    images: list[str]
    videos: list[str | None]
    categories: list[str | None]
    source_groups: list[frozenset[str]]
    quality: npt.NDArray[np.float64]
    areas: npt.NDArray[np.float64]
    vectors: Floats


def look_groups(objects: Sights, config: Looks, similar: float, near_copy: float) -> list[Row]:
    """Rows of `groups`, by id.

    Args:
        objects: in any order.
        config: settings.
        similar, near_copy: the embedding model's thresholds.
    """
    lower = config.lower(similar, near_copy)
    upper = config.max_cosine if config.max_cosine is not None else near_copy
    without = {_word(name) for name in config.without}
    usable = [
        row for row, category in enumerate(objects.categories) if category is None or _word(category) not in without
    ]
    order = sorted(usable, key=objects.ids.__getitem__)
    if len(order) < 2:
        return []
    vectors = objects.vectors[order]
    apart = _codes([objects.videos[row] or objects.images[row] for row in order])
    kinds = _codes([_word(objects.categories[row]) for row in order])
    pairs = cosine_pairs(
        [objects.ids[row] for row in order],
        vectors,
        lower,
        upper,
        codes=Codes(apart=apart, kinds=kinds),
        near_cells=config.near_cells,
        most=_MOST_NEIGHBOURS,
    )
    places = [frozenset((code,)) for code in apart.tolist()]
    rows = []
    for cluster in mean_link(vectors, pairs, lower, places, kinds):
        row = _group(objects, [order[place] for place in cluster], config, upper)
        if row is not None:
            rows.append(row)
    return sorted(rows, key=lambda row: str(row["group_id"]))


def _codes(words: list[str | None]) -> npt.NDArray[np.int64]:
    """Numbers for words, -1 for None."""
    numbers = {word: number for number, word in enumerate(sorted({word for word in words if word is not None}))}
    return np.array([-1 if word is None else numbers[word] for word in words], np.int64)


def _word(category: str | None) -> str | None:
    """A class as sources agree on it: `giant_panda` is `giant panda`."""
    return " ".join(category.lower().replace("_", " ").replace("-", " ").split()) or None if category else None


def _group(objects: Sights, found: list[int], config: Looks, upper: float) -> Row | None:
    inside = within_sigma(objects.vectors[found], config.max_sigma)
    left = [row for row, stays in zip(found, inside, strict=True) if stays]
    left.sort(key=lambda row: (-np.nan_to_num(objects.quality[row], nan=-1.0), objects.ids[row]))
    stay = thinned(objects.vectors[left], range(len(left)), upper, config.max_members)
    chosen = sorted((left[place] for place in stay), key=objects.ids.__getitem__)
    if len(chosen) < config.min_members or frozenset.intersection(*(objects.source_groups[row] for row in chosen)):
        return None
    measured = spread(objects.vectors[chosen], objects.areas[chosen])
    members = [objects.ids[row] for row in chosen]
    return {
        "group_id": f"look/{members[0]}",
        "kind": "look",
        "members": members,
        "video_id": None,
        "frame_gap": None,
        "min_similarity": measured.min_similarity,
        "mean_similarity": measured.mean_similarity,
        "max_similarity": measured.max_similarity,
        "area_ratio": measured.area_ratio,
    }


def read_sights(dataset: Dataset) -> Sights:
    """The kept objects of a dataset that have embeddings and hold no face; unit by unit."""
    columns: dict[str, list[Any]] = defaultdict(list)
    parts: list[Floats] = []
    groups: dict[str, set[str]] = defaultdict(set)
    for row in dataset.read("source_groups", ["group_id", "members"]).to_pylist():
        for member in row["members"]:
            groups[member].add(row["group_id"])
    for unit in dataset.units():
        verdicts = dataset.read("selection", ["object_id", "verdict"], unit=unit).to_pylist()
        kept = {row["object_id"] for row in verdicts if row["verdict"] == "keep"}
        kept -= set(
            dataset.read("faces", ["object_id"], unit=unit)["object_id"].to_pylist()
        )  # `identities` groups these
        table = dataset.read("embeddings", ["object_id", "image_id", "embedding"], unit=unit)
        chosen = np.array([name in kept for name in table["object_id"].to_pylist()], bool)
        if not chosen.any():
            continue
        table = table.filter(chosen)
        images = dataset.read("images", ["image_id", "video_id"], unit=unit).to_pylist()
        videos = {row["image_id"]: row["video_id"] for row in images}
        objects = read_objects(dataset, unit, ["object_id", "category", "area"])
        made = dataset.read("masks", ["object_id", "area"], unit=unit)
        category = dict(zip(objects["object_id"].to_pylist(), objects["category"].to_pylist(), strict=True))
        area = dict(zip(objects["object_id"].to_pylist(), float_array(objects["area"]), strict=True))
        area |= dict(zip(made["object_id"].to_pylist(), float_array(made["area"]), strict=True))
        scores = dataset.read("object_scores", ["object_id", "quality"], unit=unit)
        quality = dict(zip(scores["object_id"].to_pylist(), float_array(scores["quality"]), strict=True))
        names, on = table["object_id"].to_pylist(), table["image_id"].to_pylist()
        columns["ids"] += names
        columns["images"] += on
        columns["videos"] += [videos[image] for image in on]
        columns["categories"] += [category[name] for name in names]
        columns["source_groups"] += [frozenset(groups.get(image, ())) for image in on]
        columns["quality"] += [quality.get(name, np.nan) for name in names]
        columns["areas"] += [area[name] for name in names]
        parts.append(matrix(table["embedding"]))
    return Sights(
        columns["ids"],
        columns["images"],
        columns["videos"],
        columns["categories"],
        columns["source_groups"],
        np.array(columns["quality"], np.float64),
        np.array(columns["areas"], np.float64),
        np.concatenate(parts) if parts else np.zeros((0, 0), np.float32),
    )
