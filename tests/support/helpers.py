"""Small sources in the true formats, and short ways to run things in this process."""

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from drawing import gradient

from refloom.ingest import job
from refloom.ingest.engine.pool import Pool
from refloom.ingest.source import Source
from refloom.schemas import masks, pictures
from refloom.schemas.dataset import Dataset

HERE = Pool(workers=0)


def ingest(source: Source, out: Path | str, **options: Any) -> Dataset:
    """Ingest in this process; returns the dataset."""
    job.ingest(source, str(out), job.Options(**options), HERE)
    return Dataset(str(out))


def ledger(dataset: Dataset, stage: str = "ingest") -> dict[tuple[str, str, int], str]:
    """(kind, id, occurrence) to reason of everything that was left out."""
    rows = dataset.ledger(stage).to_pylist()
    return {(row["kind"], row["item_id"], row["occurrence"]): row["reason"] for row in rows}


def object_ids(dataset: Dataset) -> set[str]:
    return set(dataset.read("objects", ["object_id"])["object_id"].to_pylist())


def image_ids(dataset: Dataset) -> list[str]:
    ids: list[str] = dataset.read("images", ["image_id"])["image_id"].to_pylist()
    return ids


def blob(width: int, height: int, seed: int) -> np.ndarray:
    """A filled ellipse somewhere in (height, width), as 0 and 1."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    centre_x, centre_y = rng.uniform(0.3, 0.7, 2) * (width, height)
    radius_x, radius_y = rng.uniform(0.1, 0.25, 2) * (width, height)
    return (((x - centre_x) / radius_x) ** 2 + ((y - centre_y) / radius_y) ** 2 <= 1).astype(np.uint8)


def write_coco(
    root: Path, count: int, *, objects: int = 2, size: tuple[int, int] = (64, 48)
) -> tuple[Path, Path, Path]:
    """A COCO tree of small pictures; returns the folder of pictures, the instances and the captions."""
    width, height = size
    (root / "val2017").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    captions: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        name = f"{number:012d}.jpg"
        (root / "val2017" / name).write_bytes(pictures.encode_jpeg(gradient(width, height, number), 92))
        images.append({"id": number, "file_name": name, "width": width, "height": height, "license": 1})
        captions.append({"id": number, "image_id": number, "caption": f"A cat and a dog, number {number}"})
        for index in range(objects):
            mask = masks.encode(blob(width, height, 100 * number + index))
            x0, y0, x1, y1 = masks.tight_boxes([mask])[0].tolist()
            annotations.append(
                {
                    "id": 10 * number + index,
                    "image_id": number,
                    "category_id": 1 + index % 2,
                    "iscrowd": 0,
                    "segmentation": mask,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": int(masks.areas([mask])[0]),
                }
            )
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    licenses = [{"id": 1, "name": "CC BY 4.0", "url": ""}]
    instances = root / "instances_val2017.json"
    texts = root / "captions_val2017.json"
    instances.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories, "licenses": licenses})
    )
    texts.write_text(json.dumps({"images": images, "annotations": captions}))
    return root / "val2017", instances, texts


def sa1b_record(number: int, width: int, height: int, count: int) -> dict[str, Any]:
    """An SA-1B record with `count` masks."""
    annotations = []
    for index in range(count):
        mask = masks.encode(blob(width, height, 1000 * number + index))
        x0, y0, x1, y1 = masks.tight_boxes([mask])[0].tolist()
        annotations.append(
            {
                "id": index,
                "segmentation": mask,
                "bbox": [x0, y0, x1 - x0 - 1, y1 - y0 - 1],
                "area": int(masks.areas([mask])[0]),
                "predicted_iou": 0.95,
                "stability_score": 0.97,
                "crop_box": [0, 0, width, height],
                "point_coords": [[x0, y0]],
            }
        )
    image = {"image_id": number, "width": width, "height": height, "file_name": f"sa_{number}.jpg"}
    return {"image": image, "annotations": annotations}


def write_tar(path: Path, members: Iterable[tuple[str, bytes]], mode: str = "w") -> Path:
    """A tar of regular files."""
    with tarfile.open(path, mode) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def sa1b_members(
    numbers: Iterable[int], *, size: tuple[int, int] = (64, 48), count: int = 3
) -> list[tuple[str, bytes]]:
    """Pictures and records of an SA-1B tar."""
    members = []
    for number in numbers:
        picture = pictures.encode_jpeg(gradient(*size, number), 92)
        members.append((f"sa_{number}.jpg", picture))
        members.append((f"sa_{number}.json", json.dumps(sa1b_record(number, *size, count)).encode()))
    return members


def write_ytvis(
    root: Path, *, videos: int = 2, frames: int = 4, tracks: int = 2, size: tuple[int, int] = (64, 48)
) -> Path:
    """A YouTube-VIS tree; returns the annotation json, beside JPEGImages."""
    width, height = size
    listed: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for video in range(1, videos + 1):
        names = [f"v{video}/{5 * frame:05d}.jpg" for frame in range(frames)]
        (root / "JPEGImages" / f"v{video}").mkdir(parents=True, exist_ok=True)
        for frame, name in enumerate(names):
            data = pictures.encode_jpeg(gradient(width, height, 50 * video + frame), 92)
            (root / "JPEGImages" / name).write_bytes(data)
        listed.append({"id": video, "width": width, "height": height, "length": frames, "file_names": names})
        for track in range(tracks):
            found = [
                masks.encode(blob(width, height, 7000 * video + 50 * track + frame // 2)) for frame in range(frames)
            ]
            tight = [masks.tight_boxes([mask])[0].tolist() for mask in found]
            annotations.append(
                {
                    "id": 10 * video + track,
                    "video_id": video,
                    "category_id": 1 + track % 2,
                    "iscrowd": 0,
                    "segmentations": [mask if frame or not track else None for frame, mask in enumerate(found)],
                    "bboxes": [
                        [x0, y0, x1 - x0, y1 - y0] if frame or not track else None
                        for frame, (x0, y0, x1, y1) in enumerate(tight)
                    ],
                    "areas": [
                        int(masks.areas([mask])[0]) if frame or not track else None for frame, mask in enumerate(found)
                    ],
                }
            )
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "giant_panda"}]
    path = root / "instances.json"
    path.write_text(json.dumps({"videos": listed, "annotations": annotations, "categories": categories}))
    return path
