"""The bytes of single pictures: which ones belong to a row, and where a publication gets them from."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import JobStopped
from refloom.schemas.metadata.stripping import strip
from refloom.sharing.publish.addresses import PICTURES_FIELD, WITHHELD, Places
from refloom.sharing.publish.rows import Hashes, hash_ids, read_checked

_SMALLER = "!"
"""Behind the id of a picture that samples hold re-encoded; no id has it there, for files have extensions or not."""


def smaller_id(image_id: str) -> str:
    """How the re-encoded form of a picture is called."""
    return image_id + _SMALLER


class StoredPictures:
    """Pictures of a dataset, from the files that hold them."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self.nulls = 0

    def fill(self, address: dict[str, Any], into: memoryview) -> bool:
        """Read a picture, without its metadata where it is published so; a linked one has to be what was ingested.

        Raises:
            JobStopped: the file is gone, shorter, or another one.
        """
        if address["place"] == WITHHELD:
            return False
        if address["published_sha256"] is not None:
            made = strip(read_checked(self._places, address))
            if len(made) != len(into) or hashlib.sha256(made).hexdigest() != address["published_sha256"]:
                raise JobStopped(
                    f"{self._places.name(address['place'])} has changed since it was read: run the same command again"
                )
            into[:] = made
            return True
        self._places.fill(address["place"], address["offset"], into)
        if address["sha256"] is not None and hashlib.sha256(into).hexdigest() != address["sha256"]:
            raise JobStopped(
                f"{self._places.name(address['place'])} is not what was ingested: "
                "put the old file back, or ingest again"
            )
        return True


@dataclass(frozen=True, slots=True)
class Digests:
    """sha256 of the source's bytes of every picture, by the hash of its id.

    Attributes:
        hashes: (N,) sorted.
        digests: (N, 32) uint8.
    """

    hashes: Hashes
    digests: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, dataset: Dataset) -> "Digests":
        """Of all pictures of a dataset."""
        hashes, digests = [np.empty(0, np.uint64)], [np.empty((0, 32), np.uint8)]
        for unit in dataset.units():
            rows = dataset.read("images", ["image_id", "sha256"], unit=unit)
            hashes.append(hash_ids(rows["image_id"].to_pylist()))
            raw = bytes.fromhex("".join(rows["sha256"].to_pylist()))
            digests.append(np.frombuffer(raw, np.uint8).reshape(-1, 32))
        together = np.concatenate(hashes)
        order = np.argsort(together, kind="stable")
        return cls(together[order], np.concatenate(digests)[order])

    def is_of(self, image_ids: list[str], sha256: list[str]) -> list[bool]:
        """Whether each of N digests is that of the source's bytes of the picture."""
        wanted = hash_ids(image_ids)
        places = np.minimum(np.searchsorted(self.hashes, wanted), max(len(self.hashes) - 1, 0))
        return [
            bool(len(self.hashes)) and self.hashes[place] == key and self.digests[place].tobytes() == bytes.fromhex(own)
            for place, key, own in zip(places, wanted, sha256, strict=True)
        ]


def records(table: str, batch: pa.RecordBatch, digests: Digests) -> list[dict[str, Any]]:
    """Rows of `pictures` for the pictures of a batch with hashed addresses.

    Args:
        table: images, faces or samples; others give none.
        batch: of `spill_schema(table)`.
        digests: tell a re-encoded picture from the source's.
    """
    if table not in ("images", "faces", "samples") or not batch.num_rows:
        return []
    entries = [one for row in batch.column(PICTURES_FIELD).to_pylist() for one in (row or [None])]
    if table == "samples":
        image_ids = batch.column("pictures").flatten().field("image_id").to_pylist()
    else:
        image_ids = batch.column("image_id").to_pylist()
    names = batch.column("face_id").to_pylist() if table == "faces" else image_ids
    found = [
        {
            "picture_id": name,
            "image_id": image_id,
            **_of_entry(entry),
            "kind": "crop" if table == "faces" else "picture",
        }
        for name, image_id, entry in zip(names, image_ids, entries, strict=True)
        if entry is not None and entry["place"] != WITHHELD
    ]
    if table == "samples":
        own = digests.is_of([one["image_id"] for one in found], [one["sha256"] for one in found])
        for one, is_own in zip(found, own, strict=True):
            if not is_own:
                one |= {"kind": "smaller", "picture_id": smaller_id(one["image_id"])}
    return found


def _of_entry(entry: dict[str, Any]) -> dict[str, Any]:
    published = entry["published_sha256"] or entry["sha256"]
    return {
        "sha256": entry["sha256"],
        "published_sha256": published,
        "bytes": entry["length"],
        "path": entry["path"],
    }


class MetadataCounts:
    """Counts pictures whose metadata went, and those that are withheld because it cannot; each picture once."""

    def __init__(self) -> None:
        self._found: dict[str, list[Hashes]] = {"stripped": [], "withheld": []}

    def add(self, table: str, batch: pa.RecordBatch) -> None:
        """Count the pictures of rows that are published; crops are made by refloom and hold nothing."""
        if table not in ("images", "samples") or not batch.num_rows:
            return
        entries = [one for row in batch.column(PICTURES_FIELD).to_pylist() for one in (row or [None])]
        ids = batch.column("pictures").flatten().field("image_id") if table == "samples" else batch.column("image_id")
        found = zip(ids.to_pylist(), entries, strict=True)
        named = [(name, one["place"] == WITHHELD, one["published_sha256"]) for name, one in found if one]
        self._found["withheld"].append(hash_ids([name for name, withheld, _ in named if withheld]))
        self._found["stripped"].append(hash_ids([name for name, _, sha256 in named if sha256]))

    def to_json(self) -> dict[str, int]:
        """`stripped` and `withheld` to numbers of pictures."""
        return {name: len(np.unique(np.concatenate([*own, hash_ids([])]))) for name, own in self._found.items()}
