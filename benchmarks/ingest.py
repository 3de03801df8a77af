"""Ingest of one worker as a share of its floor, for each source."""

import hashlib
import shutil
import tarfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from pycocotools import mask as coco

from benchmarks.data import coco_like, folder, sample
from benchmarks.table import Result, paired
from refloom.ingest.engine.pool import Task
from refloom.ingest.engine.watch import Watch
from refloom.ingest.source import Source
from refloom.ingest.sources.coco import Coco
from refloom.ingest.sources.sa1b import Sa1b
from refloom.ingest.sources.ytvis import YouTubeVis
from refloom.ingest.worker import IngestJob, IngestWorker
from refloom.schemas import tables
from refloom.schemas.features import with_features
from refloom.schemas.lease import Lease
from refloom.schemas.parquet import options
from refloom.schemas.storage import Folder

_FLOOR_BATCH = 256


def run(quick: bool) -> Result:
    """Share of the floor for SA-1B tars, COCO and YouTube-VIS."""
    images, videos = (60, 4) if quick else (600, 30)
    tree = sample(images, videos)
    annotations = tree / "coco/annotations"
    instances = coco_like(annotations / "instances_train2017.json")
    cases: list[tuple[str, Source, Callable[[], int], float | None]] = [
        (
            "SA-1B tars",
            Sa1b(tars=(str(one_tar(tree / "sa1b", images)),)),
            lambda: _sa1b_floor(one_tar(tree / "sa1b", images)),
            0.6,
        ),
        (
            "COCO",
            Coco(
                images=str(tree / "coco/train2017"),
                instances=str(instances),
                captions=str(annotations / "captions_train2017.json"),
            ),
            lambda: _coco_floor(
                tree / "coco/train2017",
                instances,
                annotations / "captions_train2017.json",
            ),
            0.6,
        ),
        (
            "YouTube-VIS",
            YouTubeVis(
                frames=str(tree / "ytvis/train/JPEGImages"), annotations=str(tree / "ytvis/train/instances.json")
            ),
            lambda: _ytvis_floor(tree / "ytvis/train/JPEGImages", tree / "ytvis/train/instances.json"),
            None,
        ),
    ]
    rows, checks = [], []
    for name, source, floor, asked in cases:
        done = {"pictures": 0, "bytes": 0}

        def least(floor: Callable[[], int] = floor, done: dict[str, int] = done) -> None:
            done["pictures"] = floor()

        def ours(source: Source = source, done: dict[str, int] = done) -> None:
            done["bytes"] = _ingest(source)

        at_least, took, share = paired(least, ours, 2 if quick else 7, before=clean)
        pictures, size = done["pictures"], done["bytes"]
        rows.append(
            [
                name,
                f"{pictures:,}",
                f"{at_least / pictures * 1e3:.2f}",
                f"{took / pictures * 1e3:.2f}",
                f"{pictures / took:,.0f}",
                f"{size / took / 1e6:,.0f}",
                f"{share:.2f}",
            ]
        )
        if asked is not None:
            checks.append((f"{name}: {share:.2f} of the floor, asked 0.60", share >= asked))
    return Result(
        "Ingest, one core",
        ("source", "pictures", "floor ms", "ours ms", "pictures/s", "MB/s", "share of floor"),
        rows,
        "CPU time of one worker, start-up excluded, median of paired runs. Floor: the least code that gives the same "
        "rows, i.e. read the bytes, sha256, parse the annotations, pycocotools convert + area + box, write both tables "
        "with the same columns and Parquet options; nothing is checked, counted, hashed again or synced. Ours adds "
        "every check, the headers of the pictures, the ledger, the plan and its slices, the fingerprint, the sha256 of "
        "each file and fsync. COCO's annotations are as many and as "
        "coarse as train2017's.",
        checks,
    )


def one_tar(tars: Path, images: int) -> Path:
    """The pictures of small sample tars in one, as SA-1B's hold thousands."""
    out = folder() / f"sa_{images:06d}.tar"
    if not out.exists():
        partial = out.with_suffix(".partial")
        with tarfile.open(partial, "w") as big:
            for path in sorted(tars.glob("*.tar")):
                with tarfile.open(path) as small:
                    for member in small:
                        big.addfile(member, small.extractfile(member))
        partial.rename(out)
    return out


def clean() -> None:
    """Remove what earlier rounds wrote; not a part of what is timed."""
    for name in ("ingest-ours", "ingest-floor"):
        shutil.rmtree(folder() / name, ignore_errors=True)


def _ingest(source: Source) -> int:
    out = folder() / "ingest-ours"
    size = 0
    with Lease(Folder(str(out))) as lease:
        worker = IngestWorker(IngestJob(source, str(out), lease.id, False))
        for plan in source.plans():
            for unit in plan.units:
                with Watch(unit.name, timeout_s=0) as watch:
                    worker.run(Task(unit.name, (unit, plan.key, plan.config)), watch)
                size += watch.tally["bytes"]
    return size


# -- floors --------------------------------------------------------------------------------------------------------


class _Rows:
    """Rows of both tables as the least code makes them: the same columns with the same values, nothing checked."""

    def __init__(self, license_: str) -> None:
        self._license = license_
        self._rows: dict[str, list[dict[str, Any]]] = {"images": [], "objects": []}

    def picture(self, name: str, data: bytes, width: int, height: int, **more: Any) -> None:
        row = {"image_id": name, "sha256": hashlib.sha256(data).hexdigest(), "width": width, "height": height}
        row |= {"source": "bench", "orientation": 1, "faces_blurred": False, "license": self._license}
        self._rows["images"].append(row | {"image": {"bytes": data, "path": name}} | more)

    def masks(self, name: str, rles: list[Any], records: list[dict[str, Any]], names: dict[int, str]) -> None:
        if not rles:
            return
        boxes = coco.toBbox(rles)
        boxes[:, 2:] += boxes[:, :2]
        areas = [area for start in range(0, len(rles), 255) for area in coco.area(rles[start : start + 255])]
        for number, (rle, box, area, record) in enumerate(zip(rles, boxes, areas, records, strict=True)):
            counts = rle["counts"]
            rest = {key: value for key, value in record.items() if not key.startswith(("segmentation", "bbox"))}
            self._rows["objects"].append(
                {
                    "object_id": f"{name}#{number}",
                    "image_id": name,
                    "kind": "object",
                    "category": names.get(record.get("category_id", -1)),
                    "box": box,
                    "area": area,
                    "predicted_iou": record.get("predicted_iou"),
                    "stability_score": record.get("stability_score"),
                    "source_json": orjson.dumps(rest).decode(),
                    "mask": {"size": rle["size"], "counts": counts.decode() if isinstance(counts, bytes) else counts},
                }
            )

    def write(self) -> int:
        out = folder() / "ingest-floor"
        out.mkdir(exist_ok=True)
        for name, rows in self._rows.items():
            schema = with_features(tables.TABLES[name].schema)
            with pq.ParquetWriter(str(out / f"{name}.parquet"), schema, **options(schema)) as writer:
                for start in range(0, len(rows), _FLOOR_BATCH):
                    part = rows[start : start + _FLOOR_BATCH]
                    arrays = [pa.array([row.get(field.name) for row in part], field.type) for field in schema]
                    writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
        return len(self._rows["images"])


def _coco_floor(images: Path, instances: Path, captions: Path) -> int:
    document = orjson.loads(instances.read_bytes())
    by_image, texts = defaultdict(list), defaultdict(list)
    for annotation in document["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    for caption in orjson.loads(captions.read_bytes())["annotations"]:
        texts[caption["image_id"]].append(caption["caption"])
    names = {category["id"]: category["name"] for category in document["categories"]}
    rows = _Rows("CC BY")
    for image in document["images"]:
        name, width, height = image["file_name"], image["width"], image["height"]
        rows.picture(name, (images / name).read_bytes(), width, height, captions=texts[image["id"]])
        records = [record for record in by_image[image["id"]] if not record["iscrowd"]]
        rows.masks(name, [_rle(record["segmentation"], height, width) for record in records], records, names)
    return rows.write()


def _ytvis_floor(frames: Path, annotations: Path) -> int:
    document = orjson.loads(annotations.read_bytes())
    by_video = defaultdict(list)
    for track in document["annotations"]:
        by_video[track["video_id"]].append(track)
    names = {category["id"]: category["name"] for category in document["categories"]}
    rows = _Rows("CC BY")
    for video in document["videos"]:
        for number, name in enumerate(video["file_names"]):
            rows.picture(name, (frames / name).read_bytes(), video["width"], video["height"], video_id=name[:5])
            seen = [track for track in by_video[video["id"]] if track["segmentations"][number] is not None]
            rles = [_rle(track["segmentations"][number], video["height"], video["width"]) for track in seen]
            small = ("id", "category_id", "iscrowd", "width", "height", "length")
            records = [{key: track[key] for key in small if key in track} for track in seen]
            rows.masks(name, rles, records, names)
    return rows.write()


def _sa1b_floor(path: Path) -> int:
    rows = _Rows("SA-1B")
    with tarfile.open(path) as tar:
        members = {member.name: member for member in tar}
        for name in members:
            if not name.endswith(".jpg"):
                continue
            data = tar.extractfile(members[name]).read()  # type: ignore[union-attr]
            record = orjson.loads(tar.extractfile(members[name[:-3] + "json"]).read())  # type: ignore[union-attr]
            rows.picture(name, data, record["image"]["width"], record["image"]["height"])
            found = record["annotations"]
            rows.masks(name, [annotation["segmentation"] for annotation in found], found, {})
    return rows.write()


def _rle(segmentation: Any, height: int, width: int) -> Any:
    found = coco.frPyObjects(segmentation, height, width)
    return coco.merge(found) if isinstance(found, list) else found
