"""What stays behind when a dataset is made of others, as workers are told of it: by unit, without the ids of all.

work/<how>/<number of the source>/
  <reason>.bin    hashes of the ids of pictures that stay behind for a reason, sorted, uint64 little endian
  samples.bin     of samples
  names.json      clusters that get other names, videos of which nothing is left, groups that stay behind
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from refloom.schemas import strict
from refloom.schemas.dataset import STAGES, WORK, Dataset
from refloom.schemas.ids import image_of
from refloom.schemas.storage import Folder
from refloom.sharing.publish.options import Publish
from refloom.sharing.publish.redaction import TAKEN_DOWN, Redaction
from refloom.sharing.publish.rows import hash_ids
from refloom.sharing.publish.takedown import Takedown

Hashes = npt.NDArray[np.uint64]
_NONE: Hashes = np.empty(0, np.uint64)
_WITH_MEMBERS = ("source_groups", "matches", "groups")


@dataclass(slots=True)
class Leaving:
    """What of one source stays behind.

    Attributes:
        word: the usual reason, a word of the ledger.
        images: reason to the ids of pictures.
        samples: ids that stay behind though some of their pictures do not.
        groups: ids of groups of `matches` and `groups` that stay behind, whatever is left of them.
        clusters: id of a cluster of `splits` to its new id.
        videos: ids of videos of which nothing is left.
    """

    word: str
    images: dict[str, set[str]] = field(default_factory=dict)
    samples: set[str] = field(default_factory=set)
    groups: set[str] = field(default_factory=set)
    clusters: dict[str, str] = field(default_factory=dict)
    videos: set[str] = field(default_factory=set)

    @property
    def every(self) -> set[str]:
        """Ids of all pictures that stay behind."""
        return set().union(*self.images.values())

    def save(self, folder: Folder, how: str, number: int) -> None:
        """Write it where workers find it."""
        place = f"{WORK}/{how}/{number}"
        for reason, ids in self.images.items():
            folder.write(f"{place}/{reason}.bin", _sorted(ids).astype("<u8").tobytes())
        folder.write(f"{place}/samples.bin", _sorted(self.samples).astype("<u8").tobytes())
        names = {"clusters": self.clusters, "videos": sorted(self.videos), "groups": sorted(self.groups)}
        names |= {"word": self.word, "reasons": sorted(self.images)}
        folder.write(f"{place}/names.json", strict.dumps(names, sort_keys=True).encode())


class LeavingBehind:
    """What of one source stays behind, as a worker asks for it."""

    def __init__(self, folder: Folder, how: str, number: int) -> None:
        """Read what `Leaving.save` has written."""
        place = f"{WORK}/{how}/{number}"
        names = strict.object_in(folder.read(f"{place}/names.json"))
        self._word: str = names["word"]
        self._clusters: dict[str, str] = names["clusters"]
        self._videos, self._groups = frozenset(names["videos"]), frozenset(names["groups"])
        # what was taken down is so whatever else is said of it
        reasons = sorted(names["reasons"], key=lambda reason: reason != TAKEN_DOWN)
        self._images = {reason: _read(folder, f"{place}/{reason}.bin") for reason in reasons}
        self._samples = _read(folder, f"{place}/samples.bin")

    def of(self, dataset: Dataset, unit: str) -> Redaction:
        """What of one unit stays behind, and of what its rows name in others.

        Args:
            dataset: the source.
            unit: of it.
        """
        names = _named(dataset, unit)
        hashes, gone, reasons = hash_ids(names), set[str](), dict[str, str]()
        for reason, known in self._images.items():
            for at in np.flatnonzero(_among(hashes, known)).tolist():
                if names[at] not in gone:
                    gone.add(names[at])
                    reasons[names[at]] = reason
        taken = Takedown(
            ids=len(gone) + 1,
            images=frozenset(gone),
            groups=self._groups,
            samples=frozenset(self._samples_of(dataset, unit)),
            clusters=self._clusters,
            videos=self._videos,
        )
        return Redaction(Publish(), taken, word=self._word, reasons=reasons)

    def _samples_of(self, dataset: Dataset, unit: str) -> Iterator[str]:
        """Samples and candidates of a unit that stay behind."""
        for table in ("samples", "choices") if len(self._samples) else ():
            names = dataset.read(table, ["sample_id"], unit=unit)["sample_id"].to_pylist()
            yield from (names[at] for at in np.flatnonzero(_among(hash_ids(names), self._samples)).tolist())


def _named(dataset: Dataset, unit: str) -> list[str]:
    """Pictures of a unit, and those that its groups, samples, copies and ledgers name."""
    found: dict[str, None] = dict.fromkeys(dataset.read("images", ["image_id"], unit=unit)["image_id"].to_pylist())

    def add(ids: list[str]) -> None:
        found.update(dict.fromkeys(map(image_of, ids)))

    for table in _WITH_MEMBERS:
        add(dataset.read(table, ["members"], unit=unit)["members"].combine_chunks().flatten().to_pylist())
    add(dataset.read("duplicates", ["of"], unit=unit)["of"].to_pylist())
    for batch in dataset.batches("samples", ["pictures.list.element.image_id"], unit=unit):
        add(batch.column("pictures").flatten().field("image_id").to_pylist())
    for stage in STAGES[1:]:
        if dataset.manifest(stage, unit) is not None:
            ids = dataset.ledger(stage, unit=unit)["item_id"]
            add(pc.replace_substring_regex(ids, "^(track|identity|look|folder)/", "").to_pylist())
    return list(found)


def _among(hashes: Hashes, known: Hashes) -> npt.NDArray[np.bool_]:
    """Which of N hashes are among sorted ones, booleans (N,)."""
    if not len(known):
        return np.zeros(len(hashes), np.bool_)
    places = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
    found: npt.NDArray[np.bool_] = known[places] == hashes
    return found


def _sorted(ids: set[str]) -> Hashes:
    return np.sort(hash_ids(list(ids))) if ids else _NONE


def _read(folder: Folder, path: str) -> Hashes:
    return np.frombuffer(folder.read(path), "<u8").astype(np.uint64)
