"""Plain pictures of folders, tars and JSONL: each bad file, member or line costs itself, whatever its name."""

import csv
import io
import json
import os
import tarfile

import pytest
from drawing import gradient
from helpers import image_ids, ingest, ledger, object_ids, write_tar

from refloom.ingest.sources.folder import PlainPictures
from refloom.schemas import ids, pictures
from refloom.schemas.errors import Refused
from refloom.schemas.verify import verify


def picture(seed: int = 0) -> bytes:
    return pictures.encode_jpeg(gradient(40, 30, seed), 90)


def write(root, *names: str):
    """Small pictures of these names; returns the root."""
    for seed, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture(seed))
    return root


def write_lines(path, *records) -> str:
    path.write_text("".join(json.dumps(record) + "\n" if not isinstance(record, str) else record for record in records))
    return str(path)


def captions(dataset) -> dict[str, list[str]]:
    return {row["image_id"]: row["captions"] for row in dataset.read("images", ["image_id", "captions"]).to_pylist()}


# -- folders ---------------------------------------------------------------------------------------------------------


def test_a_folder_is_taken_at_any_depth_each_picture_as_a_whole(tmp_path):
    root = write(tmp_path / "set", "b.jpg", "a/deep/er.jpg", "a/no_extension", "A.JPG")
    dataset = ingest(PlainPictures(path=str(root)), tmp_path / "out")
    assert image_ids(dataset) == [f"folder/{name}" for name in ("A.JPG", "b.jpg", "a/no_extension", "a/deep/er.jpg")]
    assert object_ids(dataset) == {f"{image}#whole" for image in image_ids(dataset)}
    counts = dataset.counts("ingest")
    assert (counts["image"].kept, counts["whole"].kept) == (4, 4)
    assert verify(dataset, decode_per_unit=-1).sound


def test_files_that_are_no_pictures_are_noted_by_extension(tmp_path):
    root = write(tmp_path / "set", "a.jpg")
    for name in ("x.txt", "y.TXT", "z.json", "LICENSE"):
        (root / name).write_text("hello")
    (plan,) = PlainPictures(path=str(root)).plans()
    assert plan.notes == (f"passed over in {root}, as no pictures: .json 1, .txt 2, no extension 1",)


def test_a_bad_file_costs_itself(tmp_path):
    root = write(tmp_path / "set", "a.jpg", "b.jpg", "c.jpg")
    (root / "b.jpg").write_bytes(b"")
    (root / "c.jpg").unlink()
    (root / "c.jpg").symlink_to("nowhere")
    dataset = ingest(PlainPictures(path=str(root)), tmp_path / "out")
    assert ledger(dataset) == {
        ("image", "folder/b.jpg", 0): "not_an_image",
        ("whole", "folder/b.jpg#whole", 0): "image_rejected",
        ("image", "folder/c.jpg", 0): "missing_file",
        ("whole", "folder/c.jpg#whole", 0): "image_failed",
    }
    assert verify(dataset).sound


def test_a_pipe_is_rejected_and_not_waited_for(tmp_path):
    root = write(tmp_path / "set", "a.jpg")
    os.mkfifo(root / "pipe")
    dataset = ingest(PlainPictures(path=str(root)), tmp_path / "out")
    assert ledger(dataset)["image", "folder/pipe", 0] == "unsafe_path"


def test_a_link_that_leads_back_is_not_followed(tmp_path):
    root = write(tmp_path / "set", "a/b.jpg")
    (root / "a" / "loop").symlink_to(root)
    (root / "other").symlink_to(write(tmp_path / "elsewhere", "c.jpg"))
    assert image_ids(ingest(PlainPictures(path=str(root)), tmp_path / "out")) == [
        "folder/a/b.jpg",
        "folder/other/c.jpg",
    ]


@pytest.mark.parametrize("link", [False, True])
def test_names_that_are_no_text_or_one_in_unicode(tmp_path, link):
    root = write(tmp_path / "set", "caf\u00e9.jpg", "cafe\u0301.jpg", "50%#1@2.jpg")
    with open(os.fsencode(root) + b"/bad_\xff.jpg", "wb") as file:
        file.write(picture(9))
    dataset = ingest(PlainPictures(path=str(root)), tmp_path / "out", link=link)
    assert set(image_ids(dataset)) == {"folder/50%25%231%402.jpg", "folder/bad_%FF.jpg", "folder/caf\u00e9.jpg"}
    assert ledger(dataset)["image", "folder/caf\u00e9.jpg", 1] == "duplicate"
    rows = {row["image_id"]: row for row in dataset.read("images").to_pylist()}
    assert dataset.picture(rows["folder/bad_%FF.jpg"]) == picture(9)
    assert (rows["folder/50%25%231%402.jpg"]["image"] is None) == link
    assert rows["folder/bad_%FF.jpg"]["image"] is not None  # no table can hold a link to it
    assert verify(dataset).sound


def test_metadata_gives_captions_and_a_bad_line_costs_itself(tmp_path):
    root = write(tmp_path / "set", "a.jpg", "b/c.jpg", "d.jpg")
    write_lines(
        root / "metadata.jsonl",
        {"file_name": "./b/c.jpg", "text": "a cat"},
        {"file_name": "a.jpg", "text": ["a dog", "", "a dog "], "caption": "a cow"},
        "{not json}\n\n",
        {"file_name": "../a.jpg", "text": "x"},
        {"file_name": "gone.jpg", "text": "x"},
        {"file_name": "a.jpg", "text": "another dog"},
        {"text": "x"},
    )
    dataset = ingest(PlainPictures(path=str(root)), tmp_path / "out")
    assert captions(dataset) == {
        "folder/a.jpg": ["a dog", "a cow"],
        "folder/b/c.jpg": ["a cat"],
        "folder/d.jpg": [],
    }
    assert ledger(dataset) == {
        ("caption", "folder/a.jpg#caption1", 0): "bad_text",
        ("record", "metadata.jsonl#3", 0): "bad_record",
        ("record", "metadata.jsonl#5", 0): "unsafe_path",
        ("record", "metadata.jsonl#6", 0): "no_image",
        ("record", "metadata.jsonl#7", 0): "duplicate",
        ("record", "metadata.jsonl#8", 0): "bad_record",
    }
    assert PlainPictures(path=str(root)).plans()[0].notes == ()
    assert verify(dataset).sound


def test_units_are_runs_of_pictures(tmp_path):
    root = write(tmp_path / "set", "a.jpg", "b.jpg", "c.jpg")
    write_lines(root / "metadata.jsonl", "bad\n", {"file_name": "c.jpg", "text": "c"})
    one = ingest(PlainPictures(path=str(root)), tmp_path / "one")
    many = ingest(PlainPictures(path=str(root), unit_size=2), tmp_path / "many")
    assert len(many.units()) == 2
    assert captions(many) == captions(one)
    assert ledger(many) == ledger(one)
    assert image_ids(ingest(PlainPictures(path=str(root), limit=2), tmp_path / "few")) == [
        "folder/a.jpg",
        "folder/b.jpg",
    ]


def test_the_identity_of_a_unit_changes_with_its_input(tmp_path):
    root = write(tmp_path / "set", "a.jpg", "b.jpg")
    source = PlainPictures(path=str(root), unit_size=1)
    first, second = (unit.identity for unit in source.plans()[0].units)
    (root / "b.jpg").write_bytes(picture(5) + b"x")
    assert source.plans()[0].units[0].identity == first
    assert source.plans()[0].units[1].identity != second
    write_lines(root / "metadata.jsonl", {"file_name": "a.jpg", "text": "a"})
    assert source.plans()[0].units[0].identity != first


def test_an_object_store_is_a_folder_too(tmp_path):
    import fsspec

    store = fsspec.filesystem("memory")
    store.pipe({f"/plain/{name}": picture(seed) for seed, name in enumerate(("a.jpg", "b/c.jpg"))})
    dataset = ingest(PlainPictures(path="memory://plain"), tmp_path / "out", link=True)
    assert image_ids(dataset) == ["folder/a.jpg", "folder/b/c.jpg"]
    assert dataset.picture(dataset.read("images").to_pylist()[1]) == picture(1)
    assert verify(dataset).sound


@pytest.mark.parametrize("name", ["absent", "empty", "file.zip"])
def test_what_holds_no_pictures_is_refused(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.zip").write_bytes(b"PK")
    with pytest.raises(Refused, match="no folder, no"):
        PlainPictures(path=str(tmp_path / name)).plans()


# -- lines of json ---------------------------------------------------------------------------------------------------


def test_lines_name_pictures_and_captions_in_many_ways(tmp_path):
    root = write(tmp_path / "set", "a.jpg", "b.jpg", "c.jpg", "d/e.jpg")
    path = write_lines(
        root / "list.jsonl",
        "\ufeff" + json.dumps({"file_name": "b.jpg", "text": "one"}) + "\r\n",
        {"file": "a.jpg", "caption": ["two", "three"]},
        {"image": "c.jpg", "captions": ["four"], "prompt": "five"},
        {"path": "d\\e.jpg"},
    )
    dataset = ingest(PlainPictures(path=path), tmp_path / "out")
    assert captions(dataset) == {
        "folder/b.jpg": ["one"],
        "folder/a.jpg": ["two", "three"],
        "folder/c.jpg": ["four", "five"],
        "folder/d/e.jpg": [],
    }
    assert not ledger(dataset)
    assert verify(dataset).sound


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "bad_record"),
        ("[]", "bad_record"),
        ("null", "bad_record"),
        ('"a.jpg"', "bad_record"),
        ('{"name": "a.jpg"}', "bad_record"),
        ('{"file_name": null}', "bad_record"),
        ('{"file_name": 7}', "bad_record"),
        ('{"file_name": ""}', "bad_record"),
        ('{"file_name": {"path": "a.jpg"}}', "bad_record"),
        ('{"file_name": "\\ud800.jpg"}', "bad_record"),
        ("[" * 100_000, "bad_record"),
        ('{"file_name": "/etc/passwd"}', "unsafe_path"),
        ('{"file_name": "x/../../y.jpg"}', "unsafe_path"),
        ('{"file_name": "https://example.org/a.jpg"}', "unsafe_path"),
    ],
    ids=lambda value: value[:40],
)
def test_a_bad_line_costs_itself(tmp_path, line, reason):
    root = write(tmp_path / "set", "a.jpg", "b.jpg")
    path = write_lines(root / "list.jsonl", {"file": "a.jpg"}, "\n", line + "\n", {"file": "b.jpg"})
    dataset = ingest(PlainPictures(path=path), tmp_path / "out")
    assert ledger(dataset) == {("record", "list.jsonl#3", 0): reason}
    assert image_ids(dataset) == ["folder/a.jpg", "folder/b.jpg"]
    assert verify(dataset).sound


def test_a_picture_of_two_lines_and_one_that_is_missing(tmp_path):
    root = write(tmp_path / "set", "a.jpg")
    path = write_lines(
        root / "list.jsonl", {"file": "a.jpg", "text": "x"}, {"file": "./a.jpg", "text": "y"}, {"file": "gone.jpg"}
    )
    dataset = ingest(PlainPictures(path=path), tmp_path / "out")
    found = ledger(dataset)
    assert found["image", "folder/a.jpg", 1] == "duplicate"
    assert found["caption", "folder/a.jpg#caption0", 0] == "image_rejected"
    assert found["image", "folder/gone.jpg", 0] == "missing_file"
    assert captions(dataset) == {"folder/a.jpg": ["x"]}
    assert verify(dataset).sound


@pytest.mark.parametrize("text", ["", "\n\n", "nothing\n"])
def test_lines_that_name_no_picture_are_refused(tmp_path, text):
    (tmp_path / "list.jsonl").write_text(text)
    with pytest.raises(Refused, match="with pictures in it"):
        PlainPictures(path=str(tmp_path / "list.jsonl")).plans()


def test_lines_whose_pictures_are_elsewhere_are_refused(tmp_path):
    path = write_lines(tmp_path / "list.jsonl", {"file": "a.jpg"})
    with pytest.raises(Refused, match="none of the first 1 files"):
        PlainPictures(path=path).plans()


# -- tars ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("link", [False, True])
def test_a_tar_is_read_by_offset(tmp_path, link):
    members = [
        ("./a.jpg", picture(1)),
        ("d/no_extension", picture(2)),
        ("d/notes.txt", b"hello"),
        ("d/._x.jpg", b"mac"),
    ]
    source = PlainPictures(path=str(write_tar(tmp_path / "set.tar", members)), unit_size=1)
    assert source.plans()[0].notes == (f"passed over in {tmp_path / 'set.tar'}, as no pictures: .txt 1",)
    dataset = ingest(source, tmp_path / "out", link=link)
    rows = dataset.read("images").to_pylist()
    assert [row["image_id"] for row in rows] == ["folder/a.jpg", "folder/d/no_extension"]
    assert [dataset.picture(row) for row in rows] == [picture(1), picture(2)]
    assert [row["image"] is None for row in rows] == [link, link]
    assert dataset.counts("ingest")["tar"].kept == 1
    assert verify(dataset).sound


def test_unsafe_members_are_rejected(tmp_path):
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w") as file:
        for name, kind in (
            ("a.jpg", "file"),
            ("../b.jpg", "file"),
            ("/c.jpg", "file"),
            ("l.jpg", "link"),
            ("d.jpg", "device"),
        ):
            info = tarfile.TarInfo(name)
            info.type = {"file": tarfile.REGTYPE, "link": tarfile.SYMTYPE, "device": tarfile.CHRTYPE}[kind]
            info.linkname = "/etc/passwd" if kind == "link" else ""
            info.size = len(picture()) if kind == "file" else 0
            file.addfile(info, io.BytesIO(picture()) if kind == "file" else None)
    dataset = ingest(PlainPictures(path=str(path)), tmp_path / "out")
    assert image_ids(dataset) == ["folder/a.jpg"]
    assert ledger(dataset) == {("member", name, 0): "unsafe_path" for name in ("../b.jpg", "/c.jpg", "l.jpg", "d.jpg")}
    assert verify(dataset).sound


@pytest.mark.parametrize("unit_size", [1, 1000])
def test_members_that_are_one_id_are_taken_once(tmp_path, unit_size):
    members = [
        ("a.jpg", picture(1)),
        ("./a.jpg", picture(2)),
        ("caf\u00e9.jpg", picture(3)),
        ("cafe\u0301.jpg", picture(4)),
    ]
    source = PlainPictures(path=str(write_tar(tmp_path / "set.tar", members)), unit_size=unit_size)
    dataset = ingest(source, tmp_path / "out")
    assert image_ids(dataset) == ["folder/a.jpg", "folder/caf\u00e9.jpg"]
    found = {key: reason for key, reason in ledger(dataset).items() if key[0] == "image"}
    assert found == {
        ("image", "folder/a.jpg", 1): "duplicate",
        ("image", "folder/caf\u00e9.jpg", 1): "duplicate",
    }
    assert dataset.picture(dataset.read("images").to_pylist()[0]) == picture(1)


def test_a_damaged_tar_is_taken_up_to_the_damage(tmp_path):
    path = write_tar(tmp_path / "set.tar", [("a.jpg", picture(1)), ("b.jpg", picture(2))])
    data = path.read_bytes()
    path.write_bytes(data[: data.index(picture(2)) + 100])
    dataset = ingest(PlainPictures(path=str(path)), tmp_path / "out")
    assert image_ids(dataset) == ["folder/a.jpg"]
    assert ledger(dataset) == {
        ("tar", "set.tar", 0): "io_error",
        ("image", "folder/b.jpg", 0): "io_error",
        ("whole", "folder/b.jpg#whole", 0): "image_failed",
    }


@pytest.mark.parametrize("name", ["set.tar", "set.tar.gz", "set.tgz"])
def test_a_gzip_tar_is_refused_with_a_remedy(tmp_path, name):
    path = write_tar(tmp_path / name, [("a.jpg", picture())], "w:gz")
    with pytest.raises(Refused, match="unpack the gzip"):
        PlainPictures(path=str(path)).plans()


@pytest.mark.parametrize("data", [b"", b"no tar at all" * 100])
def test_what_is_no_tar_is_refused(tmp_path, data):
    (tmp_path / "set.tar").write_bytes(data)
    with pytest.raises(Refused, match=r"the file is empty|not a tar"):
        PlainPictures(path=str(tmp_path / "set.tar")).plans()


def test_the_identity_of_a_tar_changes_with_its_headers(tmp_path):
    path = write_tar(tmp_path / "set.tar", [("a.jpg", picture(1))])
    before = PlainPictures(path=str(path)).plans()[0].units[0].identity
    write_tar(path, [("b.jpg", picture(1))])
    assert PlainPictures(path=str(path)).plans()[0].units[0].identity != before


# -- the shared files ------------------------------------------------------------------------------------------------


@pytest.mark.shared
def test_of_the_nasty_pictures_each_bad_one_costs_itself(tmp_path, shared):
    dataset = ingest(PlainPictures(path=str(shared / "nasty" / "images")), tmp_path / "out")
    with (shared / "nasty" / "EXPECT.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    expected = {
        ids.image_id("folder", row["file"].removeprefix("images/")): "loads" in row["observed"]
        and "frames=1 " in row["observed"]
        for row in rows
        if row["file"].startswith("images/") and row["observed"]
    }
    expected["folder/made/scrambled_middle.jpg"] = True  # its header is sound: measure finds out
    del expected["folder/real/._001_03.jpg"]  # left by macOS, no picture
    left_out = {item for kind, item, _ in ledger(dataset) if kind == "image"}
    assert set(image_ids(dataset)) == {image for image, is_readable in expected.items() if is_readable}
    assert left_out == {image for image, is_readable in expected.items() if not is_readable}
    assert dataset.counts("ingest")["image"].input == 88
    assert verify(dataset).sound


@pytest.mark.shared
@pytest.mark.parametrize("link", [False, True])
def test_a_tar_of_odd_names_loses_only_the_second_of_one_name(tmp_path, shared, link):
    source = PlainPictures(path=str(shared / "nasty" / "images" / "made" / "odd_names.tar"))
    dataset = ingest(source, tmp_path / "out", link=link)
    names = set(image_ids(dataset))
    assert {"folder/new%0Aline.jpg", "folder/bad_%FF%FE.jpg", "folder/back\\slash.jpg", "folder/a.jpg"} <= names
    assert len(names) == 12
    assert ledger(dataset) == {
        ("image", "folder/\u00e9.jpg", 1): "duplicate",
        ("whole", "folder/\u00e9.jpg#whole", 1): "image_rejected",
    }
    assert verify(dataset, decode_per_unit=-1).sound
