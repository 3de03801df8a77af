"""What must hold for every dataset, told from its files and from the source's own, by other means than refloom's."""

import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from pycocotools import mask as coco_mask
from refloom.curation.select.settings import Split

from refloom.curation.select.split import draw, read_links, read_pictures
from refloom.schemas import pictures
from refloom.schemas.dataset import STAGES, Dataset
from refloom.schemas.reasons import FAILED, REJECTED

PICTURE_ENDS = {".jpg", ".jpeg", ".png"}

ITEMS_OF = {
    # stage and item kind: the table whose rows are what went in, the table whose rows are what was kept, and its key
    ("measure", "image"): ("images", "image_scores", "image_id"),
    ("face", "image"): ("images", "faces", "image_id"),
    ("embed", "object"): ("objects", "embeddings", "object_id"),
    ("quality", "object"): ("objects", "object_scores", "object_id"),
    ("split", "image"): ("images", "splits", "image_id"),
}


def column(dataset: Dataset, table: str, name: str) -> list[Any]:
    values: list[Any] = dataset.read(table, [name])[name].to_pylist()
    return values


def lost(dataset: Dataset, stage: str, kind: str) -> Counter[str]:
    """Reason to number, from the ledger's rows."""
    return Counter(row["reason"] for row in dataset.ledger(stage).to_pylist() if row["kind"] == kind)


def kept_objects(dataset: Dataset) -> set[str]:
    rows = dataset.read("selection", ["object_id", "verdict"]).to_pylist()
    return {row["object_id"] for row in rows if row["verdict"] == "keep"}


def check_funnel(dataset: Dataset) -> None:
    """Every stage's counts add up, and are what its table and its ledger hold."""
    for stage in STAGES:
        for kind, counts in dataset.counts(stage).items():
            where = f"{stage} {kind}"
            assert counts.input == counts.kept + counts.rejected.total() + counts.failed.total(), where
            assert set(counts.rejected) <= REJECTED.keys(), where
            assert set(counts.failed) <= FAILED.keys(), where
            if stage != "select":  # its table says why
                assert lost(dataset, stage, kind) == counts.rejected + counts.failed, where
    for (stage, kind), (before, after, key) in ITEMS_OF.items():
        counts = dataset.counts(stage)[kind]
        assert counts.input == len(column(dataset, before, key)), (stage, kind)
        assert counts.kept == len(set(column(dataset, after, key))), (stage, kind)
    reasons = Counter(column(dataset, "selection", "reason"))
    selected = dataset.counts("select")["object"]
    assert selected.input == len(column(dataset, "objects", "object_id")) == reasons.total()
    assert selected.kept == reasons.pop(None, 0)
    assert selected.rejected + selected.failed == reasons
    assert dataset.counts("group")["group"].kept == len(column(dataset, "groups", "group_id"))
    composed = dataset.counts("compose").values()
    assert sum(counts.kept for counts in composed) == len(column(dataset, "samples", "sample_id"))


def check_samples(dataset: Dataset, kinds: set[str]) -> list[dict[str, Any]]:
    """Samples are of these kinds, decode, and hold boxes, masks, faces and mentions that fit; returns their rows."""
    rows = dataset.read("samples").to_pylist()
    assert {row["kind"] for row in rows} == kinds
    kept = kept_objects(dataset)
    hashes = dict(zip(column(dataset, "images", "image_id"), column(dataset, "images", "sha256"), strict=True))
    for row in rows:
        assert len(row["pictures"]) == len(row["images"]) > 0
        for picture, image in zip(row["pictures"], row["images"], strict=True):
            assert hashlib.sha256(image["bytes"]).hexdigest() == hashes[picture["image_id"]], row["sample_id"]
            assert pictures.decode(image["bytes"]).shape == (picture["height"], picture["width"], 3), row["sample_id"]
        assert row["subjects"], row["sample_id"]
        for subject in row["subjects"]:
            _check_subject(subject, row, kept)
    return rows


def _check_subject(subject: dict[str, Any], row: dict[str, Any], kept: set[str]) -> None:
    appearances = subject["appearances"]
    for seen in appearances:
        picture = row["pictures"][seen["picture"]]
        size = picture["height"], picture["width"]
        check_box(seen["box"], size)
        if seen["object_id"] is not None:
            assert seen["object_id"] in kept
            assert seen["object_id"].startswith(picture["image_id"] + "#")
        if seen["mask"] is not None:
            check_mask(seen["mask"], seen["box"], size)
    if subject["similarity"] is not None:
        assert len(subject["similarity"]) == len(appearances) * (len(appearances) - 1) // 2
        assert -1.001 <= min(subject["similarity"], default=0) <= max(subject["similarity"], default=0) <= 1.001
    for mention in subject["mentions"]:
        caption = row["pictures"][mention["picture"]]["captions"][mention["caption"]]
        assert caption[mention["start"] : mention["end"]].strip(), caption


def check_box(box: list[float], size: tuple[int, int]) -> None:
    x0, y0, x1, y1 = box
    assert 0 <= x0 < x1 <= size[1], box
    assert 0 <= y0 < y1 <= size[0], box


def check_mask(mask: dict[str, Any], box: list[float], size: tuple[int, int]) -> None:
    """The mask is of the picture's size and ends where the box does, within 4 px or 5 %."""
    assert tuple(mask["size"]) == size
    pixels = coco_mask.decode({"size": list(size), "counts": mask["counts"].encode()})
    y, x = np.nonzero(pixels)
    tight = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1])
    slack = [max(4.0, 0.05 * side) for side in (box[2] - box[0], box[3] - box[1])] * 2
    assert (np.abs(tight - np.array(box)) <= slack).all(), (tight, box)


def check_split(dataset: Dataset) -> None:
    """Frames of a video, pictures of a folder and of a person are on one side, and so is every sample.

    Small sets fall on one side by chance, so other draws of the same clusters are looked at too.
    """
    side = {row["image_id"]: row["split"] for row in dataset.read("splits", ["image_id", "split"]).to_pylist()}
    _check_sides(dataset, side)
    for path in Path(dataset.url).glob("samples/*/*.parquet"):
        for row in pq.read_table(path, columns=["pictures"])["pictures"].to_pylist():
            assert {side[picture["image_id"]] for picture in row} == {path.parent.name}
    sides = set()
    pictures, links = read_pictures(dataset, dataset.units()), read_links(dataset, dataset.units())
    for seed in range(8):
        drawn = draw(pictures, [links], Split(validation_share=0.5, seed=seed)).to_pylist()
        _check_sides(dataset, {row["image_id"]: row["split"] for row in drawn})
        sides |= {row["split"] for row in drawn}
    assert sides == {"train", "validation"}


def _check_sides(dataset: Dataset, side: dict[str, str]) -> None:
    together: dict[str, set[str]] = defaultdict(set)
    for row in dataset.read("images", ["image_id", "video_id"]).to_pylist():
        if row["video_id"] is not None:
            together[row["video_id"]].add(side[row["image_id"]])
    for table in ("source_groups", "groups"):
        for row in dataset.read(table, ["group_id", "kind", "members"]).to_pylist():
            if row["kind"] == "look":
                continue
            together[row["group_id"]] |= {side[member.split("#")[0]] for member in row["members"]}
    assert all(len(sides) == 1 for sides in together.values()), together


class _Loads(HTMLParser):
    """What a page loads or embeds when it is opened; a link that is only clicked loads nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.tags: Counter[str] = Counter()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.sources += [value or "" for name, value in attrs if name in ("src", "srcset", "poster", "data")]
        self.sources += [value or "" for name, value in attrs if name in ("href", "xlink:href") and tag != "a"]
        self.sources += [value or "" for name, value in attrs if name == "style" and "url(" in (value or "")]


def check_page(path: str) -> None:
    """One page that shows pictures and loads nothing."""
    page = Path(path).read_text(encoding="utf-8")
    found = _Loads()
    found.feed(page)
    shown = [source for source in found.sources if source.startswith("data:image/")]
    assert shown, "no picture is shown"
    assert [source for source in found.sources if not source.startswith(("data:", "#"))] == []
    assert "@import" not in page
    assert "url(http" not in page.replace("'", "").replace('"', "")
    assert not found.tags.keys() & {"iframe", "object", "embed", "base"}


def source_files(folder: Path) -> dict[str, set[str]]:
    """Subject folder to the names of its pictures, as the file system has them."""
    return {
        subject.name: {file.name for file in subject.iterdir() if file.suffix.lower() in PICTURE_ENDS}
        for subject in folder.iterdir()
        if subject.is_dir() and not subject.name.startswith("_")
    }


def pillow_size(data: bytes) -> tuple[int, int]:
    """(width, height) as Pillow reads it, before any turning."""
    with Image.open(io.BytesIO(data)) as image:
        return image.size


def cosines(vectors: dict[str, np.ndarray], people: dict[str, str]) -> tuple[list[float], list[float]]:
    """Cosines of pictures of one person, and of different ones.

    Args:
        vectors: picture to its face, unit length.
        people: picture to its person.
    """
    same: list[float] = []
    different: list[float] = []
    names = sorted(vectors)
    for position, first in enumerate(names):
        for second in names[position + 1 :]:
            (same if people[first] == people[second] else different).append(float(vectors[first] @ vectors[second]))
    return same, different


def union(masks: Iterable[dict[str, Any]], size: tuple[int, int]) -> np.ndarray:
    """(h, w) bool: pixels set in any of the masks."""
    found = np.zeros(size, bool)
    for mask in masks:
        found |= coco_mask.decode({"size": list(size), "counts": mask["counts"].encode()}).astype(bool)
    return found
