"""What the tests of exports share: a small curated dataset of several sources, and the command in this process."""

import argparse
from pathlib import Path
from typing import Any

from drawing import encoded, gradient
from helpers import HERE, ingest, write_coco
from PIL import Image

from refloom.cli import build_parser
from refloom.cli.export import export
from refloom.curation.annotate.settings import Filter, Models
from refloom.curation.compose.settings import Compose
from refloom.curation.config import Curation
from refloom.curation.job import curate
from refloom.curation.select.settings import Select
from refloom.ingest.sources.coco import Coco
from refloom.ingest.sources.subjects import Subjects
from refloom.schemas import pictures
from refloom.schemas.dataset import Dataset
from refloom.schemas.unit import UnitKey, UnitWriter

CONFIG = Curation(
    models=Models(face="none", image_embedding="none", classifier="none"),
    filter=Filter(min_area_px=20, min_area_share=0.0),
    select=Select(min_area_share=0.0, min_short_side_px=4.0, min_quality=0.0),
    compose=Compose(frames_per_sample=2, samples_per_video=1, min_face_px=8),
)


def run(dataset: Dataset | Path, out: Path, kind: str, **options: Any) -> int:
    words = [str(dataset.url if isinstance(dataset, Dataset) else dataset), str(out), "--format", kind]
    values = vars(build_parser().parse_args(["export", *words])) | options
    return export(argparse.Namespace(**values))


def make_mixed(root: Path) -> Dataset:
    """COCO, subject folders, a turned picture, faces: curated."""
    images, instances, captions = write_coco(root / "coco", 6)
    ingest(Coco(images=str(images), instances=str(instances), captions=str(captions)), root / "data")
    for number in range(4):
        place = root / "subjects" / "red thing"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.jpg").write_bytes(pictures.encode_jpeg(gradient(70, 50, number)))
    turned = Image.fromarray(gradient(70, 50, 9))
    exif = Image.Exif()
    exif[0x0112] = 6
    (place / "turned.jpg").write_bytes(encoded(turned, "JPEG", exif=exif, quality=95))
    ingest(Subjects(directory=str(root / "subjects"), phrase_from_folder=True), root / "data")
    curate(str(root / "data"), CONFIG, HERE, until="measure")
    dataset = Dataset(str(root / "data"))
    for unit in dataset.units():
        _write_faces(dataset, unit)
    curate(dataset.url, CONFIG, HERE)
    return Dataset(dataset.url)


def _write_faces(dataset: Dataset, unit: str) -> None:
    """A face on the first two pictures of a unit, as a detector would have found it."""
    with UnitWriter(dataset.folder, UnitKey("face", unit, "x")) as out:
        for image_id in dataset.read("images", ["image_id"], unit=unit)["image_id"].to_pylist()[:2]:
            for number in range(2):
                edge = 2.0 + 20 * number
                face = {"face_id": f"{image_id}@{number}", "image_id": image_id, "det_score": 0.9 - 0.1 * number}
                face |= {"box": [edge, 2.0, edge + 16.0, 18.0], "landmarks": [[edge + 4, 6.0]] * 5}
                out.add("faces", face | {"crop_box": [edge, 2.0, edge + 16.0, 18.0]})
            out.expect("image", 1)
            out.keep("image")


def rows(dataset: Dataset, table: str, columns: list[str]) -> dict[str, dict[str, Any]]:
    found = dataset.read(table, columns).to_pylist()
    return {row[columns[0]]: row for row in found}
