"""Records that claim more work than a picture can be: outlines, parts, objects in a label map, slow pictures."""

import io
import json

import numpy as np
import pytest
from drawing import encoded, gradient
from helpers import image_ids, ingest, ledger, write_coco, write_tar
from PIL import Image
from pycocotools import mask as coco
from slowfiles import bombs

from refloom.ingest import labelmap
from refloom.ingest.sources.coco import Coco
from refloom.ingest.sources.easyref import EasyRef
from refloom.ingest.sources.folder import PlainPictures
from refloom.ingest.sources.sa1b import Sa1b
from refloom.ingest.sources.subject10k import Subject10k
from refloom.ingest.sources.subjects import Subjects
from refloom.ingest.sources.vos import Vos
from refloom.schemas import masks
from refloom.schemas.errors import Rejected
from refloom.schemas.verify import verify

SLOW = [
    "progressive JPEG of 100 scans",
    "TIFF of 20,000 directories",
    "GIF of a comment of 8 MB",
    "APNG of 2**31 - 1 frames",
]


def zigzag(points: int, height: int, width: int) -> list[float]:
    """A polygon that goes to and fro across the picture."""
    return [float(value) for at in range(points) for value in ((at % 2) * width, at * height / points)]


@pytest.fixture
def drawn(monkeypatch) -> list[int]:
    """How many polygons pycocotools was given, call by call."""
    calls: list[int] = []
    draw = coco.frPyObjects

    def counting(parts, *size):
        calls.append(len(parts))
        return draw(parts, *size)

    monkeypatch.setattr(coco, "frPyObjects", counting)
    return calls


def test_an_outline_that_fills_the_memory_is_refused_undrawn(drawn):
    square = [[10.0, 10.0, 50.0, 10.0, 50.0, 50.0, 10.0, 50.0]]
    found, pixels = masks.read([[zigzag(50_000, 4000, 4000)], square, [*square * 20_000]], 4000, 4000)
    assert [one.reason for one in found if isinstance(one, Rejected)] == ["too_complex", "too_complex"]
    assert pixels[1] == 1600
    assert drawn == [1]


def test_of_many_long_outlines_of_a_picture_the_first_are_taken(drawn, monkeypatch):
    monkeypatch.setattr(masks, "MAX_OUTLINES_PX", 1_000_000)
    long = [zigzag(90, 1000, 1000)]
    found, _ = masks.read([long] * 20, 1000, 1000)
    refused = [at for at, one in enumerate(found) if isinstance(one, Rejected)]
    assert refused == list(range(11, 20))
    assert drawn == [11]


def test_a_detailed_outline_is_still_taken():
    angles = np.linspace(0, 2 * np.pi, 20_000, endpoint=False)
    outline = np.stack([2000 + 1500 * np.cos(angles), 2000 + 1500 * np.sin(angles)], 1).ravel().tolist()
    (mask,), pixels = masks.read([[outline]], 4000, 4000)
    assert not isinstance(mask, Rejected)
    assert abs(pixels[0] / (np.pi * 1500**2) - 1) < 0.001


def test_in_a_set_the_outline_costs_itself(tmp_path):
    images, instances, _ = write_coco(tmp_path, 2)
    value = json.loads(instances.read_text())
    value["annotations"][0]["segmentation"] = [zigzag(200_000, 48, 64)]
    instances.write_text(json.dumps(value))
    dataset = ingest(Coco(images=str(images), instances=str(instances)), tmp_path / "out")
    assert ledger(dataset) == {("annotation", "coco/000000000001#10", 0): "too_complex"}
    assert verify(dataset).sound


def test_label_maps_are_not_searched_for_thousands_of_objects(tmp_path, monkeypatch):
    monkeypatch.setattr(labelmap, "MAX_TRACED_PIXELS", 64 * 48 * 100)
    traced = []
    monkeypatch.setattr(masks, "encode", lambda mask: traced.append(mask))
    # subject10k: boxes of one json
    for part in ("images", "masks", "jsons"):
        (tmp_path / "subjects" / part).mkdir(parents=True)
    picture = encoded(Image.fromarray(gradient(64, 48, 1)), "PNG")
    values = np.arange(64 * 48, dtype=np.uint16).reshape(48, 64)
    label_png = encoded(Image.fromarray(values), "PNG")
    (tmp_path / "subjects/images/a.png").write_bytes(picture)
    (tmp_path / "subjects/masks/a.png").write_bytes(label_png)
    entry = {"value": 1, "label": "dog", "box": [0, 0, 64, 48], "logit": 0.5}
    (tmp_path / "subjects/jsons/a.json").write_text(json.dumps({"text": "a", "final_masks": [entry] * 300}))
    dataset = ingest(Subject10k(directory=str(tmp_path / "subjects")), tmp_path / "one")
    assert set(ledger(dataset).values()) == {"too_complex"}
    assert image_ids(dataset) == ["subject10k/a"]
    # VOS: values of one PNG, and objects of one meta.json
    objects = {str(at): {"category": "dog", "frames": ["00000"]} for at in range(1, 255)}
    for name, meta in (("found", None), ("listed", {"videos": {"v": {"objects": objects}}})):
        for top in ("JPEGImages", "Annotations"):
            (tmp_path / name / top / "v").mkdir(parents=True)
        Image.fromarray(gradient(64, 48, 1)).save(tmp_path / name / "JPEGImages/v/00000.jpg")
        (tmp_path / name / "Annotations/v/00000.png").write_bytes(label_png)
        if meta is not None:
            (tmp_path / name / "meta.json").write_text(json.dumps(meta))
        dataset = ingest(Vos(root=str(tmp_path / name)), tmp_path / f"{name}-out")
        reasons = {reason for (kind, *_), reason in ledger(dataset).items() if kind == "annotation"}
        assert reasons == {"too_complex"}
        assert image_ids(dataset) == ["vos/v/00000"]
    assert not traced


@pytest.mark.parametrize("what", SLOW)
def test_in_every_source_a_slow_picture_costs_itself(tmp_path, what):
    bomb, reason = bombs()[what]
    good = encoded(Image.fromarray(gradient(64, 48, 1)), "JPEG")
    (tmp_path / "pics").mkdir()
    (tmp_path / "pics/bad.jpg").write_bytes(bomb)
    (tmp_path / "pics/good.jpg").write_bytes(good)
    record = {"image": {"image_id": 1, "file_name": "sa_1.jpg"}, "annotations": []}
    tar = write_tar(tmp_path / "sa.tar", [("sa_1.jpg", bomb), ("sa_1.json", json.dumps(record).encode())])
    pictures = write_tar(tmp_path / "pics.tar", [("bad.jpg", bomb), ("good.jpg", good)])
    lines = tmp_path / "pics.jsonl"
    lines.write_text("".join(json.dumps({"file": f"pics/{name}.jpg", "text": "a"}) + "\n" for name in ("bad", "good")))
    records = tmp_path / "easyref.json"
    records.write_text(json.dumps([{"target": "good.jpg", "image_file": ["bad.jpg"], "text": "a"}]))
    (tmp_path / "subjects/one").mkdir(parents=True)
    for name, data in (("bad", bomb), ("good", good)):
        (tmp_path / f"subjects/one/{name}.jpg").write_bytes(data)
    sources = [
        PlainPictures(path=str(tmp_path / "pics")),
        PlainPictures(path=str(pictures)),
        PlainPictures(path=str(lines)),
        Sa1b(tars=(str(tar),)),
        EasyRef(records=str(records), images=str(tmp_path / "pics")),
        Subjects(directory=str(tmp_path / "subjects")),
    ]
    for at, source in enumerate(sources):
        dataset = ingest(source, tmp_path / f"out{at}")
        rejected = {item: why for (kind, item, _), why in ledger(dataset).items() if kind == "image"}
        assert list(rejected.values()) == [reason], source
        assert len(image_ids(dataset)) == (0 if isinstance(source, Sa1b) else 1)


def test_names_of_vast_length_and_number_in_a_webdataset_cost_themselves(tmp_path):
    good = encoded(Image.fromarray(gradient(64, 48, 1)), "JPEG")
    members = [
        (f"{'d/' * 2000}{'n' * 5000}.jpg", good),
        ("000.jpg", good),
        ("000.txt", b"x" * 2_000_000),
        ("000.json", b"[" * 200_000),
    ]
    path = tmp_path / "00000.tar"
    write_tar(path, members)
    dataset = ingest(PlainPictures(path=str(path)), tmp_path / "out")
    assert "folder/000.jpg" in image_ids(dataset)
    assert io.BytesIO(path.read_bytes()).getbuffer().nbytes > 2_000_000
