"""`refloom inspect`: sizes that agree with the manifests, rows in words, and drawings that show what lies on them."""

import argparse
import io
import json
from typing import Any

import numpy as np
import pytest
from drawing import gradient
from helpers import HERE, ingest, write_coco, write_ytvis
from PIL import Image

from refloom.cli.browse import inspect
from refloom.curation.annotate.settings import Filter, Models
from refloom.curation.compose.settings import Compose
from refloom.curation.config import Curation
from refloom.curation.job import curate
from refloom.curation.select.settings import Select
from refloom.ingest.sources.coco import Coco
from refloom.ingest.sources.subjects import Subjects
from refloom.ingest.sources.ytvis import YouTubeVis
from refloom.schemas import masks, pictures
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused
from refloom.viewing.browse import inspection
from refloom.viewing.browse.png import draw

CONFIG = Curation(
    models=Models(face="none", image_embedding="none", classifier="none"),
    filter=Filter(min_area_px=20, min_area_share=0.0),
    select=Select(min_area_share=0.0, min_short_side_px=4.0, min_quality=0.0),
    compose=Compose(frames_per_sample=2, samples_per_video=1),
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    root = tmp_path_factory.mktemp("inspect")
    images, instances, captions = write_coco(root / "coco", 4)
    ingest(Coco(images=str(images), instances=str(instances), captions=str(captions)), root / "data")
    ingest(YouTubeVis(frames=str(root / "yt/JPEGImages"), annotations=str(write_ytvis(root / "yt"))), root / "data")
    for number in range(3):
        (root / "subjects/thing").mkdir(parents=True, exist_ok=True)
        (root / "subjects/thing" / f"{number}.jpg").write_bytes(pictures.encode_jpeg(gradient(60, 60, number)))
    ingest(Subjects(directory=str(root / "subjects")), root / "data")
    curate(str(root / "data"), CONFIG, HERE)
    return Dataset(str(root / "data"))


def run(dataset: Dataset, **options: Any) -> int:
    values = {"id": None, "table": None, "draw": None, "json": False} | options
    return inspect(argparse.Namespace(dataset=dataset.url, **values))


def test_sizes_are_those_of_the_manifests(dataset):
    found = inspection.sizes(dataset)
    summary = dataset.table_summary()
    assert {name: entry["rows"] for name, entry in found.items()} == {
        name: entry["rows"] for name, entry in summary.items() if entry["rows"]
    }
    files = [file for manifest in dataset.manifests("ingest").values() for file in manifest.files_of("images")]
    assert found["images"]["bytes"] == sum(file.bytes for file in files)
    assert found["images"]["kinds"] == {"ytvis": 8, "coco": 4, "subjects": 3}
    assert sum(split["rows"] for split in found["samples"]["splits"].values()) == found["samples"]["rows"]
    assert sum(found["selection"]["kinds"].values()) == found["objects"]["rows"]


def test_a_row_is_found_by_any_kind_of_id(dataset):
    ids = {
        "images": dataset.read("images", ["image_id"])["image_id"][0].as_py(),
        "objects": dataset.read("objects", ["object_id"])["object_id"][0].as_py(),
        "groups": dataset.read("groups", ["group_id"])["group_id"][0].as_py(),
        "samples": dataset.read("samples", ["sample_id"])["sample_id"][0].as_py(),
        "source_groups": "subjects/thing",
    }
    for table, identity in ids.items():
        found = inspection.find(dataset, identity, None)
        assert found is not None
        assert (found.table, identity in found.row.values()) == (table, True)
        json.dumps(inspection.as_json(found), allow_nan=False)
    assert inspection.find(dataset, ids["objects"], "object_scores").table == "object_scores"
    with pytest.raises(Refused, match="has the id"):
        inspection.find(dataset, "coco/nobody", None)
    with pytest.raises(Refused, match="no rows in faces"):
        inspection.find(dataset, None, "faces")
    with pytest.raises(Refused, match="no table"):
        run(dataset, table="pictures")


def test_bytes_masks_and_vectors_are_said_in_words():
    mask = masks.encode(np.eye(10, dtype=np.uint8))
    assert inspection.brief(mask) == "mask of 10x10, 10 px set (10.0 %)"
    assert inspection.brief(pictures.encode_jpeg(gradient(30, 20))).startswith("JPEG 30x20, ")
    assert inspection.brief(b"no picture") == "not_an_image, 10 B"
    assert inspection.brief([0.6, 0.8] + [0.0] * 510) == "512 numbers, length 1"
    assert inspection.brief([1.0, 2.5]) == "[1, 2.50]"
    assert inspection.brief({"size": [10, 10], "counts": "broken"}) is None
    assert inspection.brief(None) == "–"


def test_the_command_prints_lines_or_json_and_draws(dataset, tmp_path, capsys):
    assert run(dataset, draw=str(tmp_path / "row.png")) == 0
    text = capsys.readouterr().out
    assert "samples, unit" in text
    assert "images:" in text
    assert len(text) < 20_000
    assert Image.open(tmp_path / "row.png").format == "PNG"
    assert run(dataset, json=True, id="coco/000000000001", draw=str(tmp_path / "row.png")) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["tables"]["images"]["rows"] == 15
    assert value["row"]["image"]["bytes"]["format"] == "JPEG"


@pytest.mark.parametrize("table", ["images", "objects", "groups", "samples", "selection", "object_scores"])
def test_every_kind_of_row_is_drawn(dataset, table):
    image = Image.open(io.BytesIO(draw(dataset, inspection.find(dataset, None, table))))
    assert min(image.size) > 100
    assert np.asarray(image.convert("RGB")).std() > 10


def test_a_drawing_shows_the_mask_where_it_is(dataset):
    found = inspection.find(dataset, "coco/000000000001", None)
    shown = np.asarray(Image.open(io.BytesIO(draw(dataset, found))).convert("RGB"), np.float32)[8:-8, 8:-8]
    plain = pictures.decode(found.row["image"]["bytes"])
    height, width = shown.shape[:2]
    grown = np.asarray(Image.fromarray(plain).resize((width, height), Image.Resampling.LANCZOS), np.float32)
    change = np.abs(shown - grown).sum(axis=2)
    rows = dataset.read("objects", ["image_id", "mask"]).to_pylist()
    own = [masks.decode(row["mask"]) for row in rows if row["image_id"] == "coco/000000000001"]
    union = Image.fromarray(np.any(own, axis=0).astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST)
    inside = np.asarray(union) > 0
    assert (change[inside] > 8).mean() > 0.95
    assert (change[~inside] > 8).mean() < 0.2  # boxes and labels


def test_a_dataset_of_nothing_but_its_name_is_said_so(tmp_path, capsys):
    empty = Dataset(str(tmp_path / "empty"), create=True)
    assert run(empty, draw=str(tmp_path / "row.png")) == 0
    assert "no rows" in capsys.readouterr().out
    assert Image.open(tmp_path / "row.png").size[0] > 0
