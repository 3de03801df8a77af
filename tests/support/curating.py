"""Small datasets for tests of curation: shapes drawn by hand, sources made of them, loose settings, made embeddings."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from drawing import gradient
from helpers import HERE, ingest

from refloom.curation.annotate.settings import Filter, Models
from refloom.curation.compose.settings import Compose
from refloom.curation.config import Curation
from refloom.curation.dedup.settings import Dedup
from refloom.curation.group.matches import lead, write_matches
from refloom.curation.job import curate
from refloom.curation.select.settings import Select
from refloom.ingest.sources.coco import Coco
from refloom.ingest.sources.easyref import EasyRef
from refloom.ingest.sources.ytvis import YouTubeVis
from refloom.schemas import masks, pictures
from refloom.schemas.dataset import Dataset
from refloom.schemas.ids import image_of
from refloom.schemas.masks import Mask
from refloom.schemas.unit import UnitKey, UnitWriter

Box = tuple[int, int, int, int]

EVERYTHING = Select(
    min_area_share=0.0,
    max_area_share=1.0,
    max_unnamed_box_share=2.0,
    min_short_side_px=0.0,
    max_aspect=1e6,
    min_box_fill=0.0,
    max_border_share=1.0,
    min_largest_part=0.0,
    max_contained=1.0,
    min_mask_confidence=0.0,
    min_quality=0.0,
    min_whole_quality=0.0,
)
"""Bounds that no scored object breaks."""

LOOSE = Curation(
    models=Models(face="none", image_embedding="none", classifier="none"),
    filter=Filter(min_area_px=1, min_area_share=0.0, max_area_share=1.0, min_short_side_px=1.0, min_box_fill=0.0),
    dedup=Dedup(by=()),  # drawn pictures are alike
    select=EVERYTHING,
    compose=Compose(frames_per_sample=2, samples_per_video=1),
)
"""No models, and everything that can be scored is kept."""


def rectangle(box: Box, width: int, height: int) -> Mask:
    """A filled box as a mask of a picture."""
    pixels = np.zeros((height, width), np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 1
    return masks.encode(pixels)


def annotated(mask: Mask, number: int, category: int) -> dict[str, Any]:
    """A COCO annotation, without its picture."""
    x0, y0, x1, y1 = masks.tight_boxes([mask])[0].tolist()
    area = int(masks.areas([mask])[0])
    box = [x0, y0, x1 - x0, y1 - y0]
    return {
        "id": number,
        "category_id": category,
        "iscrowd": 0,
        "segmentation": mask,
        "bbox": box,
        "area": area,
    }


def coco(
    root: Path,
    scenes: Sequence[Mapping[str, Box]],
    *,
    split: str = "val",
    captions: Mapping[int, str] | None = None,
    size: tuple[int, int] = (96, 80),
    first: int = 1,
    **options: Any,
) -> Coco:
    """A COCO source of one picture per scene; a scene maps `<category>` or `<category> <anything>` to a box."""
    width, height = size
    folder = root / f"{split}2017"
    folder.mkdir(parents=True, exist_ok=True)
    names = sorted({_category(name) for scene in scenes for name in scene} or {"thing"})
    images, annotations = [], []
    for number, scene in enumerate(scenes, first):
        data = pictures.encode_jpeg(gradient(width, height, number), 92)
        (folder / f"{number:012d}.jpg").write_bytes(data)
        images.append({"id": number, "file_name": f"{number:012d}.jpg", "width": width, "height": height})
        for index, (name, box) in enumerate(scene.items()):
            entry = annotated(rectangle(box, width, height), 100 * number + index, 1 + names.index(_category(name)))
            annotations.append(entry | {"image_id": number})
    categories = [{"id": 1 + index, "name": name} for index, name in enumerate(names)]
    instances = root / f"instances_{split}2017.json"
    instances.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    texts = None
    if captions is not None:
        said = [{"id": image, "image_id": image, "caption": text} for image, text in captions.items()]
        (root / f"captions_{split}2017.json").write_text(json.dumps({"images": images, "annotations": said}))
        texts = str(root / f"captions_{split}2017.json")
    return Coco(images=str(folder), instances=str(instances), captions=texts, **options)


def _category(name: str) -> str:
    return name.split(" ")[0]


def ytvis(
    root: Path,
    videos: Mapping[str, Mapping[str, Sequence[Box | None]]],
    *,
    split: str = "train",
    size: tuple[int, int] = (96, 80),
    **options: Any,
) -> YouTubeVis:
    """A YouTube-VIS source: video to track to its box in each frame, None or nothing where it is not seen.

    Frames are numbered 0, 5, 10 ...
    """
    width, height = size
    names = sorted({_category(track) for tracks in videos.values() for track in tracks})
    listed: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for video, (title, tracks) in enumerate(videos.items(), 1):
        frames = max(len(path) for path in tracks.values())
        files = [f"{title}/{5 * frame:05d}.jpg" for frame in range(frames)]
        (root / "JPEGImages" / title).mkdir(parents=True, exist_ok=True)
        for frame, file in enumerate(files):
            data = pictures.encode_jpeg(gradient(width, height, 1000 * video + frame), 92)
            (root / "JPEGImages" / file).write_bytes(data)
        listed.append({"id": video, "width": width, "height": height, "length": frames, "file_names": files})
        for track, path in tracks.items():
            boxes = [*path, *[None] * (frames - len(path))]
            seen = [None if box is None else annotated(rectangle(box, width, height), 0, 0) for box in boxes]
            number = len(annotations) + 1
            annotations.append(
                {
                    "id": number,
                    "video_id": video,
                    "category_id": 1 + names.index(_category(track)),
                    "iscrowd": 0,
                    "segmentations": [one and one["segmentation"] for one in seen],
                    "bboxes": [one and one["bbox"] for one in seen],
                    "areas": [one and one["area"] for one in seen],
                }
            )
    categories = [{"id": 1 + index, "name": name} for index, name in enumerate(names)]
    path = root / f"instances_{split}.json"
    path.write_text(json.dumps({"videos": listed, "annotations": annotations, "categories": categories}))
    return YouTubeVis(frames=str(root / "JPEGImages"), annotations=str(path), **options)


def easyref(root: Path, records: Sequence[tuple[str, Sequence[str]]], **options: Any) -> EasyRef:
    """An EasyRef source of (target, references) records."""
    (root / "pictures").mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(sorted({name for target, others in records for name in (target, *others)})):
        (root / "pictures" / name).write_bytes(pictures.encode_jpeg(gradient(80, 72, 300 + number), 92))
    document = [{"target": target, "text": f"about {target}", "image_file": list(others)} for target, others in records]
    (root / "records.json").write_text(json.dumps(document))
    return EasyRef(records=str(root / "records.json"), images=str(root / "pictures"), **options)


def folders(root: Path, subjects: Mapping[str, int]) -> Path:
    """Folders of pictures, one per subject."""
    for place, (name, count) in enumerate(subjects.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            data = pictures.encode_jpeg(gradient(80, 72, 100 * place + number), 92)
            (root / name / f"{number:02d}.jpg").write_bytes(data)
    return root


def curated(root: Path, *sources: Any, config: Curation = LOOSE, **options: Any) -> Dataset:
    """Ingest sources and curate them in this process."""
    for source in sources:
        ingest(source, root / "data")
    curate(str(root / "data"), config, HERE, **options)
    return Dataset(str(root / "data"))


def composing(**settings: Any) -> Curation:
    """Loose settings with others for `compose`."""
    return replace(LOOSE, compose=replace(LOOSE.compose, **settings))


def embed(dataset: Dataset, vectors: Mapping[str, Sequence[float]]) -> None:
    """Commit embeddings of objects, by object id; vectors are made unit length."""
    for unit in dataset.units():
        rows = dataset.read("objects", ["object_id", "image_id"], unit=unit).to_pylist()
        with UnitWriter(dataset.folder, UnitKey("embed", unit, "made")) as out:
            for row in rows:
                if row["object_id"] in vectors:
                    vector = np.array(vectors[row["object_id"]], np.float32)
                    out.expect("object")
                    out.add("embeddings", row | {"embedding": vector / np.linalg.norm(vector)})
                    out.keep("object")
    dataset.refresh()


def with_faces(dataset: Dataset, *faces: tuple[str, str | None, list[float]], **columns: Any) -> None:
    """Commit faces: the picture, the object that holds it, the box; landmarks are the box's corners.

    Args:
        dataset: of one unit.
        faces: see above.
        columns: what else all of their rows hold.
    """
    (unit,) = dataset.units()
    with UnitWriter(dataset.folder, UnitKey("face", unit, "made")) as out:
        for number, (image_id, object_id, box) in enumerate(faces):
            x0, y0, x1, y1 = box
            points = [[x0, y0], [x1, y0], [x0, y1], [x1, y1], [float("nan")] * 2]
            row = {"face_id": f"{image_id}@{number}", "image_id": image_id, "object_id": object_id, "box": box}
            out.expect("image")
            out.add("faces", row | {"landmarks": points, "det_score": 1 - number / 10, "crop_box": box} | columns)
            out.keep("image")
    dataset.refresh()


def samples(dataset: Dataset) -> dict[str, dict[str, Any]]:
    """Sample id to sample; ids are unique."""
    rows = dataset.read("samples").to_pylist()
    found = {row["sample_id"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def appearances(sample: dict[str, Any]) -> list[dict[str, Any]]:
    """All appearances of a sample's subjects."""
    return [appearance for subject in sample["subjects"] for appearance in subject["appearances"]]


def match(dataset: Dataset, groups: Mapping[str, Sequence[str]], config: Curation = LOOSE) -> Dataset:
    """Commit groups over the whole dataset, by id such as `look/<first member>`, and do what follows from them.

    Each lies in the unit of its first member, as the stage would have it.
    """
    where = {
        image_id: unit
        for unit in dataset.units()
        for image_id in dataset.read("images", ["image_id"], unit=unit)["image_id"].to_pylist()
    }
    rows = [
        lead(
            {"group_id": name, "kind": name.partition("/")[0], "members": sorted(members)},
            {member: where[image_of(member)] for member in members},
        )
        for name, members in groups.items()
    ]
    for unit in dataset.units():
        with UnitWriter(dataset.folder, UnitKey("match", unit, "made")) as out:
            write_matches([without(row, "unit") for row in rows if row["unit"] == unit], out)
    curate(dataset.url, config, HERE, names={"group", "split", "balance", "compose"}, replace=True)
    return Dataset(dataset.url)


def without(row: dict[str, Any], name: str) -> dict[str, Any]:
    """A row without a column."""
    return {key: value for key, value in row.items() if key != name}
