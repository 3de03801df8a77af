"""What people say of objects as references: rows of `labels`, saved one by one under the lease of the dataset.

All labels are one unit, so that they outlive a new ingest of their pictures under other unit names.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from refloom.schemas.dataset import LABEL, Dataset
from refloom.schemas.errors import Refused
from refloom.schemas.ids import image_of
from refloom.schemas.lease import Lease
from refloom.schemas.tables import FLAGS
from refloom.schemas.takedownlist import refuse_unfinished
from refloom.schemas.unit import UnitKey, UnitWriter
from refloom.schemas.wording import shown

UNIT = "labels"
SCORES = (0, 1, 2, 3)
GOOD = 2
"""An object with this score or more is a good reference."""
VERSION = 1


@dataclass(frozen=True, slots=True)
class Label:
    """One judgement.

    Attributes:
        object_id: of what.
        score: 0 to 3, see the table `labels`.
        flags: of `FLAGS`, in their order.
        labeller: who judged, or None.
        time: when, UTC; None for now.
    """

    object_id: str
    score: int
    flags: tuple[str, ...] = ()
    labeller: str | None = None
    time: str | None = None

    def __post_init__(self) -> None:
        if type(self.score) is not int or self.score not in SCORES:
            raise ValueError(f"a score is 0, 1, 2 or 3, not {self.score!r}")
        for flag in self.flags:
            if flag not in FLAGS:
                raise ValueError(f"no flag {flag!r:.40}; flags: {', '.join(FLAGS)}")


def read(dataset: Dataset) -> dict[str, Label]:
    """Object id to its label, of the whole dataset; empty where nobody has judged."""
    rows = dataset.read("labels").to_pylist()
    return {row["object_id"]: of_row(row) for row in rows}


def of_row(row: dict[str, Any]) -> Label:
    """A row of `labels`.

    Raises:
        ValueError: it says what cannot be said.
    """
    return Label(row["object_id"], row["score"], tuple(row["flags"]), row["labeller"], row["time"])


def save(url: str, label: Label, unit: str) -> int:
    """Write one judgement; it takes the place of an earlier one of the object.

    The table is read again under the lease: what others wrote or took down meanwhile stays so.

    Args:
        url: of the dataset.
        label: what is said.
        unit: of ingest, that holds the object.

    Returns:
        How many labels there are now.

    Raises:
        Refused: another process writes to the dataset, or the object is no longer in it.
    """
    dataset = Dataset(url)
    with Lease(dataset.folder) as lease:
        refuse_unfinished(dataset.folder)
        if not _holds(dataset, unit, label.object_id):
            raise Refused(f"{shown(label.object_id)} is no longer in the dataset: start `refloom browse --label` again")
        held = read(dataset) | {label.object_id: label}
        write(dataset, held.values(), lease)
        return len(held)


def remove(url: str, object_id: str) -> int:
    """Take a judgement back; see `save`. One that is not there is no error."""
    dataset = Dataset(url)
    with Lease(dataset.folder) as lease:
        refuse_unfinished(dataset.folder)
        held = read(dataset)
        if held.pop(object_id, None) is not None:
            write(dataset, held.values(), lease)
        return len(held)


def _holds(dataset: Dataset, unit: str, object_id: str) -> bool:
    tables = (dataset.read(name, ["object_id"], unit=unit)["object_id"] for name in ("objects", "masks"))
    return any(pc.index(ids, pa.scalar(object_id, ids.type)).as_py() >= 0 for ids in tables)


def write(dataset: Dataset, labels: Iterable[Label], lease: Lease) -> None:
    """Write all judgements of a dataset anew, for the holder of its lease."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    rows = sorted(labels, key=lambda label: label.object_id)
    key = UnitKey(LABEL, UNIT, UNIT, stage_version=VERSION)
    with UnitWriter(dataset.folder, key, before_commit=lambda: lease.check(look=True)) as out:
        out.expect("object", len(rows))
        columns = {name: [getattr(label, name) for label in rows] for name in ("object_id", "score", "labeller")}
        columns["image_id"] = [image_of(label.object_id) for label in rows]
        columns["flags"] = [[flag for flag in FLAGS if flag in label.flags] for label in rows]
        columns["time"] = [label.time or now for label in rows]
        out.add_columns("labels", columns)
        out.keep("object", len(rows))
