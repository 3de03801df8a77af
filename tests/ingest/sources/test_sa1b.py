"""SA-1B tars: streamed, hostile, damaged, gzipped, linked."""

import gzip
import io
import json
import tarfile

import pytest
from helpers import image_ids, ingest, ledger, object_ids, sa1b_members, sa1b_record, write_tar

from refloom.ingest.sources.sa1b import Sa1b
from refloom.schemas.errors import Refused
from refloom.schemas.verify import verify


def sa1b(*paths, **more) -> Sa1b:
    return Sa1b(tars=tuple(str(path) for path in paths), **more)


def test_rows_hold_what_the_tar_says(tmp_path):
    members = sa1b_members([5, 6])
    dataset = ingest(sa1b(write_tar(tmp_path / "sa_000000.tar", members)), tmp_path / "out")
    rows = dataset.read("images").to_pylist()
    assert [row["image_id"] for row in rows] == ["sa1b/5", "sa1b/6"]
    assert rows[0]["image"]["bytes"] == members[0][1]
    assert all(row["faces_blurred"] and row["license"].startswith("SA-1B") for row in rows)
    assert object_ids(dataset) == {f"sa1b/{image}#{index}" for image in (5, 6) for index in range(3)}
    fields = json.loads(dataset.read("objects").to_pylist()[0]["source_json"])
    assert set(fields) == {"id", "point_coords", "crop_box"}
    assert verify(dataset).sound


def test_order_of_members_does_not_matter_and_pairs_need_not_be_neighbours(tmp_path):
    members = sa1b_members([5, 6, 7])
    records_first = [member for member in members if member[0].endswith("json")] + [
        (f"./deep/{name}", data) for name, data in members if name.endswith("jpg")
    ]
    dataset = ingest(sa1b(write_tar(tmp_path / "sa_1.tar", records_first)), tmp_path / "out")
    assert image_ids(dataset) == ["sa1b/5", "sa1b/6", "sa1b/7"]
    assert len(object_ids(dataset)) == 9


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_gzip_tar_gives_the_same_rows(tmp_path, shuffle):
    members = sa1b_members([5, 6, 7])
    if shuffle:
        members = members[::2] + members[1::2]
    plain = ingest(sa1b(write_tar(tmp_path / "sa_1.tar", members)), tmp_path / "plain")
    packed = tmp_path / "gz" / "sa_1.tar"
    packed.parent.mkdir()
    packed.write_bytes(gzip.compress((tmp_path / "sa_1.tar").read_bytes()))
    zipped = ingest(sa1b(packed), tmp_path / "zipped")
    assert zipped.fingerprint("images") == plain.fingerprint("images")
    assert zipped.fingerprint("objects") == plain.fingerprint("objects")
    with pytest.raises(Refused, match="gzip tar"):
        sa1b(packed, linked=True).plans()


def test_links_point_into_the_tar(tmp_path):
    members = sa1b_members([5, 6])
    dataset = ingest(sa1b(write_tar(tmp_path / "sa_1.tar", members), linked=True), tmp_path / "out", link=True)
    rows = dataset.read("images").to_pylist()
    assert [dataset.picture(row) for row in rows] == [members[0][1], members[2][1]]
    assert verify(dataset).sound


def test_nothing_escapes_and_what_is_no_file_is_on_record(tmp_path):
    path = tmp_path / "sa_1.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind, target in (
            ("sa_1.jpg", tarfile.SYMTYPE, "/etc/passwd"),
            ("sa_2.jpg", tarfile.LNKTYPE, "../../etc/passwd"),
            ("pipe", tarfile.FIFOTYPE, ""),
            ("device", tarfile.CHRTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
        for name in ("../escaped.jpg", "/absolute.json", "a/../../b.jpg", "notes.txt", *("._sa_5.jpg", ".DS_Store")):
            tar.addfile(tarfile.TarInfo(name))
        for name, data in sa1b_members([5]):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    dataset = ingest(sa1b(path), tmp_path / "out")
    assert image_ids(dataset) == ["sa1b/5"]
    found = {item: reason for (kind, item, _), reason in ledger(dataset).items() if kind == "member"}
    assert found == {
        "sa_1.jpg": "unsafe_path",
        "sa_2.jpg": "unsafe_path",
        "pipe": "unsafe_path",
        "device": "unsafe_path",
        "../escaped.jpg": "unsafe_path",
        "/absolute.json": "unsafe_path",
        "a/../../b.jpg": "unsafe_path",
        "notes.txt": "bad_record",
    }
    assert not (tmp_path / "escaped.jpg").exists()


def test_a_bad_pair_costs_itself(tmp_path):
    good, picture = sa1b_members([1]), sa1b_members([2])[0][1]
    record = sa1b_record(3, 64, 48, 2)
    members = [
        *good,
        ("sa_2.jpg", picture),  # no record
        ("sa_3.json", json.dumps(record).encode()),  # no picture
        ("sa_4.jpg", picture),
        ("sa_4.json", b"{broken"),
        ("sa_5.jpg", picture),
        ("sa_5.json", json.dumps(record).encode()),  # of another picture
        ("sa_6.jpg", picture[:-40]),
        ("sa_6.json", json.dumps(sa1b_record(6, 64, 48, 2)).encode()),
        ("sa_7.jpg", picture),
        ("sa_7.json", json.dumps({"image": {}, "annotations": "none"}).encode()),
        ("deep/sa_1.jpg", picture),  # a second picture of one id
    ]
    dataset = ingest(sa1b(write_tar(tmp_path / "sa_1.tar", members)), tmp_path / "out")
    assert image_ids(dataset) == ["sa1b/1"]
    images = {
        (item, occurrence): reason for (kind, item, occurrence), reason in ledger(dataset).items() if kind == "image"
    }
    assert images == {
        ("sa1b/2", 0): "incomplete_pair",
        ("sa1b/3", 0): "incomplete_pair",
        ("sa1b/4", 0): "bad_record",
        ("sa1b/5", 0): "incomplete_pair",
        ("sa1b/6", 0): "truncated",
        ("sa1b/7", 0): "bad_record",
        ("sa1b/1", 1): "duplicate",
    }
    assert dataset.counts("ingest")["annotation"].rejected == {"image_rejected": 2}
    assert verify(dataset).sound


def test_a_cut_tar_gives_what_it_holds_and_fails_for_the_rest(tmp_path):
    path = write_tar(tmp_path / "sa_1.tar", sa1b_members([1, 2, 3]))
    with tarfile.open(path) as tar:
        cut = tar.getmember("sa_3.jpg").offset_data + 100
    path.write_bytes(path.read_bytes()[:cut])
    dataset = ingest(sa1b(path), tmp_path / "out")
    assert image_ids(dataset) == ["sa1b/1", "sa1b/2"]
    assert ledger(dataset)["tar", "sa_1.tar", 0] == "io_error"
    assert dataset.counts("ingest")["image"].failed == {"io_error": 1}
    write_tar(path, sa1b_members([1, 2, 3]))
    dataset = ingest(sa1b(path), tmp_path / "out", retry_failed=True)
    assert image_ids(dataset) == ["sa1b/1", "sa1b/2", "sa1b/3"]
    assert not ledger(dataset)


@pytest.mark.parametrize("content", [b"", b"no tar at all", b"\x1f\x8b\x08broken"])
def test_what_is_no_tar_fails_as_one_item(tmp_path, content):
    path = tmp_path / "sa_1.tar"
    path.write_bytes(content)
    dataset = ingest(sa1b(path, write_tar(tmp_path / "sa_2.tar", sa1b_members([9]))), tmp_path / "out")
    assert image_ids(dataset) == ["sa1b/9"]
    assert ledger(dataset) == {("tar", "sa_1.tar", 0): "io_error"}


def test_folders_of_tars_are_read_and_two_of_one_name_are_refused(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    write_tar(tmp_path / "a" / "sa_0.tar", sa1b_members([1]))
    write_tar(tmp_path / "a" / "sa_1.tar", sa1b_members([2]))
    write_tar(tmp_path / "b" / "sa_0.tar", sa1b_members([3]))
    assert len(image_ids(ingest(sa1b(tmp_path / "a"), tmp_path / "out"))) == 2
    with pytest.raises(Refused, match="--name"):
        sa1b(tmp_path / "a", tmp_path / "b").plans()
    with pytest.raises(Refused, match=r"no \.tar in"):
        sa1b(tmp_path).plans()
    with pytest.raises(Refused, match="does not exist"):
        sa1b(tmp_path / "c").plans()


def test_two_tars_with_one_picture_are_refused(tmp_path):
    one = write_tar(tmp_path / "sa_0.tar", sa1b_members([1]))
    two = write_tar(tmp_path / "sa_1.tar", sa1b_members([1, 2]))
    with pytest.raises(Refused, match=r"sa1b/1 is in sa1b.sa_0 and in sa1b.sa_1"):
        ingest(sa1b(one, two), tmp_path / "out")
    ingest(sa1b(one), tmp_path / "out")
    with pytest.raises(Refused, match=r"already held under the key sa1b\.sa_0"):
        ingest(sa1b(two), tmp_path / "out")


def test_many_masks_on_one_picture(tmp_path):
    dataset = ingest(sa1b(write_tar(tmp_path / "sa_1.tar", sa1b_members([1], count=400))), tmp_path / "out")
    assert len(object_ids(dataset)) == 400
    assert verify(dataset).sound


def test_real_photographs(shared, tmp_path):
    dataset = ingest(sa1b(shared / "sa1b"), tmp_path / "out")
    counts = dataset.counts("ingest")
    assert (counts["image"].kept, counts["annotation"].kept) == (12, 228)
    assert not ledger(dataset)
    assert verify(dataset, decode_per_unit=-1).sound


def test_three_annotations_of_one_id_are_one_object_and_two_numbered_duplicates(tmp_path):
    members = dict(sa1b_members([1], count=3))
    record = json.loads(members["sa_1.json"])
    for annotation in record["annotations"]:
        annotation["id"] = 7
    members["sa_1.json"] = json.dumps(record).encode()
    tar = write_tar(tmp_path / "sa_000001.tar", members.items())
    dataset = ingest(sa1b(tar), tmp_path / "data")
    assert object_ids(dataset) == {"sa1b/1#7"}
    assert ledger(dataset) == {("annotation", "sa1b/1#7", at): "duplicate" for at in (1, 2)}
