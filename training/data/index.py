"""Where the samples of one dataset lie: files, row groups, fingerprint. Pictures are not read here.

A dataset is what `refloom curate` wrote or what `refloom publish` made of it, local or behind fsspec.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from refloom.schemas import parquet, strict, tables, tags
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused
from refloom.schemas.fingerprint import of_json, of_parts
from refloom.schemas.index import is_dataset
from refloom.schemas.storage import Folder
from refloom.schemas.takedownlist import refuse_listed
from refloom.schemas.wording import quoted

_OPENERS = 8
_LEAST_PICTURE_BYTES = 64
"""No picture is smaller; without pictures a row has a byte or two here."""
_PUBLISHED = "data/samples"
_UNREAD = ".face.embedding."
"""Part of a leaf that no view reads: as Python's numbers, one takes 0.3 ms."""


@dataclass(frozen=True, slots=True)
class SampleFile:
    """A file of samples.

    Attributes:
        path: in the dataset.
        sha256: as the manifest says.
        group_rows: rows of each row group.
        group_bytes: of each row group, pictures and all.
    """

    path: str
    sha256: str
    group_rows: tuple[int, ...]
    group_bytes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RowGroupKey:
    """A row group of a dataset: its file's path and its number there."""

    path: str
    number: int


class Index:
    """The samples of one split of one dataset.

    Attributes:
        url: of the dataset, or of its tag.
        split: of the samples.
        folder: the dataset.
        content: fingerprint of all samples there, of any split: that of the table, or of a publication's files.
        files: in order of path.
    """

    def __init__(self, url: str, split: str = "train", *, tag: str | None = None) -> None:
        """Read the footers.

        Args:
            url: a dataset or a publication; a local path or an fsspec URL.
            split: train or validation.
            tag: the state of the dataset that was kept under this name; the present one without.

        Raises:
            Refused: no samples there, none of that split, without their pictures, or no such tag.
        """
        self.url, self.split = tags.place(url, tag), split
        self.folder = Folder(self.url)
        is_published = self.folder.exists("MANIFEST.json")
        listed, self.content = (_of_publication if is_published else _of_dataset)(self.folder, split)
        if not listed:
            raise Refused(f"{url} has no samples of split {split!r}: see `refloom status {quoted(url)}`")
        with ThreadPoolExecutor(_OPENERS) as pool:
            self.files = tuple(pool.map(lambda one: self._footer(*one), sorted(listed.items())))

    def _footer(self, path: str, sha256: str) -> SampleFile:
        with _opened(self.folder, path) as reader:
            schema, footer = reader.schema_arrow, reader.metadata
            needed = [field.name for field in tables.TABLES["samples"].schema if not field.nullable]
            absent = [name for name in needed if name not in schema.names]
            if absent:
                raise Refused(f"{path} in {self.url} has no column {absent[0]}: it is not a file of samples")
            groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
            columns = [[group.column(number) for number in range(group.num_columns)] for group in groups]
            pictures = sum(one.total_compressed_size for group in columns for one in group if _is_picture(one))
            if pictures < _LEAST_PICTURE_BYTES * footer.num_rows:
                raise Refused(
                    f"{self.url} is published without pictures: get them back with "
                    f"`refloom rehydrate {quoted(self.url)} YOUR_COPY DEST`"
                )
            sizes = tuple(sum(one.total_compressed_size for one in group) for group in columns)
            return SampleFile(path, sha256, tuple(group.num_rows for group in groups), sizes)

    @cached_property
    def groups(self) -> tuple[RowGroupKey, ...]:
        """All row groups, in order of file and number."""
        return tuple(RowGroupKey(file.path, number) for file in self.files for number in range(len(file.group_rows)))

    @cached_property
    def group_rows(self) -> npt.NDArray[np.int64]:
        """Rows of each row group."""
        return np.array([rows for file in self.files for rows in file.group_rows], np.int64)

    @cached_property
    def group_bytes(self) -> tuple[int, ...]:
        """Bytes of each row group, pictures and all."""
        return tuple(size for file in self.files for size in file.group_bytes)

    @property
    def fingerprint(self) -> str:
        """Of the samples: other rows, another cut into files or row groups, or another order give another one."""
        return of_json([[file.path, file.sha256, list(file.group_rows)] for file in self.files])

    def read(self, key: RowGroupKey, columns: list[str] | None = None) -> pa.Table:
        """A row group; arguments and errors as of `read_group`."""
        return read_group(self.folder, key, columns)


def read_group(folder: Folder, key: RowGroupKey, columns: list[str] | None = None) -> pa.Table:
    """A row group of a dataset's samples; embeddings of faces are left on the disk, as nulls.

    Args:
        folder: the dataset.
        key: of the row group.
        columns: all by default; those that came into `samples` after the file was written are null.

    Raises:
        Refused: it cannot be read: bytes are damaged or gone.
    """
    with _opened(folder, key.path) as reader:
        rows = reader.read_row_group(key.number, columns=_leaves(reader, columns), use_threads=False)
    return parquet.filled(rows, tables.TABLES["samples"].schema, columns)


def _leaves(reader: pq.ParquetFile, columns: list[str] | None) -> list[str]:
    """Paths of the leaves that are read of some columns of a file."""
    paths = [reader.schema.column(number).path for number in range(len(reader.schema))]
    asked = None if columns is None else set(columns)
    return [path for path in paths if _UNREAD not in path and (asked is None or path.split(".")[0] in asked)]


@contextmanager
def _opened(folder: Folder, path: str) -> Iterator[pq.ParquetFile]:
    try:
        with parquet.opened(folder, path) as reader:
            yield reader
    except OSError as error:
        raise Refused(f"{path} in {folder.url} cannot be read ({error}): {_remedy(folder)}") from error


def _remedy(folder: Folder) -> str:
    if tags.is_tag(folder):
        return "it is of a tag, which nothing makes again: train on the dataset as it is, or on another tag"
    if is_dataset(folder):
        return f"`refloom mend {quoted(folder.url)}` mends it"
    return f"`refloom verify {quoted(folder.url)}` says what is damaged; publish again over it, or get it again"


def _is_picture(column: pq.ColumnChunkMetaData) -> bool:
    path: str = column.path_in_schema
    return path.startswith("images.") and path.endswith(".bytes")


def _of_dataset(folder: Folder, split: str) -> tuple[dict[str, str], str]:
    """Path to sha256 of the files of a curated dataset, and the fingerprint of its samples."""
    url = folder.url
    dataset = Dataset(url)
    manifests = dataset.manifests("compose").values()
    if not manifests:
        raise Refused(f"{url} has no samples yet: make them with `refloom curate {quoted(url)}`")
    refuse_listed(dataset)
    files = {file.path: file.sha256 for manifest in manifests for file in manifest.files_of(f"samples/{split}")}
    return files, dataset.fingerprint("samples")


def _of_publication(folder: Folder, split: str) -> tuple[dict[str, str], str]:
    """The same of a publication, whose manifest is written last."""
    try:
        listed = strict.loads(folder.read("MANIFEST.json"))["files"]
        samples = {one["path"]: one["sha256"] for one in listed if one["path"].startswith(f"{_PUBLISHED}/")}
        own = {path: sha256 for path, sha256 in samples.items() if path.startswith(f"{_PUBLISHED}/{split}-")}
        return own, of_parts(samples)
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"{folder.url}/MANIFEST.json is not what `refloom publish` writes: publish again") from error
