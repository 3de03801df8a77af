"""What a subset is of: ids, conditions, a split, a share; and which pictures and samples of a dataset those are.

A criterion on pictures keeps them with all that is known of them, and of each sample and group what is left of it. A
criterion on samples keeps these whole, with their pictures. Several criteria keep what all of them keep.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused
from refloom.schemas.fingerprint import fraction_of, of_json
from refloom.schemas.ids import image_of
from refloom.schemas.ranges import SEED, SHARE, check
from refloom.schemas.tables import TABLES
from refloom.schemas.wording import quoted, some
from refloom.sharing.datasets.where import Where, parse
from refloom.sharing.publish.takedown import read

SPLITS = ("train", "validation")
_BY_SAMPLE = ("samples", "choices")
_BY_MEMBERS = ("source_groups", "matches", "groups")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What is asked for; everything where nothing is.

    Attributes:
        ids: of pictures or samples.
        where: conditions, see `refloom.sharing.datasets.where`.
        split: train or validation.
        share: of the samples, or of the pictures where there are no samples yet, drawn by hash of the id.
        seed: of that draw; a smaller share of the same seed is a part of a larger one.
    """

    ids: tuple[str, ...] = ()
    where: tuple[str, ...] = ()
    split: str | None = None
    share: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.split not in (None, *SPLITS):
            raise Refused(f"--split {self.split}: give {' or '.join(SPLITS)}, or none for both")
        check("share", self.share, SHARE)
        check("seed", self.seed, SEED)

    def to_json(self) -> dict[str, Any]:
        """As a lineage keeps it: ids by their number and hash."""
        asked: dict[str, Any] = {"where": list(self.where), "split": self.split, "share": self.share}
        if self.share is not None:
            asked["seed"] = self.seed
        if self.ids:
            asked["ids"] = {"number": len(self.ids), "sha256": of_json(sorted(set(self.ids)))}
        return {name: value for name, value in asked.items() if value not in (None, [])}


def ids_of(given: str | os.PathLike[str] | Sequence[str]) -> tuple[str, ...]:
    """Ids as they are given, or those of a file, one a line; a file is read as a takedown list is.

    Raises:
        Refused: the file cannot be read, or holds none.
    """
    if not isinstance(given, str | os.PathLike):
        return tuple(given)
    found = read(os.fspath(given), "the list of ids")
    if not found:
        raise Refused(f"{os.fspath(given)} holds no ids: give a text file, an id a line")
    return found


@dataclass(slots=True)
class Kept:
    """What of a dataset stays.

    Attributes:
        images: ids.
        samples: ids; of a sample that is here, what is left of it stays.
        by_samples: whether a criterion was on samples, so that others go though their pictures stay.
    """

    images: set[str]
    samples: set[str]
    by_samples: bool = False


@dataclass(slots=True)
class Held:
    """What a dataset holds, ids only: about 0.3 kB a picture.

    Attributes:
        videos: image id to its video, or None.
        samples: sample id to its pictures.
    """

    videos: dict[str, str | None] = field(default_factory=dict)
    samples: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, dataset: Dataset) -> "Held":
        """Read the ids of a dataset."""
        held = cls()
        for unit in dataset.units():
            rows = dataset.read("images", ["image_id", "video_id"], unit=unit)
            held.videos.update(zip(rows["image_id"].to_pylist(), rows["video_id"].to_pylist(), strict=True))
        for row in dataset.read("samples", ["sample_id", "pictures.list.element.image_id"]).to_pylist():
            held.samples[row["sample_id"]] = tuple(one["image_id"] for one in row["pictures"])
        return held


def choose(dataset: Dataset, choice: Choice, held: Held) -> Kept:
    """The pictures and samples that a choice keeps.

    Args:
        dataset: to choose from.
        choice: what is asked for.
        held: what it holds.

    Raises:
        Refused: an id names nothing, a table is not there yet, a condition cannot be read, or nothing is left.
    """
    conditions = [parse(text, dataset.schema) for text in choice.where]
    kept = Kept(set(held.videos), set(held.samples))
    if choice.ids:
        _keep_ids(dataset, choice.ids, held, kept)
    for condition in conditions:
        _keep_where(dataset, condition, held, kept)
    if choice.split is not None:
        _need(dataset, "splits", f"--split {choice.split}")
        rows = dataset.read("splits", ["image_id", "split"]).to_pylist()
        _keep_images(held, kept, {row["image_id"] for row in rows if row["split"] == choice.split})
    if choice.share is not None:
        if held.samples:
            _keep_samples(held, kept, {name for name in held.samples if drawn(name, choice.seed) < choice.share})
        else:
            names = held.videos.items()
            _keep_images(held, kept, {one for one, of in names if drawn(of or one, choice.seed) < choice.share})
    if not kept.images:
        raise Refused(
            f"no picture of {dataset.url} fulfils all that is asked for: nothing is left to make a dataset of"
        )
    return kept


def drawn(name: str, seed: int) -> float:
    """Where an id stands among all, from 0 to below 1: the same in every dataset that holds it."""
    return fraction_of(f"share/{seed}/{name}")


def _keep_images(held: Held, kept: Kept, images: set[str]) -> None:
    kept.images &= images
    kept.samples &= {name for name, pictures in held.samples.items() if not images.isdisjoint(pictures)}


def _keep_samples(held: Held, kept: Kept, samples: set[str]) -> None:
    kept.by_samples = True
    kept.samples &= samples
    kept.images &= {one for name in samples for one in held.samples[name]}


def _keep_ids(dataset: Dataset, ids: Iterable[str], held: Held, kept: Kept) -> None:
    images, samples, unknown = set(), set(), []
    for name in dict.fromkeys(ids):
        if name in held.videos:
            images.add(name)
        elif name in held.samples:
            samples.add(name)
        else:
            unknown.append(name)
    if unknown:
        raise Refused(
            f"{dataset.url} holds no picture and no sample of the name of {some(unknown)}: `refloom browse` and "
            "`refloom inspect` show what ids look like; nothing was made"
        )
    if samples:
        of_images = {name for name, pictures in held.samples.items() if not images.isdisjoint(pictures)}
        kept.by_samples = True
        kept.samples &= samples | of_images
        kept.images &= images.union(*(held.samples[name] for name in samples))
    else:
        _keep_images(held, kept, images)


def _keep_where(dataset: Dataset, condition: Where, held: Held, kept: Kept) -> None:
    _need(dataset, condition.table, f"--where {condition.text!r}")
    found: set[str] = set()
    more = ("members",) if condition.table in _BY_MEMBERS else ()
    for batch in dataset.batches(condition.table, list(dict.fromkeys((*condition.columns, *more)))):
        rows = pa.Table.from_batches([batch])
        rows = rows.filter(condition.holds(rows))
        if more:
            found.update(image_of(member) for members in rows["members"].to_pylist() for member in members)
        else:
            names = rows[TABLES[condition.table].key].to_pylist()
            found.update(names if condition.table in _BY_SAMPLE else map(image_of, names))
    if condition.table in _BY_SAMPLE:
        found &= held.samples.keys()
        _keep_samples(held, kept, held.samples.keys() - found if condition.negated else found)
    else:
        _keep_images(held, kept, held.videos.keys() - found if condition.negated else found)


def _need(dataset: Dataset, table: str, asked: str) -> None:
    stage = TABLES[table].stage
    if not dataset.manifests(stage):
        raise Refused(
            f"{asked}: {dataset.url} has no {table} yet, which {stage} makes: run "
            f"`refloom curate {quoted(dataset.url)}` first, or ask for something else"
        )
