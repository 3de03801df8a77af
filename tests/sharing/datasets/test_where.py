"""Conditions on rows: what they hold of, and that nothing else can be said in them."""

import numpy as np
import pyarrow as pa
import pytest

from refloom.schemas.errors import Refused
from refloom.schemas.tables import TABLES
from refloom.sharing.datasets.where import parse


def table(name: str, rows: list[dict]) -> pa.Table:
    """Rows with the columns that are given; the others of the contract are left out."""
    names = {key for row in rows for key in row}
    schema = pa.schema([field.remove_metadata() for field in TABLES[name].schema if field.name in names])
    return pa.Table.from_pylist(rows, pa.schema([field.with_nullable(True) for field in schema]))


IMAGES = table(
    "images",
    [
        {"image_id": "coco/1", "width": 640, "license": "CC0", "captions": ["a dog", "a cat"], "faces_blurred": False},
        {"image_id": "coco/2", "width": 320, "license": None, "captions": [], "faces_blurred": True},
        {"image_id": "folder/3", "width": 100, "license": "CC BY 4.0", "captions": None, "faces_blurred": False},
    ],
)
SAMPLES = table(
    "samples",
    [
        {"sample_id": "a", "kind": "group", "scores": {"mip_s": None, "min_quality": 0.7},
         "pictures": [{"image_id": "x", "width": 1}, {"image_id": "y", "width": 9}],
         "subjects": [{"phrase": "dog", "appearances": [{"quality": 0.2}, {"quality": None}]}]},
        {"sample_id": "b", "kind": "image", "scores": None, "pictures": [{"image_id": "z", "width": 3}],
         "subjects": [{"phrase": None, "appearances": []}, {"phrase": "cat", "appearances": [{"quality": 0.9}]}]},
    ],
)  # fmt: skip


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("width > 200", [0, 1]),
        ("200 < width", [0, 1]),
        ("200 < width <= 320", [1]),
        ("width == 640 or width == 100", [0, 2]),
        ("width > -1 and not faces_blurred", [0, 2]),
        ("faces_blurred", [1]),
        ("faces_blurred == False", [0, 2]),
        ('license == "CC0"', [0]),
        ('license != "CC0"', [2]),  # null is neither
        ('not license == "CC0"', [2]),
        ("license is None", [1]),
        ("license is not None", [0, 2]),
        ('license in ("CC0", "CC BY 4.0")', [0, 2]),
        ('license not in ("CC0",)', [2]),
        ('"BY" in license', [2]),
        ('startswith(image_id, "coco/")', [0, 1]),
        ('endswith(image_id, "3")', [2]),
        ('"a dog" in captions', [0]),
        ('"dog" in captions', []),
        ('captions == "a cat"', [0]),
        ("len(captions) == 0", [1]),
        ("len(captions) >= 1", [0]),
        ("captions is None", [2]),
        ("len(image_id) > 6", [2]),
        ("width in (1, 2, 640)", [0]),
    ],
)
def test_a_condition_holds_of_rows_of_images(condition: str, rows: list[int]) -> None:
    found = parse(f"images: {condition}").holds(IMAGES).to_pylist()
    assert [at for at, one in enumerate(found) if one] == rows


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("scores.min_quality > 0.5", [0]),
        ("scores.mip_s is None", [0, 1]),
        ("scores is None", [1]),
        ("len(pictures) == 2", [0]),
        ("pictures.width > 5", [0]),
        ('pictures.image_id in ("z", "nobody")', [1]),
        ('subjects.phrase == "cat"', [1]),
        ('"do" == subjects.phrase', []),
        ('startswith(subjects.phrase, "do")', [0]),
        ("subjects.appearances.quality > 0.5", [1]),
        ("not subjects.appearances.quality > 0.5", [0]),
        ('kind == "group" and subjects.appearances.quality < 0.5', [0]),
    ],
)
def test_a_condition_reaches_into_structs_and_lists(condition: str, rows: list[int]) -> None:
    found = parse(f"samples: {condition}").holds(SAMPLES).to_pylist()
    assert [at for at, one in enumerate(found) if one] == rows


SCORES = table("image_scores", [{"image_id": "a", "phash": 2**63 + 5, "sharpness": 1.5},
                                {"image_id": "b", "phash": 7, "sharpness": float("nan")}])  # fmt: skip
ALIKE = table("samples", [{"sample_id": "a", "subjects": [{"similarity": [np.float16(0.5), np.float16(0.9)]}]},
                          {"sample_id": "b", "subjects": [{"similarity": None}]}])  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "condition", "wanted"),
    [
        (SCORES, "phash == 7", [1]),
        (SCORES, "phash == 9223372036854775813", [0]),
        (SCORES, "phash in (7, 9223372036854775813)", [0, 1]),
        (SCORES, "phash > 100", [0]),
        (SCORES, "sharpness > 1", [0]),
        (SCORES, "sharpness > -1", [0]),  # not a number is above nothing
        (ALIKE, "subjects.similarity > 0.8", [0]),
        (ALIKE, "subjects.similarity in (0.5, 3)", [0]),
        (IMAGES, "width in (99999999999, 320)", [1]),
        (IMAGES, "width in (99.5, 100)", [2]),
        (IMAGES, "width > 100.5", [0, 1]),
        (IMAGES, "width < 99999999999", [0, 1, 2]),
        (IMAGES, "width in ()", []),
    ],
)
def test_numbers_of_every_kind_are_compared_as_they_are(rows: pa.Table, condition: str, wanted: list[int]) -> None:
    name = {id(SCORES): "image_scores", id(ALIKE): "samples", id(IMAGES): "images"}[id(rows)]
    found = parse(f"{name}: {condition}").holds(rows).to_pylist()
    assert [at for at, one in enumerate(found) if one] == wanted


def test_only_the_columns_that_are_named_are_read() -> None:
    assert parse("faces").columns == ("face_id",)
    assert parse("samples: subjects.phrase == 'a' and len(pictures) > 1").columns == (
        *("sample_id", "subjects.list.element.phrase", "pictures"),
    )
    assert parse("not faces: det_score > 0.5").negated
    assert parse("images: image is None").columns == ("image_id", "image.path")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("imagse: width > 1", "did you mean images?"),
        ("width > 1", "write it as `TABLE: CONDITION`"),
        ("images: widht > 1", "did you mean width?"),
        ("images: link.rot == 'a'", "did you mean root?"),
        ("images: width > '1'", "it is compared with a number"),
        ("images: license > 1", "it is compared with a text"),
        ("images: width == None", "write `is None`"),
        ("images: width is 3", "`is` is for None"),
        ("images: width", "is no condition"),
        ("images: image.bytes == 'a'", "holds the bytes of pictures"),
        ("images: image == 'a'", "name a field of it"),
        ("image_scores: phash > -1", "a whole number from 0"),
        ("image_scores: phash > 1.5", "a whole number from 0"),
        ("images:", "this is no condition"),
        ("images: width >", "this is no condition"),
        ("images: width > 9999999999999999999999999", "too large a number"),
        ("images: __import__('os').system('true')", "there are len(x)"),
        ("images: open('/etc/passwd')", "there are len(x)"),
        ("images: width.__class__ == 1", "no column width.__class__"),
        ("images: (lambda: 1)()", "there are len(x)"),
        ("images: [x for x in y]", "is no condition"),
        ("images: width if 1 else 2", "is no condition"),
        ("images: (width := 1)", "is no condition"),
        ("images: f'{width}' == 'a'", "is no column"),
        ("images: width > 1 + 1", "give a number"),
        ("images: len(width) > 1", "len is for lists and texts"),
        ("images: 'a' in width", "it is compared with a number"),
        ("images: startswith(width, 'a')", "is for texts"),
        ("images: startswith(image_id)", "there are len(x)"),
        ("samples: subjects.phrase is None", "inside a list"),
        (f"images: {'(' * 500}width > 1{')' * 500}", "this is no condition"),
        (f"images: {'not ' * 200}width > 1", "more than 40 conditions"),
        (f"images: image_id in ({'0,' * 5000})", "longer than 2,000"),
    ],
)  # fmt: skip
def test_what_cannot_be_said_is_refused_with_what_could_be_meant(text: str, said: str) -> None:
    with pytest.raises(Refused) as refusal:
        parse(text)
    assert said in str(refusal.value)
