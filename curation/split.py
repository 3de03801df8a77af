"""Train and validation: pictures of one video or group stay together, and growing a dataset moves nothing."""

import hashlib
from collections.abc import Iterable

from curation.config import Split
from schemas.dataset import Dataset
from schemas.ids import image_of
from schemas.unit import UnitWriter

VERSION = 1


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
    digest = hashlib.sha256(f"{config.seed}/{cluster}".encode()).digest()
    return "validation" if int.from_bytes(digest[:8], "big") / 2**64 < config.validation_share else "train"


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


def split_dataset(dataset: Dataset, config: Split) -> dict[str, tuple[str, str]]:
    """Image id to (split, cluster) over the whole dataset.

    Reads ids only; ids of ten million pictures take a few GB, so this runs in one worker.
    """
    clusters = Clusters()
    source_splits: dict[str, str | None] = {}
    sources: dict[str, str] = {}
    videos: dict[str, str] = {}
    for unit in dataset.units():
        columns = ["image_id", "source", "split", "video_id"]
        for row in dataset.read("images", columns, unit=unit).to_pylist():
            clusters.add(row["image_id"])
            source_splits[row["image_id"]], sources[row["image_id"]] = row["split"], row["source"]
            if row["video_id"] is not None:
                clusters.join((videos.setdefault(row["video_id"], row["image_id"]), row["image_id"]))
    for unit in dataset.units():
        for row in dataset.read("source_groups", ["members"], unit=unit).to_pylist():
            clusters.join(row["members"])
        for row in dataset.read("groups", ["members"], unit=unit).to_pylist():
            clusters.join(image_of(member) for member in row["members"])
        for row in dataset.read("duplicates", ["id", "of"], unit=unit).to_pylist():
            clusters.join((image_of(row["id"]), image_of(row["of"])))
    splits = assign(clusters, source_splits, sources, config)
    return {image: (split, clusters.name(image)) for image, split in splits.items()}


def write_splits(dataset: Dataset, unit: str, splits: dict[str, tuple[str, str]], out: UnitWriter) -> None:
    """The rows of one unit."""
    images = dataset.read("images", ["image_id"], unit=unit)["image_id"].to_pylist()
    out.expect("image", len(images))
    for image in images:
        split, cluster = splits[image]
        out.add("splits", {"image_id": image, "split": split, "cluster": cluster})
        out.keep("image")
