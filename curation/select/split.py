"""Train and validation: pictures of one video, person or subject stay together, and growing a dataset moves nothing.

Looks do not tie pictures: many things look alike, and over enough pictures groups by looks join nearly all of them, so
that one side would get everything. A group by looks that lies on both sides is cut when its sample is composed.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import pyarrow as pa

from refloom.curation.select.settings import Split
from refloom.schemas.dataset import Dataset
from refloom.schemas.fingerprint import fraction_of
from refloom.schemas.ids import image_of
from refloom.schemas.unit import UnitWriter

VERSION = 3


class Clusters:
    """Union-find over image ids; a cluster is called by its smallest id."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def add(self, image: str) -> None:
        """A picture of its own, until it is joined."""
        self._parent.setdefault(image, image)

    def join(self, images: Iterable[str]) -> None:
        """Pictures that must stay together; those that were never added are ignored."""
        roots = [self.name(image) for image in images if image in self._parent]
        if roots:
            smallest = min(roots)
            for root in roots:
                self._parent[root] = smallest

    def name(self, image: str) -> str:
        """The smallest id of the cluster that holds a picture."""
        root = image
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[image] != root:
            self._parent[image], image = root, self._parent[image]
        return root


def split_of(cluster: str, config: Split) -> str:
    """`train` or `validation`, by the hash of the cluster's name."""
    return "validation" if fraction_of(f"{config.seed}/{cluster}") < config.validation_share else "train"


def assign(
    clusters: Clusters, source_splits: dict[str, str | None], sources: dict[str, str], config: Split
) -> dict[str, str]:
    """Image id to split.

    Args:
        clusters: with every picture.
        source_splits: image id to the source's own split.
        sources: image id to its source.
        config: settings.
    """
    with_train = {sources[image] for image, split in source_splits.items() if split == "train"}
    held_out = {
        clusters.name(image)
        for image, split in source_splits.items()
        if config.follow_source and split in ("val", "test") and sources[image] in with_train
    }
    splits = {}
    for image in source_splits:
        cluster = clusters.name(image)
        splits[image] = "validation" if cluster in held_out else split_of(cluster, config)
    return splits


_LEADS = pa.schema({"image_id": pa.string(), "unit": pa.string()})
_SPLITS = pa.schema({"image_id": pa.string(), "split": pa.string(), "cluster": pa.string()})


def draw(pictures: pa.Table, links: Iterable[pa.Table], config: Split) -> pa.Table:
    """Split and cluster of every picture, in order.

    Args:
        pictures: of `read_pictures`, of the whole dataset.
        links: of `read_links`; together of the whole dataset.
        config: settings.

    Holds ids only: those of ten million pictures take a few GB.
    """
    clusters = Clusters()
    images: list[str] = pictures["image_id"].to_pylist()
    first_of: dict[str, str] = {}
    for image, video in zip(images, pictures["video_id"].to_pylist(), strict=True):
        clusters.add(image)
        if video is not None:
            clusters.join((first_of.setdefault(video, image), image))
    for table in links:
        for linked in table["images"].to_pylist():
            clusters.join(linked)
    source_splits = dict(zip(images, pictures["split"].to_pylist(), strict=True))
    splits = assign(clusters, source_splits, dict(zip(images, pictures["source"].to_pylist(), strict=True)), config)
    return pa.table([images, [splits[image] for image in images], [clusters.name(image) for image in images]], _SPLITS)


def read_pictures(dataset: Dataset, units: Sequence[str]) -> pa.Table:
    """What is asked of the pictures of some units: image_id, source, split, video_id."""
    columns = ["image_id", "source", "split", "video_id"]
    return pa.concat_tables([dataset.read("images", columns, unit=unit) for unit in units])


def read_links(dataset: Dataset, units: Sequence[str]) -> pa.Table:
    """Pictures that must stay together, as lists `images`: of one subject of the source, of one person, or copies."""
    links: dict[tuple[str, ...], None] = {}
    for unit in units:
        for row in dataset.read("source_groups", ["members"], unit=unit).to_pylist():
            links[tuple(row["members"])] = None
        for row in dataset.read("groups", ["kind", "members"], unit=unit).to_pylist():
            if row["kind"] == "look":
                continue
            links[tuple(dict.fromkeys(image_of(member) for member in row["members"]))] = None
        for row in dataset.read("duplicates", ["id", "of"], unit=unit).to_pylist():
            links[image_of(row["id"]), image_of(row["of"])] = None
    return pa.table({"images": pa.array(list(links), pa.list_(pa.string()))})


def read_leads(dataset: Dataset, units: Sequence[str]) -> pa.Table:
    """Pictures with members of groups that go beyond a unit, and the `unit` where each of these groups begins."""
    pairs = {
        (image_of(member), unit)
        for unit in units
        for row in dataset.read("groups", ["members", "units"], unit=unit).to_pylist()
        if row["units"]
        for member in row["members"]
    }
    return pa.table([list(column) for column in zip(*sorted(pairs), strict=True)] or [[], []], _LEADS)


def leads_of(pictures: pa.Table, leads: Iterable[pa.Table]) -> pa.Array:
    """Of every picture, in order, the units whose groups have members on it; null for none.

    Args:
        pictures: of `read_pictures`.
        leads: of `read_leads`; together of the whole dataset.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for table in leads:
        for image_id, unit in zip(table["image_id"].to_pylist(), table["unit"].to_pylist(), strict=True):
            found[image_id].add(unit)
    listed = [sorted(found[name]) if name in found else None for name in pictures["image_id"].to_pylist()]
    return pa.array(listed, pa.list_(pa.string()))


def write_splits(rows: pa.Table, out: UnitWriter, unit: str) -> None:
    """The rows of one unit; of the units that groups on its pictures begin in, the others."""
    out.expect("image", rows.num_rows)
    if rows.num_rows:
        columns = {name: rows[name].to_pylist() for name in rows.column_names}
        others = ([name for name in names or () if name != unit] for names in columns["group_units"])
        out.add_columns("splits", columns | {"group_units": [names or None for names in others]})
    out.keep("image", rows.num_rows)
