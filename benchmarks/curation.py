"""Curation without network models as a share of decoding, on one core."""

import cv2
from pycocotools import mask as coco

from benchmarks.data import folder, sample
from benchmarks.table import Result, paired
from refloom.curation.annotate import quality
from refloom.curation.config import Curation
from refloom.curation.group.groups import Ties
from refloom.curation.objects import ObjectStream
from refloom.curation.stages import CurationRun
from refloom.curation.worker import CurateJob, CurateWorker, Visit
from refloom.ingest import job
from refloom.ingest.engine.pool import Pool, Task
from refloom.ingest.engine.watch import Watch
from refloom.ingest.source import Source
from refloom.ingest.sources.coco import Coco
from refloom.ingest.sources.sa1b import Sa1b
from refloom.schemas import boxes, pictures
from refloom.schemas.dataset import Dataset
from refloom.schemas.lease import Lease
from refloom.schemas.masks import Mask

_STAGES = ("measure", "quality")
_EDGES_SIDE_PX = 128

Corners = tuple[int, int, int, int]


def run(quick: bool) -> Result:
    """Share of the floor for COCO-like and SA-1B-like pictures."""
    cv2.setNumThreads(1)
    images, videos = (60, 4) if quick else (600, 30)
    tree = sample(images, videos)
    cases: dict[str, Source] = {
        "COCO": Coco(
            images=str(tree / "coco/train2017"), instances=str(tree / "coco/annotations/instances_train2017.json")
        ),
        "SA-1B": Sa1b(tars=(str(sorted((tree / "sa1b").glob("*.tar"))[0]),)),
    }
    rows, checks = [], []
    for name, source in cases.items():
        url = str(folder() / f"curation-{name.lower()}-{images}")
        job.ingest(source, url, job.Options(), Pool(workers=0))
        wanted = _wanted(url)
        least, took, share = paired(lambda: _decode(wanted), lambda: _curate(url), 2 if quick else 5)  # noqa: B023
        masks = sum(len(found) for _, found in wanted) / len(wanted)
        cells = [name, f"{len(wanted):,}", f"{masks:.1f}", f"{least / len(wanted) * 1e3:.2f}"]
        rows.append([*cells, f"{took / len(wanted) * 1e3:.2f}", f"{len(wanted) / took:,.0f}", f"{share:.2f}"])
        checks.append((f"{name}: {share:.2f} of the floor, asked 0.50", share >= 0.5))
    return Result(
        "Curation without network models, one core",
        ("source", "pictures", "masks a picture", "floor ms", "ours ms", "pictures/s", "share of floor"),
        rows,
        "CPU time of one worker, median of paired runs. Floor: decode each picture once and, with pycocotools, each "
        "mask that passes the decode-free filter, and find the edges in its box at 128 px. Ours: measure and quality "
        "from Parquet to committed Parquet.",
        checks,
    )


def _wanted(url: str) -> list[tuple[bytes, list[tuple[Mask, Corners]]]]:
    """What the floor looks at: every picture, and the masks that pass the filter, with their boxes."""
    dataset, config = Dataset(url), Curation()
    wanted = []
    for unit in dataset.units():
        objects = ObjectStream(dataset, unit)
        for batch in dataset.batches("images", ["image_id", "width", "height", "image"], unit=unit):
            for row in batch.to_pylist():
                found = objects.take(row["image_id"])
                free = quality.decode_free(found, row["width"], row["height"])
                reasons = quality.filter_reasons(found, free, config.filter)
                inner = [boxes.pad(box, row["width"], row["height"]) for box in found.boxes]
                judged = zip(found.masks, inner, reasons, strict=True)
                passed = [(mask, box) for mask, box, reason in judged if mask and reason is None]
                wanted.append((row["image"]["bytes"], passed))
    return wanted


def _decode(wanted: list[tuple[bytes, list[tuple[Mask, Corners]]]]) -> None:
    for data, found in wanted:
        rgb = pictures.decode(data)
        for mask, (x0, y0, x1, y1) in found:
            coco.decode(mask)
            scale = min(1.0, _EDGES_SIDE_PX / max(x1 - x0, y1 - y0))
            size = (max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale)))
            small = cv2.resize(rgb[y0:y1, x0:x1], size, interpolation=cv2.INTER_LINEAR)
            for way in ((1, 0), (0, 1)):
                cv2.Sobel(small, cv2.CV_16S, *way)


def _curate(url: str) -> None:
    dataset = Dataset(url)
    with Lease(dataset.folder) as lease:
        worker = CurateWorker(CurateJob(url, CurationRun(Curation(), {}, _STAGES), lease.id))
        for unit in dataset.units():
            for stage in _STAGES:
                dataset.drop(stage, unit)
            with Watch(unit, timeout_s=0) as watch:
                worker.run(Task(unit, Visit(_STAGES, Ties())), watch)
