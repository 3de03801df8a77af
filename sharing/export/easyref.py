"""EasyRef json: every picture of a group from the other ones, and every picture with a face from that face.

    records.json   [{target: path, text: [caption, ...], image_file: [path, ...]},       one for each picture of a group
                    {target: path, text: [caption, ...], face: [[x1, y1, x2, y2, score]]}]     one for each face
    images/        the pictures' own bytes; those that an EXIF flag turns are written upright, as PNG

`face` has the two levels that the published loader reads: it takes the first box, so a record has one. Where a sample
says which of its pictures is to be made, that one is the target, else each of them in turn. A record says further
`caption_from`, `license`, `source_url`, `sample_id` and `image_ids`, which the loader passes over.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

from refloom.ingest.engine.pool import Status
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Rejected
from refloom.schemas.headers import read as read_header
from refloom.sharing.export.folder import JsonList, Names, Place, Written
from refloom.sharing.export.reading import (
    Choice,
    PictureBytes,
    Row,
    extension,
    samples,
    short,
    source_urls,
    upright_png,
)


def write_easyref(
    dataset: Dataset, place: Place, choice: Choice, show: Callable[[Status], None] | None = None
) -> Written:
    """Write records and pictures.

    Args:
        dataset: with samples.
        place: where.
        choice: what of it.
        show: told how far it is.
    """
    written: Written = Counter()
    shop = _Shop(place, source_urls(dataset), written, PictureBytes(choice, written))
    with JsonList() as records:
        for row in samples(dataset, choice, show):
            for record in [*_groups(row, shop), *_faces(row, shop)]:
                records.add(record)
                written["face records" if "face" in record else "group records"] += 1
        with place.create("records.json") as sink:
            records.copy_to(sink)
    return written


class _Shop:
    """Writes each picture once, and remembers its path."""

    def __init__(self, place: Place, urls: dict[str, str], written: Written, bare: PictureBytes) -> None:
        self._place, self._urls, self._written, self._bare = place, urls, written, bare
        self._names = Names()
        self._paths: dict[str, str | None] = {}
        self.faces_done: set[str] = set()

    def path(self, row: Row, index: int) -> str | None:
        """Path of a picture of a sample below `images`; None if it is no picture."""
        image_id = row["pictures"][index]["image_id"]
        if image_id not in self._paths:
            self._paths[image_id] = self._write(row["pictures"][index], row["images"][index])
        return self._paths[image_id]

    def _write(self, picture: Row, image: dict[str, Any]) -> str | None:
        data, wanted = image["bytes"], image["path"]
        try:
            data = self._bare.of(picture["image_id"], data)
            if read_header(data).orientation != 1:
                data, wanted = upright_png(data), None
            if wanted is None or picture["source"] != "easyref":
                wanted = f"{picture['image_id']}{extension(data)}"
        except Rejected as problem:
            self._written[f"left out: picture, {problem.reason}"] += 1
            return None
        name = self._names.take(wanted)
        self._place.write(f"images/{name}", data)
        self._written["pictures"] += 1
        return name

    def about(self, row: Row, indices: list[int]) -> dict[str, Any]:
        """What a record says beside the format; of the target first."""
        target = row["pictures"][indices[0]]
        return {
            "caption_from": target["caption_from"],
            "license": target["license"],
            "source_url": self._urls.get(target["image_id"]),
            "sample_id": row["sample_id"],
            "image_ids": [row["pictures"][index]["image_id"] for index in indices],
        }


def _groups(row: Row, shop: _Shop) -> list[dict[str, Any]]:
    if row["kind"] != "group":
        return []
    paths = [shop.path(row, index) for index in range(len(row["pictures"]))]
    records = []
    for target in range(len(paths)) if row["target"] is None else [row["target"]]:
        others = [index for index in range(len(paths)) if index != target and paths[index] is not None]
        if paths[target] is not None and others:
            record = {"target": paths[target], "text": _texts(row, target), "image_file": [paths[i] for i in others]}
            records.append(record | shop.about(row, [target, *others]))
    return records


def _faces(row: Row, shop: _Shop) -> list[dict[str, Any]]:
    """A record for each face of pictures whose faces were not written yet."""
    fresh = [n for n, picture in enumerate(row["pictures"]) if picture["image_id"] not in shop.faces_done]
    shop.faces_done.update(picture["image_id"] for picture in row["pictures"])
    records = []
    seen: set[tuple[int, tuple[float, ...]]] = set()
    for subject in row["subjects"]:
        for appearance in subject["appearances"]:
            index, face = appearance["picture"], appearance["face"]
            if index not in fresh or face is None or (index, tuple(face["box"])) in seen:
                continue
            seen.add((index, tuple(face["box"])))
            path = shop.path(row, index)
            if path is None:
                continue
            score = [short(face["det_score"])] if face["det_score"] is not None else []
            box = [*map(short, face["box"]), *score]
            records.append({"target": path, "text": _texts(row, index), "face": [box]} | shop.about(row, [index]))
    return records


def _texts(row: Row, index: int) -> list[str]:
    return list(row["pictures"][index]["captions"] or [])
