"""Turned pictures: what is drawn decides the frame, and no object is ever turned wrongly without a word."""

import io
import json

import numpy as np
import pytest
from bugreports import case
from drawing import encoded, gradient
from helpers import ingest, ledger
from PIL import Image

from refloom.ingest.admission import judge
from refloom.ingest.source import Annotation, Picture
from refloom.ingest.sources.coco import Coco
from refloom.schemas import masks
from refloom.schemas.verify import verify

WIDTH, HEIGHT = 64, 48
"""Of the stored pictures; those with orientation 6 are 48 wide and 64 high upright."""

TELLS_UPRIGHT = [4, 40, 30, 20]
TELLS_STORED = [40, 4, 20, 30]
TELLS_NOTHING = [10, 10, 20, 16]
"""Boxes, xywh: the first fits the upright picture only, the second the stored one only, the third both."""


def turned(orientation: int = 6, size: tuple[int, int] = (WIDTH, HEIGHT), seed: int = 0) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.fromarray(gradient(*size, seed)), "JPEG", exif=exif, quality=90)


def write(root, records) -> Coco:
    """A COCO tree; each record is the picture's bytes, its declared size or None, and its boxes."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number, (data, declared, boxes) in enumerate(records, 1):
        (root / "images" / f"{number}.jpg").write_bytes(data)
        size = {} if declared is None else dict(zip(("width", "height"), declared, strict=True))
        images.append({"id": number, "file_name": f"{number}.jpg", **size})
        for box in boxes:
            x, y, w, h = box
            polygon = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            fields = {"id": len(annotations), "image_id": number, "category_id": 1, "iscrowd": 0}
            annotations.append({**fields, "bbox": box, "segmentation": polygon})
    path = root / "set.json"
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
    path.write_text(json.dumps(content))
    return Coco(images=str(root / "images"), instances=str(path))


def boxes_of(dataset) -> dict[str, list[list[float]]]:
    found: dict[str, list[list[float]]] = {}
    for row in dataset.read("objects", ["image_id", "box"]).to_pylist():
        found.setdefault(str(int(row["image_id"].removeprefix("coco/"))), []).append(row["box"])
    return found


def upright(box: list[float]) -> list[float]:
    """A box, xywh, drawn on the stored picture of orientation 6, as xyxy of the upright one."""
    x, y, w, h = box
    return [HEIGHT - y - h, x, HEIGHT - y, x + w]


def as_drawn(box: list[float]) -> list[float]:
    x, y, w, h = box
    return [x, y, x + w, y + h]


@pytest.mark.parametrize("declared", [(WIDTH, HEIGHT), (HEIGHT, WIDTH), None, (0, 0)])
@pytest.mark.parametrize("told", [TELLS_UPRIGHT, TELLS_STORED])
def test_boxes_that_fit_one_frame_decide_whatever_is_declared(tmp_path, declared, told):
    dataset = ingest(write(tmp_path, [(turned(), declared, [TELLS_NOTHING, told])]), tmp_path / "out")
    expected = upright if told == TELLS_STORED else as_drawn
    assert boxes_of(dataset) == {"1": [expected(TELLS_NOTHING), expected(told)]}
    by_size = upright if declared == (WIDTH, HEIGHT) else as_drawn
    assert dataset.notes("ingest") == ({} if expected is by_size else {"frame_by_boxes": 1})
    assert verify(dataset).sound


@pytest.mark.parametrize("told", [TELLS_UPRIGHT, TELLS_STORED])
@pytest.mark.parametrize("first", [True, False])
def test_pictures_that_do_not_tell_follow_those_of_their_unit(tmp_path, told, first):
    size = (WIDTH, HEIGHT)
    records = [(turned(seed=1), size, [TELLS_NOTHING]), (turned(seed=2), size, [told])]
    dataset = ingest(write(tmp_path, records if first else records[::-1]), tmp_path / "out")
    expected = upright if told == TELLS_STORED else as_drawn
    assert boxes_of(dataset)["1" if first else "2"] == [expected(TELLS_NOTHING)]
    assert dataset.notes("ingest") == ({} if told == TELLS_STORED else {"frame_by_boxes": 1, "frame_by_unit": 1})


def test_what_another_unit_says_does_not_matter(tmp_path):
    size = (WIDTH, HEIGHT)
    records = [(turned(seed=1), size, [TELLS_NOTHING]), (turned(seed=2), size, [TELLS_UPRIGHT])]
    source = write(tmp_path, records)
    dataset = ingest(Coco(images=source.images, instances=source.instances, unit_size=1), tmp_path / "out")
    assert boxes_of(dataset)["1"] == [upright(TELLS_NOTHING)]
    assert dataset.notes("ingest") == {"frame_undecided": 1, "frame_by_boxes": 1}


@pytest.mark.parametrize("declared", [(WIDTH, HEIGHT), (HEIGHT, WIDTH)])
def test_where_nobody_tells_it_is_as_declared_and_counted(tmp_path, declared):
    dataset = ingest(write(tmp_path, [(turned(), declared, [TELLS_NOTHING])]), tmp_path / "out")
    by_size = upright if declared == (WIDTH, HEIGHT) else as_drawn
    assert boxes_of(dataset) == {"1": [by_size(TELLS_NOTHING)]}
    assert dataset.notes("ingest") == {"frame_undecided": 1}


def test_pictures_that_declare_alike_and_are_drawn_in_two_frames_leave_a_third_unknown(tmp_path):
    size = (WIDTH, HEIGHT)
    records = [
        (turned(seed=seed), size, [box]) for seed, box in enumerate((TELLS_UPRIGHT, TELLS_STORED, TELLS_NOTHING))
    ]
    dataset = ingest(write(tmp_path, records), tmp_path / "out")
    assert boxes_of(dataset) == {"1": [as_drawn(TELLS_UPRIGHT)], "2": [upright(TELLS_STORED)]}
    assert ledger(dataset) == {("annotation", "coco/000000000003#2", 0): "size_mismatch"}
    assert verify(dataset).sound


def test_boxes_that_contradict_each_other_are_lost_and_one_stray_box_is_not_believed(tmp_path):
    size = (WIDTH, HEIGHT)
    mixed = [TELLS_UPRIGHT, TELLS_STORED, TELLS_NOTHING]
    mostly = [TELLS_UPRIGHT] * 2 + [[5, 41, 30, 20], [6, 42, 30, 20], TELLS_STORED]
    dataset = ingest(write(tmp_path, [(turned(), size, mixed), (turned(), size, mostly)]), tmp_path / "out")
    assert set(boxes_of(dataset)) == {"2"}
    assert sorted(ledger(dataset).values()) == ["bad_box", "size_mismatch", "size_mismatch", "size_mismatch"]


def test_a_picture_without_an_orientation_is_never_turned(tmp_path):
    plain = turned(1)
    records = [(plain, (WIDTH, HEIGHT), [TELLS_STORED]), (plain, (HEIGHT, WIDTH), [TELLS_UPRIGHT])]
    dataset = ingest(write(tmp_path, records), tmp_path / "out")
    assert boxes_of(dataset) == {"1": [as_drawn(TELLS_STORED)]}
    assert ledger(dataset) == {("annotation", "coco/000000000002#1", 0): "size_mismatch"}
    assert not dataset.notes("ingest")


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_half_turns_and_squares_follow_what_the_others_of_their_unit_say(tmp_path, orientation):
    size = (WIDTH, HEIGHT)
    square = (turned(6, (48, 48)), (48, 48), [[10, 12, 20, 16]])
    half = (turned(orientation), size, [TELLS_NOTHING])
    dataset = ingest(write(tmp_path / "stored", [half, square, (turned(), size, [TELLS_STORED])]), tmp_path / "a")
    stored = np.zeros((HEIGHT, WIDTH), np.uint8)
    stored[10:26, 10:30] = 1
    expected = masks.tight_boxes([masks.encode(masks.orient_pixels(stored, orientation))])[0].tolist()
    assert boxes_of(dataset)["1"] == [expected]
    assert boxes_of(dataset)["2"] == [[20, 10, 36, 30]]
    dataset = ingest(write(tmp_path / "upright", [half, square, (turned(), size, [TELLS_UPRIGHT])]), tmp_path / "b")
    assert boxes_of(dataset)["1"] == [as_drawn(TELLS_NOTHING)]
    assert boxes_of(dataset)["2"] == [[10, 12, 30, 28]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("drawn_on", ["stored", "upright"])
def test_run_lengths_name_their_frame(orientation, drawn_on):
    stored = np.zeros((HEIGHT, WIDTH), np.uint8)
    stored[10:26, 10:30] = 1
    seen = masks.orient_pixels(stored, orientation)
    mask = masks.encode(stored if drawn_on == "stored" else seen)
    data = turned(orientation)
    for declared in ((WIDTH, HEIGHT), (HEIGHT, WIDTH) if orientation >= 5 else (WIDTH, HEIGHT), None):
        one = Annotation("coco/1#1", segmentation=mask, needs_box=False)
        verdicts = judge(Picture("coco/1", "1.jpg", lambda: data, annotations=[one], declared_size=declared), "coco")
        (row,) = verdicts.objects
        if orientation >= 5 or drawn_on == "upright":
            assert np.array_equal(masks.decode(row["mask"]), seen)


def test_a_picture_that_cannot_be_read_does_not_decide_for_others(tmp_path):
    size = (WIDTH, HEIGHT)
    source = write(tmp_path, [(turned(), size, [TELLS_NOTHING]), (b"no picture", size, [TELLS_UPRIGHT])])
    dataset = ingest(source, tmp_path / "out")
    assert boxes_of(dataset) == {"1": [upright(TELLS_NOTHING)]}
    assert dataset.notes("ingest") == {"frame_undecided": 1}


def test_notes_are_said_and_cost_nothing(call, tmp_path):
    source = write(tmp_path, [(turned(), (WIDTH, HEIGHT), [TELLS_UPRIGHT])])
    arguments = ["--images", source.images, "--instances", source.instances, "--out", tmp_path / "out", "--workers", 0]
    answer = call("ingest", "coco", *arguments)
    assert answer.code == 0
    assert "boxes were believed" in answer.out
    assert "boxes were believed" in call("status", tmp_path / "out").out


@pytest.mark.shared
def test_polygons_of_the_upright_picture_under_the_stored_size(tmp_path):
    folder = case("08")
    source = Coco(images=str(folder / "images"), instances=str(folder / "instances.json"))
    dataset = ingest(source, tmp_path / "out")
    said = {item["id"]: item["bbox"] for item in json.loads((folder / "instances.json").read_text())["annotations"]}
    rows = dataset.read("objects", ["object_id", "box"]).to_pylist()
    assert len(rows) == len(said) == 9
    for row in rows:
        assert row["box"] == pytest.approx(as_drawn(said[int(row["object_id"].split("#")[1])]), abs=1.5)
    assert verify(dataset).sound
    assert Image.open(io.BytesIO(dataset.picture(dataset.read("images").to_pylist()[0]))).getexif()[0x0112] >= 5
