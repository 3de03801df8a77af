"""Captions from beside the pictures: ImageFolder's tables, texts of trainers, records of img2dataset and webdataset."""

import csv
import io
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawing import gradient
from helpers import image_ids, ingest, ledger, write_tar

from refloom.ingest.sources.folder import PlainPictures
from refloom.ingest.sources.subjects import Subjects
from refloom.schemas import pictures
from refloom.schemas.verify import verify


def picture(seed: int = 0) -> bytes:
    return pictures.encode_jpeg(gradient(40, 30, seed), 90)


def put(root, files: dict[str, object]):
    """Files by path: pictures for None, else bytes, a text, or rows as lines of json; returns the root."""
    for seed, (name, content) in enumerate(files.items()):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(as_bytes(content, seed))
    return root


def as_bytes(content, seed: int = 0) -> bytes:
    if content is None:
        return picture(seed)
    if isinstance(content, bytes):
        return content
    return content.encode() if isinstance(content, str) else lines(content)


def lines(rows) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def table(rows) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def comma_separated(rows) -> bytes:
    sink = io.StringIO()
    writer = csv.DictWriter(sink, list(rows[0]), lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    return b"\xef\xbb\xbf" + sink.getvalue().encode()


def captions(dataset) -> dict[str, list[str]]:
    rows = dataset.read("images", ["image_id", "captions"]).to_pylist()
    return {row["image_id"].partition("/")[2]: row["captions"] for row in rows}


def taken(path, out, **options):
    dataset = ingest(PlainPictures(path=str(path), **options), out)
    assert verify(dataset, decode_per_unit=-1).sound
    return dataset


def notes(path) -> str:
    return "\n".join(PlainPictures(path=str(path)).plans()[0].notes)


# -- ImageFolder -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "form"), [("metadata.jsonl", lines), ("metadata.csv", comma_separated), ("metadata.parquet", table)]
)
def test_a_table_in_each_folder_captions_the_pictures_in_it(tmp_path, name, form):
    root = put(
        tmp_path / "set",
        {
            "train/a.jpg": None,
            "train/deep/er/b.jpg": None,
            "test/a.jpg": None,
            f"train/{name}": form(
                [{"file_name": "a.jpg", "text": "one, two"}, {"file_name": "deep/er/b.jpg", "text": "three\nfour"}]
            ),
            f"test/{name}": form([{"file_name": "./a.jpg", "text": "“five”"}]),
        },
    )
    dataset = taken(root, tmp_path / "out", unit_size=2)
    assert captions(dataset) == {
        "train/a.jpg": ["one, two"],
        "train/deep/er/b.jpg": ["three\nfour"],
        "test/a.jpg": ["“five”"],
    }
    assert not ledger(dataset)
    assert notes(root) == ""


def test_the_nearest_table_counts_and_the_other_lines_are_on_record(tmp_path):
    root = put(
        tmp_path / "set",
        {
            "a.jpg": None,
            "in/a.jpg": None,
            "metadata.jsonl": [
                {"file_name": "a.jpg", "text": "top"},
                {"file_name": "in/a.jpg", "text": "from above"},
                {"file_name": "in/gone.jpg", "text": "x"},
            ],
            "in/metadata.csv": comma_separated([{"file_name": "a.JPG", "text": "near"}]),
        },
    )
    dataset = taken(root, tmp_path / "out")
    assert captions(dataset) == {"a.jpg": ["top"], "in/a.jpg": ["near"]}
    assert ledger(dataset) == {
        ("record", "metadata.jsonl#2", 0): "duplicate",
        ("record", "metadata.jsonl#3", 0): "no_image",
    }


def test_bad_lines_of_a_csv_cost_themselves(tmp_path):
    text = 'file_name,text,license\na.jpg,"said ""so"", twice",CC0\nb.jpg,one,two,three\n,no name,\n\nc.jpg\n'
    root = put(tmp_path / "set", {"a.jpg": None, "b.jpg": None, "c.jpg": None, "metadata.csv": text})
    dataset = taken(root, tmp_path / "out")
    assert captions(dataset) == {"a.jpg": ['said "so", twice'], "b.jpg": [], "c.jpg": []}
    assert dataset.read("images", ["license"])["license"].to_pylist() == ["CC0", None, None]
    assert ledger(dataset) == {
        ("record", "metadata.csv#3", 0): "bad_record",
        ("record", "metadata.csv#4", 0): "bad_record",
    }


def test_a_table_without_captions_is_said(tmp_path):
    root = put(tmp_path / "set", {"a.jpg": None, "metadata.jsonl": [{"file_name": "a.jpg", "description": "x"}]})
    assert "metadata.jsonl gives no captions: it has file_name, description, and none of text, caption" in notes(root)


def test_a_table_that_changes_makes_its_pictures_due(tmp_path):
    root = put(tmp_path / "set", {"a.jpg": None, "in/metadata.jsonl": [{"file_name": "b.jpg", "text": "x"}]})
    put(root, {"in/b.jpg": None})
    before = PlainPictures(path=str(root)).plans()[0].units[0].identity
    put(root, {"in/metadata.jsonl": [{"file_name": "b.jpg", "text": "y"}]})
    assert PlainPictures(path=str(root)).plans()[0].units[0].identity != before


def test_a_csv_may_be_given_itself(tmp_path):
    rows = [{"image": "a.jpg", "Caption": "one"}, {"image": "b.jpg", "Caption": "two"}]
    root = put(tmp_path / "set", {"a.jpg": None, "b.jpg": None, "list.csv": comma_separated(rows)})
    assert captions(taken(root / "list.csv", tmp_path / "out")) == {"a.jpg": ["one"], "b.jpg": ["two"]}


# -- texts and records beside pictures -------------------------------------------------------------------------------


def test_a_text_beside_a_picture_captions_it_a_line_each(tmp_path):
    root = put(
        tmp_path / "10_sks dog",
        {
            "a.jpg": None,
            "a.txt": "  sks dog, sitting \n",
            "b.png": None,
            "b.caption": "\ufeffone\r\n\r\ntwo\r\n",
            "c.jpg": None,
            "c.jpg.TXT": "of the full name",
            "sub/d.jpg": None,
            "sub/d.txt": "deep",
            "d.txt": "of no picture",
            "empty.jpg": None,
            "empty.txt": " \n",
            "README.md": "x",
        },
    )
    dataset = taken(root, tmp_path / "out")
    assert captions(dataset) == {
        "a.jpg": ["  sks dog, sitting "],
        "b.png": ["one", "two"],
        "c.jpg": ["of the full name"],
        "sub/d.jpg": ["deep"],
        "empty.jpg": [],
    }
    assert notes(root) == f"passed over in {root}, as no pictures: .md 1, .txt 1"
    assert dataset.counts("ingest")["caption"].kept == 5


def test_a_text_of_a_windows_editor_is_read(tmp_path):
    root = put(tmp_path / "set", {"a.jpg": None, "a.txt": "ein Käse\r\n".encode("utf-16")})
    assert captions(taken(root, tmp_path / "out")) == {"a.jpg": ["ein Käse"]}


def test_a_text_that_is_none_costs_itself(tmp_path):
    root = put(
        tmp_path / "set",
        {"a.jpg": None, "a.txt": b"caf\xe9", "b.jpg": None, "b.txt": "x" * 20_000, "c.jpg": None, "c.json": "{oops"},
    )
    os.symlink("nowhere", root / "d.txt")
    put(root, {"d.jpg": None})
    dataset = taken(root, tmp_path / "out")
    assert len(image_ids(dataset)) == 4
    assert ledger(dataset)["caption", "folder/a.jpg#caption0", 0] == "bad_text"
    assert ledger(dataset)["caption", "folder/b.jpg#caption0", 0] == "bad_text"
    assert ledger(dataset)["record", "c.json", 0] == "bad_record"


def test_records_beside_pictures_give_captions_and_origin(tmp_path):
    record = {
        "caption": " a cat ",
        "url": "https://example.org/1.jpg",
        "license": "CC BY 4.0",
        "original_width": 800,
        "original_height": 600,
        "status": "success",
        "exif": "{}",
    }
    root = put(tmp_path / "set", {"1.jpg": None, "1.json": json.dumps(record), "1.txt": " a cat "})
    dataset = taken(root, tmp_path / "out")
    (row,) = dataset.read("images").to_pylist()
    assert row["captions"] == [" a cat "]
    assert (row["source_url"], row["license"]) == ("https://example.org/1.jpg", "CC BY 4.0")
    assert row["original_size"] == [600, 800]


def test_a_record_says_whether_lines_are_one_caption(tmp_path):
    text = "one line\nand its second"
    root = put(tmp_path / "set", {"1.jpg": None, "1.txt": text, "1.json": json.dumps({"caption": text})})
    assert captions(taken(root, tmp_path / "out")) == {"1.jpg": [text]}


@pytest.mark.parametrize(
    ("record", "note"),
    [
        ({"shapes": [], "imagePath": "1.jpg"}, "has none of text, caption, captions, prompt"),
        ({"image": {}, "annotations": []}, "refloom ingest sa1b"),
    ],
)
def test_json_of_other_tools_is_said(tmp_path, record, note):
    assert note in notes(put(tmp_path / "set", {"1.jpg": None, "1.json": json.dumps(record)}))


def test_a_text_that_changes_its_length_makes_its_picture_due(tmp_path):
    root = put(tmp_path / "set", {"a.jpg": None, "a.txt": "one"})
    before = PlainPictures(path=str(root)).plans()[0].units[0].identity
    put(root, {"a.txt": "three"})
    assert PlainPictures(path=str(root)).plans()[0].units[0].identity != before


# -- tars ------------------------------------------------------------------------------------------------------------


def test_img2dataset_tars_give_their_captions(tmp_path):
    members = []
    for number in range(3):
        key = f"00000000{number}"
        text = f"caption {number}\nsecond line"
        record = {"caption": text, "url": f"https://example.org/{number}", "key": key, "status": "success"}
        members += [
            (f"{key}.jpg", picture(number)),
            (f"{key}.json", json.dumps(record).encode()),
            (f"{key}.txt", text.encode()),
        ]
    path = write_tar(tmp_path / "00000.tar", members)
    dataset = taken(path, tmp_path / "out", unit_size=2)
    assert captions(dataset) == {f"00000000{number}.jpg": [f"caption {number}\nsecond line"] for number in range(3)}
    assert dataset.read("images", ["source_url"])["source_url"].to_pylist()[2] == "https://example.org/2"
    assert notes(path) == ""
    assert not ledger(dataset)


def test_samples_of_webdataset_share_the_name_up_to_its_first_dot(tmp_path):
    members = [
        ("./a/1.image.png", picture(1)),
        ("./a/1.txt", b"one"),
        ("./a/2.left.jpg", picture(2)),
        ("./a/2.right.jpg", picture(3)),
        ("./a/2.txt", b"which of them"),
        ("./a/2.left.json", b'{"prompt": ["left", "left"]}'),
    ]
    dataset = taken(write_tar(tmp_path / "x.tar", members), tmp_path / "out")
    assert captions(dataset) == {"a/1.image.png": ["one"], "a/2.left.jpg": ["left"], "a/2.right.jpg": []}


def test_imagefolder_in_a_tar(tmp_path):
    members = [
        ("train/metadata.jsonl", lines([{"file_name": "1.jpg", "text": "one"}, {"file_name": "9.jpg", "text": "x"}])),
        ("train/1.jpg", picture(1)),
        ("test/1.jpg", picture(2)),
        ("test/metadata.csv", comma_separated([{"file_name": "1.jpg", "text": "two"}])),
    ]
    dataset = taken(write_tar(tmp_path / "x.tar", members), tmp_path / "out")
    assert captions(dataset) == {"train/1.jpg": ["one"], "test/1.jpg": ["two"]}
    assert ledger(dataset) == {("record", "train/metadata.jsonl#2", 0): "no_image"}


def test_a_tar_that_ends_inside_a_text_costs_the_text(tmp_path):
    path = write_tar(tmp_path / "x.tar", [("1.jpg", picture(1)), ("1.txt", b"x" * 5000)])
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"x" * 100) + 2000])
    dataset = ingest(PlainPictures(path=str(path)), tmp_path / "out")
    assert image_ids(dataset) == ["folder/1.jpg"]
    assert ledger(dataset)["record", "1.txt", 0] == "io_error"


# -- other sources ---------------------------------------------------------------------------------------------------


def test_folders_of_subjects_take_their_captions_too(tmp_path):
    root = put(
        tmp_path / "set",
        {
            "10_sks dog/1.jpg": None,
            "10_sks dog/1.txt": "sks dog",
            "cat/1.jpg": None,
            "cat/2.jpg": None,
            "cat/metadata.jsonl": [{"file_name": "2.jpg", "text": "a cat"}, {"file_name": "9.jpg", "text": "x"}],
        },
    )
    dataset = ingest(Subjects(directory=str(root)), tmp_path / "out")
    assert captions(dataset) == {"10_sks dog/1.jpg": ["sks dog"], "cat/1.jpg": [], "cat/2.jpg": ["a cat"]}
    assert ledger(dataset) == {("record", "cat/metadata.jsonl#2", 0): "no_image"}
    assert verify(dataset, decode_per_unit=-1).sound
