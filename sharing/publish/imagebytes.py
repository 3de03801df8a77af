"""The bytes of single pictures: which ones belong to a row, and where a publication gets them from."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import JobStopped
from refloom.sharing.publish.addresses import PICTURES_FIELD, Places
from refloom.sharing.publish.rows import Hashes, hash_ids

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
        """Read a picture; a linked one has to be what was ingested.

        Raises:
            JobStopped: the file is gone, shorter, or another one.
        """
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
        if entry is not None
    ]
    if table == "samples":
        own = digests.is_of([one["image_id"] for one in found], [one["sha256"] for one in found])
        for one, is_own in zip(found, own, strict=True):
            if not is_own:
                one |= {"kind": "smaller", "picture_id": smaller_id(one["image_id"])}
    return found


def _of_entry(entry: dict[str, Any]) -> dict[str, Any]:
    return {"sha256": entry["sha256"], "bytes": entry["length"], "path": entry["path"]}
