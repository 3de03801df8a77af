"""The bytes of pictures in a publication against what their rows say: `sha256` is the source's, `published_sha256` that
of the bytes there, which lack the metadata of the source's.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow.parquet as pq

from refloom.schemas.storage import Folder

_IMAGES = "data/images/"
_WANTED = ("image_id", "sha256", "published_sha256", "image")


def problems(folder: Folder, files: Iterable[str]) -> Iterator[str]:
    """What is wrong with the pictures of a publication's table `images`; bytes that are withheld are null.

    Args:
        folder: of the publication.
        files: paths in it; others than those of `images` are passed over.
    """
    for path in files:
        if not path.startswith(_IMAGES) or not path.endswith(".parquet"):
            continue
        with folder.open(path) as source, pq.ParquetFile(source) as reader:
            columns = [name for name in _WANTED if name in reader.schema_arrow.names]
            for batch in reader.iter_batches(64, columns=columns):
                for row in batch.to_pylist():
                    if (wrong := _problem(row)) is not None:
                        yield f"{row['image_id']} in {path}: {wrong}"


def _problem(row: dict[str, Any]) -> str | None:
    data = (row["image"] or {}).get("bytes")
    if data is None:
        return None
    published = row.get("published_sha256", row["sha256"])  # an older publication has the source's bytes alone
    if published is None:
        return "its bytes are there, though they are said to be withheld"
    found = hashlib.sha256(data).hexdigest()
    return None if found == published else "the bytes are not those that were published"
