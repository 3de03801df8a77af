"""WebDataset: tars of samples that are read in one go, front to back.

    <split>-000000.tar     samples in the dataset's order, a fixed number in each
      00000000.json        the row of `samples` without its bytes, masks as COCO run lengths; `source_url` and `file` of
                           each picture beside what the table has
      00000000.jpg         the picture's bytes; `00000000.0.jpg`, `00000000.1.jpg`, ... where there are several

Keys count through all tars of a split. Members have no time and no owner, so that equal datasets give equal tars.
"""

import io
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, groupby, islice

import orjson

from refloom.ingest.engine.pool import Status
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Rejected
from refloom.sharing.export.folder import Place, Written
from refloom.sharing.export.reading import Choice, PictureBytes, Row, extension, samples, source_urls

Member = tuple[str, bytes]


def write_webdataset(
    dataset: Dataset, place: Place, choice: Choice, show: Callable[[Status], None] | None = None
) -> Written:
    """Write samples as tars; one sample is in memory at a time.

    Args:
        dataset: with samples.
        place: where.
        choice: what of it; `per_shard` samples go into a tar.
        show: told how far it is.
    """
    written: Written = Counter()
    urls, bare = source_urls(dataset), PictureBytes(choice, written)
    for split, rows in groupby(samples(dataset, choice, show), key=lambda row: str(row["split"])):
        numbered = enumerate(rows)
        for shard, first in enumerate(numbered):  # the rest of the shard is taken below
            with place.create(f"{split}-{shard:06d}.tar") as sink:
                own = chain([first], islice(numbered, choice.per_shard - 1))
                write_tar(sink, chain.from_iterable(_counted(number, row, urls, written, bare) for number, row in own))
            written["tars"] += 1
    return written


def _counted(number: int, row: Row, urls: dict[str, str], written: Written, bare: PictureBytes) -> list[Member]:
    names = [picture["image_id"] for picture in row["pictures"]]
    try:
        images = [
            image | {"bytes": bare.of(name, image["bytes"])} for name, image in zip(names, row["images"], strict=True)
        ]
    except Rejected as problem:
        written[f"left out: sample, a picture with {problem.reason}"] += 1
        return []
    row = row | {"images": images}
    written["samples"] += 1
    written["pictures"] += len(row["images"])
    return members(f"{number:08d}", row, urls)


def members(key: str, row: Row, urls: dict[str, str]) -> list[Member]:
    """The members of one sample, its json first.

    Args:
        key: their common name, without dots.
        row: of `samples`.
        urls: image id to source_url.
    """
    files = []
    for index, image in enumerate(row["images"]):
        place = f".{index}" if len(row["images"]) > 1 else ""
        files.append((f"{key}{place}{_extension(image['bytes'])}", image["bytes"]))
    pictures = [
        picture | {"source_url": urls.get(picture["image_id"]), "file": name}
        for picture, (name, _) in zip(row["pictures"], files, strict=True)
    ]
    record = {name: value for name, value in row.items() if name != "images"} | {"pictures": pictures}
    return [(f"{key}.json", orjson.dumps(record)), *files]


def _extension(data: bytes) -> str:
    try:
        return extension(data)
    except Rejected:
        return ".img"


def write_tar(sink: io.IOBase | object, files: Iterable[Member]) -> None:
    """Write a tar of regular files that says nothing of when, where and by whom.

    Args:
        sink: has `write`.
        files: name and bytes.
    """
    with tarfile.open(fileobj=sink, mode="w|", format=tarfile.USTAR_FORMAT) as tar:  # type: ignore[call-overload]
        for info, data in _infos(files):
            tar.addfile(info, io.BytesIO(data))


def _infos(files: Iterable[Member]) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    for name, data in files:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o644
        yield info, data
