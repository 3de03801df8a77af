"""What `refloom export` does, between the command line and the library."""

import argparse
from collections.abc import Callable
from typing import Any

from refloom.ingest.engine.progress import Progress
from refloom.schemas import roots
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused
from refloom.schemas.storage import Folder, absolute_url
from refloom.sharing.export.coco import write_coco
from refloom.sharing.export.easyref import write_easyref
from refloom.sharing.export.folder import Place, Written
from refloom.sharing.export.reading import Choice
from refloom.sharing.export.subject10k import write_subject10k
from refloom.sharing.export.webdataset import write_webdataset

FORMATS: dict[str, Callable[..., Written]] = {
    "coco": write_coco,
    "easyref": write_easyref,
    "subject10k": write_subject10k,
    "webdataset": write_webdataset,
}
_TABLES = {
    "coco": ("images", "objects", "masks", "phrases", "selection", "splits"),
    "easyref": ("samples", "source_groups", "images"),
    "subject10k": ("samples", "images"),
    "webdataset": ("samples", "images"),
}
_NEXT = {
    "coco": "refloom ingest coco --images {0}/images --instances {0}/instances.json --captions {0}/captions.json",
    "easyref": "refloom ingest easyref {0}/records.json --images {0}/images",
    "subject10k": "refloom ingest subject10k {0}",
}


def export(options: argparse.Namespace) -> int:
    """`refloom export DATASET OUT --format F`: 0, or 1 if the bytes of some pictures were not there."""
    if options.limit is not None and options.limit < 1:
        raise Refused("--limit must be 1 or more")
    if options.per_shard < 1:
        raise Refused("--per-shard must be 1 or more")
    if options.kept and options.format != "coco":
        raise Refused(
            "--kept is for --format coco: the other formats are made of samples, which hold kept objects only"
        )
    dataset = Dataset(absolute_url(options.dataset))
    if options.kept and set(dataset.manifests("select")) != set(dataset.units()):
        raise Refused(f"{dataset.url} is not selected yet: run `refloom curate {dataset.url} --until select`")
    url = absolute_url(options.out)
    if Folder(url).root == dataset.folder.root:
        raise Refused(f"{url} is the dataset itself: give another folder")
    choice = Choice(split=options.split, limit=options.limit, kept=options.kept, per_shard=options.per_shard)
    place = Place(url, _settings(dataset, options.format, choice))
    written = place.claim()
    if written is not None:
        print(f"{url} holds this export already")
    else:
        progress = Progress("export", "picture" if options.format == "coco" else "sample")
        written = FORMATS[options.format](dataset, place, choice, progress)
        progress.close()
        place.finish(written)
    for word, count in written.items():
        print(f"  {count:>9,} {word}")
    if options.format in _NEXT:
        print(f"{url}: `{_NEXT[options.format].format(url)} --out DATASET` takes it in again")
    else:
        print(url)
    if not any(word.startswith("failed") for word in written):
        return 0
    for line in roots.moved(dataset):
        print(line)
    return 1


def _settings(dataset: Dataset, name: str, choice: Choice) -> dict[str, Any]:
    """What the output depends on."""
    settings: dict[str, Any] = {"format": name, "split": choice.split, "limit": choice.limit}
    if name == "coco":
        settings["kept"] = choice.kept
    if name == "webdataset":
        settings["per_shard"] = choice.per_shard
    return settings | {"dataset": {table: dataset.fingerprint(table) for table in _TABLES[name]}}
