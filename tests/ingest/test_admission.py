"""Admission: one picture with what lies on it becomes rows, or ledger rows with the reason."""

import numpy as np
import pytest
from drawing import encoded, gradient
from PIL import Image

from refloom.ingest.admission import Verdicts, judge
from refloom.ingest.source import Annotation, Picture
from refloom.schemas import masks
from refloom.schemas.errors import Failed, Rejected

SQUARE = [[10, 10, 30, 10, 30, 26, 10, 26]]
XYWH = [10, 10, 20, 16]


def picture(data: bytes, *annotations: Annotation, **more: object) -> Picture:
    return Picture("coco/1", "1.jpg", lambda: data, annotations=list(annotations), **more)


def annotation(number: int = 1, **more: object) -> Annotation:
    return Annotation(f"coco/1#{number}", **({"segmentation": SQUARE, "bbox": XYWH, "area": 320} | more))


def reasons(verdicts: Verdicts, kind: str = "annotation") -> list[str | None]:
    return [problem and problem.reason for settled, _, problem, _ in verdicts.settled if settled == kind]


def test_a_sound_picture_keeps_its_bytes_and_its_annotation(jpeg):
    data = jpeg()
    verdicts = judge(picture(data, annotation(), declared_size=(64, 48), captions=[("c", " a cat ")]), "coco")
    assert verdicts.image["image"]["bytes"] == data
    assert verdicts.image["captions"] == [" a cat "]  # as the source has it
    (row,) = verdicts.objects
    assert row["box"].tolist() == [10, 10, 30, 26]
    assert row["area"] == 320
    assert reasons(verdicts) == [None]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bbox": None}, "bad_box"),
        ({"bbox": [10, 10, 20]}, "bad_box"),
        ({"bbox": ["10", "10", "20", "16"]}, "bad_box"),
        ({"bbox": [10, 10, float("nan"), 16]}, "bad_box"),
        ({"bbox": [10, 10, float("inf"), 16]}, "bad_box"),
        ({"bbox": [10, 10, 1e300, 16]}, "bad_box"),
        ({"bbox": [10, 10, -20, 16]}, "bad_box"),
        ({"bbox": [10, 10, 0, 16]}, "bad_box"),
        ({"bbox": [-10, 10, 20, 16]}, "bad_box"),
        ({"bbox": [10, 10, 9000, 9000]}, "bad_box"),
        ({"bbox": [10, 10, 30, 26]}, "box_mask_mismatch"),
        ({"segmentation": None}, "bad_mask"),
        ({"segmentation": [[200, 200, 210, 200, 205, 210]]}, "bad_mask"),
        ({"segmentation": [[70, 50, 80, 50, 75, 60]]}, "empty_mask"),
        ({"segmentation": {"size": [48, 65], "counts": [3120]}}, "size_mismatch"),
        ({"predicted_iou": 1.7}, "bad_record"),
        ({"stability_score": float("nan")}, "bad_record"),
        ({"confidence": "high"}, "bad_record"),
        ({"confidence": 10**400}, "bad_record"),
        ({"bbox": [10**400, 10, 20, 16]}, "bad_box"),
        ({"problem": Rejected("crowd")}, "crowd"),
    ],
    ids=lambda value: str(value)[:50],
)
@pytest.mark.filterwarnings("error")
def test_a_bad_annotation_costs_itself_and_no_other(jpeg, change, reason):
    verdicts = judge(
        picture(jpeg(), annotation(1), annotation(2, **change), annotation(3), declared_size=(64, 48)), "coco"
    )
    assert reasons(verdicts) == [None, reason, None]
    assert [row["object_id"] for row in verdicts.objects] == ["coco/1#1", "coco/1#3"]
    assert verdicts.image is not None


def test_boxes_come_from_the_mask_where_the_source_need_not_give_them(jpeg):
    verdicts = judge(picture(jpeg(), annotation(bbox=None, needs_box=False)), "vos")
    assert verdicts.objects[0]["box"].tolist() == [10, 10, 30, 26]


def test_sa1b_boxes_are_one_short(jpeg):
    verdicts = judge(picture(jpeg(), annotation(bbox=[10, 10, 19, 15], box_px_short=1.0)), "sa1b")
    assert verdicts.objects[0]["box"].tolist() == [10, 10, 30, 26]


def test_a_confidence_may_be_a_whole_number(jpeg):
    (row,) = judge(picture(jpeg(), annotation(confidence=2**60)), "coco").objects
    assert row["confidence"] == 2.0**60


def test_a_box_without_a_mask_is_enough_where_masks_are_not_needed(jpeg):
    verdicts = judge(picture(jpeg(), annotation(segmentation=None, needs_mask=False)), "easyref")
    assert verdicts.objects[0]["mask"] is None
    assert verdicts.objects[0]["area"] is None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_annotations_of_the_stored_frame_are_turned_with_the_picture(orientation):
    pixels = gradient(64, 48)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(pixels), "PNG", exif=exif)
    stored = np.zeros((48, 64), np.uint8)
    stored[10:26, 10:30] = 1
    upright = masks.orient_pixels(stored, orientation)
    # the stored size: turned where it is not also the upright size
    row = judge(picture(data, annotation(), declared_size=(64, 48)), "coco").objects[0]
    expected = upright if orientation >= 5 else stored
    assert np.array_equal(masks.decode(row["mask"]), expected)
    assert masks.tight_boxes([row["mask"]])[0].tolist() == row["box"].tolist()
    if orientation >= 5:  # the upright size: as they are
        tall = annotation(segmentation=[[10, 10, 26, 10, 26, 30, 10, 30]], bbox=[10, 10, 16, 20])
        row = judge(picture(data, tall, declared_size=(48, 64)), "coco").objects[0]
        assert row["box"].tolist() == [10, 10, 26, 30]


def test_annotations_of_neither_frame_are_lost_and_the_picture_is_not(jpeg):
    verdicts = judge(picture(jpeg(), annotation(), declared_size=(48, 64)), "coco")
    assert verdicts.image is not None
    assert reasons(verdicts) == ["size_mismatch"]


def test_a_size_that_is_no_number_costs_the_picture(jpeg):
    verdicts = judge(picture(jpeg(), declared_size=("64", None)), "coco")
    assert reasons(verdicts, "image") == ["bad_record"]


@pytest.mark.parametrize(
    ("problem", "follows"),
    [(Rejected("truncated"), "image_rejected"), (Failed("missing_file"), "image_failed")],
)
def test_a_lost_picture_takes_what_lies_on_it_along(problem, follows):
    def load() -> bytes:
        raise problem

    lost = Picture("coco/1", "1.jpg", load, annotations=[annotation(1), annotation(2, problem=Rejected("crowd"))])
    lost.captions, lost.whole = [("c1", "a cat")], True
    verdicts = judge(lost, "coco")
    assert verdicts.image is None
    assert not verdicts.objects
    assert reasons(verdicts, "image") == [problem.reason]
    assert reasons(verdicts) == [follows, "crowd"]
    assert reasons(verdicts, "caption") == reasons(verdicts, "whole") == [follows]


@pytest.mark.parametrize("text", ["", "  \n", None, ["a"], 7, "x" * 20_000, "nul \0", "lone \ud83d"])
def test_a_bad_caption_costs_itself(jpeg, text):
    verdicts = judge(picture(jpeg(), captions=[("1", "good"), ("2", text), ("3", "also good")]), "coco")
    assert verdicts.image["captions"] == ["good", "also good"]
    assert reasons(verdicts, "caption") == [None, "bad_text", None]
