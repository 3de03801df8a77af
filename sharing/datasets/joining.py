"""Splits of several datasets joined anew, so that nothing that belongs together lies on both sides.

What belongs together is what the stage `split` says, and besides: pictures of the same bytes under other ids, and
whatever was one cluster in any of the datasets. The side of a cluster is drawn by its smallest id, as ever, so that
clusters that no other dataset touches stay where they were.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from refloom.curation.select.settings import Split
from refloom.curation.select.split import draw, read_links
from refloom.schemas import parquet, strict
from refloom.schemas.dataset import Dataset
from refloom.schemas.settings import build
from refloom.schemas.storage import Folder
from refloom.schemas.tables import TABLES
from refloom.sharing.datasets.overlap import Pictures
from refloom.sharing.datasets.transfer import Origin, splits_path

_LINKS = pa.schema({"images": pa.list_(pa.string())})


@dataclass(slots=True)
class Joined:
    """The splits of the merged dataset.

    Attributes:
        splits: image id to its split and cluster.
        changed: ids of pictures that change sides.
        moves: number of the dataset and unit to samples that change sides: split, and pictures that they lose for it.
    """

    splits: dict[str, tuple[str, str]]
    changed: set[str] = field(default_factory=set)
    moves: dict[tuple[int, str], dict[str, tuple[str, list[str]]]] = field(default_factory=dict)

    def save(self, folder: Folder, how: str, origins: Sequence[Origin], found: Sequence[Pictures]) -> None:
        """Write what workers need, a file a unit."""
        for origin, pictures in zip(origins, found, strict=True):
            for unit, names in pictures.units.items():
                value = {
                    "splits": {name: self.splits[name] for name in names},
                    "moves": self.moves.get((origin.number, unit), {}),
                }
                folder.write(splits_path(how, origin.unit(unit)), strict.dumps(value, sort_keys=True).encode())


def are_split(datasets: Sequence[Dataset]) -> bool:
    """Whether every unit of every dataset has its splits; else the stage is left to curation."""
    return all(set(dataset.units()) <= dataset.manifests("split").keys() for dataset in datasets)


def join(datasets: Sequence[Dataset], found: Sequence[Pictures]) -> Joined:
    """Draw the splits of all pictures anew, and say which samples change sides.

    Holds the ids of all pictures, as the stage `split` does.

    Args:
        datasets: all of whose units are split, with the same settings.
        found: the pictures of each that come along.
    """
    manifest = next(one for dataset in datasets for one in dataset.manifests("split").values())
    config = build(Split, manifest.config["split"])
    rows = [row for pictures in found for row in pictures.rows]
    columns = {name: [row[name] for row in rows] for name in ("image_id", "source", "split", "video_id")}
    drawn = draw(pa.table(columns, _PICTURES), _links(datasets, rows), config).to_pydict()
    joined = Joined(
        {
            image_id: (split, cluster)
            for image_id, split, cluster in zip(drawn["image_id"], drawn["split"], drawn["cluster"], strict=True)
        }
    )
    for number, (dataset, pictures) in enumerate(zip(datasets, found, strict=True)):
        for unit, names in pictures.units.items():
            own = set(names)
            before = dataset.read("splits", ["image_id", "split"], unit=unit).to_pylist()
            joined.changed.update(
                row["image_id"]
                for row in before
                if row["image_id"] in own and joined.splits[row["image_id"]][0] != row["split"]
            )
        if joined.changed:
            _move(number, dataset, pictures, joined)
    return joined


_PICTURES = pa.schema({"image_id": pa.string(), "source": pa.string(), "split": pa.string(), "video_id": pa.string()})


def _links(datasets: Sequence[Dataset], rows: Sequence[dict[str, str]]) -> Iterator[pa.Table]:
    """Lists of pictures that must stay together."""
    for dataset in datasets:
        yield read_links(dataset, dataset.units())
        clusters: dict[str, list[str]] = defaultdict(list)
        for batch in dataset.batches("splits", ["image_id", "cluster"]):
            for image_id, cluster in zip(*(batch.column(name).to_pylist() for name in batch.schema.names), strict=True):
                clusters[cluster].append(image_id)
        yield _table(clusters)
    twins: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        twins[row["sha256"]].append(row["image_id"])
    yield _table(twins)


def _table(lists: dict[str, list[str]]) -> pa.Table:
    several = [names for names in lists.values() if len(names) > 1]
    return pa.table({"images": pa.array(several, pa.list_(pa.string()))}, _LINKS)


def _move(number: int, dataset: Dataset, pictures: Pictures, joined: Joined) -> None:
    """Samples of one dataset that change sides; one that would show both loses the pictures of the other."""
    away = pictures.twice | pictures.taken_down
    for unit in pictures.units:
        manifest = dataset.manifest("compose", unit)
        moves: dict[str, tuple[str, list[str]]] = {}
        for directory in manifest.tables if manifest is not None else ():
            if manifest is None or not directory.startswith("samples/"):
                continue
            columns = ["sample_id", "pictures.list.element.image_id"]
            rows = parquet.read(dataset.folder, manifest.files_of(directory), TABLES["samples"].schema, columns)
            for row in rows.to_pylist():
                names = [one["image_id"] for one in row["pictures"]]
                names = [name for name in names if name in joined.splits and name not in away]
                if (move := _moved(directory.partition("/")[2], names, joined)) is not None:
                    moves[row["sample_id"]] = move
        if moves:
            joined.moves[number, unit] = moves


def _moved(side: str, names: list[str], joined: Joined) -> tuple[str, list[str]] | None:
    """Where a sample goes, and which of its pictures it loses; None where it stays as it is."""
    sides = {joined.splits[name][0] for name in names}
    if sides <= {side}:
        return None
    split = side if side in sides else joined.splits[names[0]][0]
    return split, [name for name in names if joined.splits[name][0] != split]
