"""Reading features: of one dataset's samples, a row group at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import pyarrow as pa
from torch import Tensor

from refloom.inference.adapters.reference import Reference
from refloom.schemas import ids, parquet, strict
from refloom.schemas.errors import Damaged, Refused, Rejected
from refloom.schemas.manifest import Manifest, differing, flatten
from refloom.schemas.shapes import misfit
from refloom.schemas.storage import Folder
from refloom.schemas.wording import quoted, shown, some
from refloom.training.data.index import Index, RowGroupKey
from refloom.training.features.stored import Stored
from refloom.training.features.tables import SCHEMAS, STAGE, unpack
from refloom.training.views.example import Drops, Example, SizeCondition

FEATURES = "features.json"
CLAIM = "settings.json"
ORIGIN = "runs/samples.json"
"""Where the samples lie; a path, so it is in `runs/` and not in what has to be the same everywhere."""
MANIFESTS = (STAGE, f"{STAGE}.next")
"""Folders below `manifests/`, in one of which are those that count: the second while units take the place of others."""
_NO_PIXELS = np.zeros((0, 0, 3), np.uint8)


def other_origin(folder: Folder, index: Index) -> str | None:
    """The dataset and split that features were made of, where they are known and not those of an index."""
    try:
        said = strict.object_in(folder.read(ORIGIN))
        found = said["samples"], said["split"]
    except (FileNotFoundError, ValueError, KeyError):
        return None
    return None if found == (index.url, index.split) else f"{found[0]}, split {found[1]}"


def unit_of(key: RowGroupKey) -> str:
    """The unit that holds the features of a row group."""
    stem = key.path.rpartition("/")[2].removesuffix(".parquet").removeprefix("unit-")
    return f"{ids.unit_key(stem)}-{key.number:05d}"


@dataclass(frozen=True, slots=True)
class Summary:
    """What `features.json` says.

    Attributes:
        settings: what the features follow from.
        variants: of each target.
        samples: fingerprint of the samples.
        whole: whether pictures need not be decoded; else only targets and texts are kept.
        units: name to bytes.
        manifests: folder of the units' manifests, below `manifests/`.
    """

    settings: dict[str, Any]
    variants: int
    samples: str
    whole: bool
    units: dict[str, int]
    manifests: str = MANIFESTS[0]

    def to_json(self) -> bytes:
        """For the file."""
        value = {name: getattr(self, name) for name in self.__slots__}
        if self.manifests == MANIFESTS[0]:
            del value["manifests"]
        return strict.dumps(value, indent=1, sort_keys=True).encode() + b"\n"


_SUMMARY = {"settings": dict, "variants": int, "samples": str, "whole": bool, "units": {"*": int}, "manifests?": str}


def read_summary(data: bytes) -> Summary:
    """What `features.json` says; ValueError where it is not what `Summary.to_json` writes."""
    value = strict.loads(data)
    if wrong := misfit(value, _SUMMARY):
        raise ValueError(wrong)
    if more := sorted(value.keys() - set(Summary.__slots__)):
        raise ValueError(f"it says {shown(more[0])}, which is nothing of its own")
    said = Summary(**{name: value[name] for name in Summary.__slots__ if name in value})
    if said.manifests not in MANIFESTS:
        raise ValueError("manifests are in no folder of theirs")
    if said.variants < 1 or any(size < 0 for size in said.units.values()):
        raise ValueError("variants or units are no numbers of theirs")
    return said


class Store:
    """The features of one dataset.

    Attributes:
        url: where they lie.
        summary: of them.
    """

    def __init__(self, url: str) -> None:
        """Open features that are finished.

        Raises:
            Refused: there are none, or they are not finished.
        """
        self.url, self._folder = url, Folder(url)
        try:
            self.summary = read_summary(self._folder.read(FEATURES))
        except FileNotFoundError as error:
            half = self._folder.exists(CLAIM)
            raise Refused(
                f"the features in {url} are not finished: run the `refloom cache` that began them again, it resumes"
                if half
                else f"there are no features in {url}: make them with "
                f"`refloom cache DATASET --recipe NAME --out {quoted(url)}`"
            ) from error
        except (ValueError, TypeError, RecursionError) as error:
            raise Refused(f"{url}/{FEATURES} is not what `refloom cache` writes ({error}): make them anew") from error

    def check(self, settings: dict[str, Any], index: Index, variants: int | None) -> None:
        """Refuse features of something else than a run uses.

        Args:
            settings: what the run's features would follow from.
            index: the samples.
            variants: that the run asks for; None takes those that there are.

        Raises:
            Refused: names what differs, and the command to run.
        """
        said = self.summary
        found = differing(flatten(said.settings), flatten(settings))
        count = max(said.variants, variants or 0)
        if count > said.variants:
            found.append(f"variants: {said.variants} -> {count}")
        place, anew = self.url, " --replace" if found else ""
        if said.samples != index.fingerprint:
            found.append(f"the samples of {index.url}, split {index.split}, are others or have changed")
            if other_origin(self._folder, index) is not None:
                place, anew = "ANOTHER", ""
        if found:
            raise Refused(
                f"the features in {self.url} do not fit this run ({some(found, between='; ')}): run "
                f"`refloom cache {quoted(index.url)} --out {quoted(place)} --variants {count}{anew} --recipe NAME` "
                "with the NAME of this run's recipe, or "
                "take features out of the source"
            )

    def bytes_of(self, key: RowGroupKey) -> int:
        """Of the features of a row group; 0 if the view accepts none of it."""
        return self.summary.units.get(unit_of(key), 0)

    def read(self, key: RowGroupKey) -> "StoredRows":
        """The features of a row group.

        Raises:
            Refused: a file is damaged or gone.
        """
        unit = unit_of(key)
        path = Manifest.path(self.summary.manifests, unit)
        try:
            manifest = Manifest.from_json(self._folder.read(path), path)
            examples, tensors = (
                parquet.read(self._folder, manifest.files_of(name), SCHEMAS[name], check_pages=name != "tensors")
                for name in ("examples", "tensors")  # every tensor has a checksum of its own
            )
        except (OSError, pa.ArrowException, Damaged) as error:
            raise Refused(
                f"the features of {unit} in {self.url} cannot be read ({error}): remove {path} there and run "
                "`refloom cache` again, it makes what is missing"
            ) from error
        return StoredRows(examples, tensors, f"{unit} in {self.url}")


class StoredRows:
    """The features of one row group, in memory; tensors are taken out one by one."""

    def __init__(self, examples: pa.Table, tensors: pa.Table, name: str) -> None:
        """Find what is there.

        Args:
            examples, tensors: of one unit.
            name: of it, for messages.
        """
        self._name = name
        self._examples = examples
        keys = [examples.column(one).to_pylist() for one in ("row", "picture", "variant")]
        self._at = {key: at for at, key in enumerate(zip(*keys, strict=True))}
        self._lost = {
            row: problem
            for row, problem in zip(keys[0], examples.column("problem").to_pylist(), strict=True)
            if problem is not None
        }
        self._batches = tensors.to_batches()
        self._places = {
            key: (batch, at)
            for batch, rows in enumerate(self._batches)
            for at, key in enumerate(rows.column("key").to_pylist())
        }
        self._live: WeakValueDictionary[str, Tensor] = WeakValueDictionary()

    def record(self, row: int, picture: int, variant: int) -> dict[str, Any]:
        """A row of `examples`.

        Args:
            row: number of the sample in its row group.
            picture: number of the target.
            variant: number of the variant.

        Raises:
            Rejected: the sample was lost when features were made.
            Refused: nothing was made of it.
        """
        if row in self._lost:
            raise Rejected("decode_error", self._lost[row])
        at = self._at.get((row, picture, variant))
        if at is None:
            raise Refused(
                f"{self._name} has no features of row {row}, picture {picture}, variant {variant}: run `refloom cache` "
                "again, with --replace"
            )
        found: dict[str, Any] = self._examples.slice(at, 1).to_pylist()[0]
        return found

    def stored(self, record: dict[str, Any]) -> Stored:
        """The tensors of a row of `examples`.

        Raises:
            Rejected: one is damaged.
            Refused: one is not there.
        """
        tensors = {key: self._tensor(key) for key in record["tensors"]}
        references = tuple(tuple(one["pictures"]) for one in record["references"] or ())
        return Stored(tensors, record["target"], references)

    def example(self, row: int, picture: int, variant: int) -> Example:
        """An example without any pixel; arguments and errors as of `record` and `stored`."""
        record = self.record(row, picture, variant)
        references = [
            Reference.described(one["phrase"], one["boxes"], one["scale"]) for one in record["references"] or ()
        ]
        sizes = [_pair(record[name]) for name in ("original_size", "crop_top_left", "target_size")]
        return Example(
            record["sample_id"],
            _NO_PIXELS,
            record["caption"],
            tuple(references),
            (None,) * len(references),
            Drops(),
            SizeCondition(*sizes),
            stored=self.stored(record),
        )

    def sample_id(self, row: int) -> str:
        """Of a row that is there or lost."""
        at = next(at for key, at in self._at.items() if key[0] == row)
        return str(self._examples.column("sample_id")[at].as_py())

    def _tensor(self, key: str) -> Tensor:
        tensor = self._live.get(key)
        if tensor is None:
            if key not in self._places:
                raise Refused(
                    f"{self._name} lacks the features {key[:80]!r}: run `refloom cache` again, with --replace"
                )
            batch, at = self._places[key]
            rows = self._batches[batch]
            row = {name: rows.column(name)[at].as_py() for name in ("key", "dtype", "shape", "crc32")}
            tensor = unpack(row | {"data": rows.column("data")[at]})
            self._live[key] = tensor
        return tensor


def _pair(values: Sequence[int]) -> tuple[int, int]:
    return int(values[0]), int(values[1])
