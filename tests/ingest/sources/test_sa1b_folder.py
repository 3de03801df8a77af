"""SA-1B unpacked is taken as its tars are: same ids, same rows."""

import pytest
from helpers import image_ids, ingest, ledger, object_ids, sa1b_members, write_tar

from refloom.ingest.sources import sa1bfolder
from refloom.ingest.sources.folder import PlainPictures
from refloom.ingest.sources.sa1b import Sa1b
from refloom.schemas.errors import Refused
from refloom.schemas.verify import verify


def unpack(folder, members):
    folder.mkdir(parents=True)
    for name, data in members:
        (folder / name).write_bytes(data)
    return folder


def taken(*paths, out, **options):
    limit = options.pop("limit", None)
    source = Sa1b(tars=tuple(str(path) for path in paths), limit=limit, linked=options.get("link", False))
    dataset = ingest(source, out, **options)
    assert verify(dataset, decode_per_unit=-1).sound
    return dataset


@pytest.mark.parametrize("link", [False, True])
def test_a_folder_gives_the_rows_of_its_tar(tmp_path, link):
    members = sa1b_members([5, 3, 12])
    packed = taken(write_tar(tmp_path / "sa_0.tar", sorted(members)), out=tmp_path / "packed", link=link)
    folder = unpack(tmp_path / "sa_0", members)
    unpacked = taken(folder, out=tmp_path / "unpacked", link=link)
    assert not ledger(unpacked)
    columns = ["image_id", "sha256", "width", "height", "license", "faces_blurred"]
    assert unpacked.read("images", columns).equals(packed.read("images", columns))
    assert unpacked.read("objects").equals(packed.read("objects"))
    rows = unpacked.read("images").to_pylist()
    assert [unpacked.checked_picture(row) for row in rows] == [
        (folder / f"sa_{number}.jpg").read_bytes() for number in (12, 3, 5)
    ]


def test_a_folder_of_unpacked_folders_gives_a_key_each(tmp_path):
    for number in range(2):
        unpack(tmp_path / f"sa/sa_00000{number}", sa1b_members([2 * number, 2 * number + 1]))
    source = Sa1b(tars=(str(tmp_path / "sa"),))
    assert [plan.key for plan in source.plans()] == ["sa1b.sa_000000", "sa1b.sa_000001"]
    dataset = taken(tmp_path / "sa", out=tmp_path / "out")
    assert image_ids(dataset) == [f"sa1b/{number}" for number in range(4)]


def test_units_are_runs_of_pairs(tmp_path, monkeypatch):
    monkeypatch.setattr(sa1bfolder, "UNIT_PAIRS", 2)
    folder = unpack(tmp_path / "sa_0", sa1b_members(range(5)))
    assert [unit.name for unit in Sa1b(tars=(str(folder),)).plans()[0].units] == [
        f"sa1b.sa_0-{number:05d}" for number in range(3)
    ]
    dataset = taken(folder, out=tmp_path / "out")
    assert len(image_ids(dataset)) == 5
    assert len(image_ids(taken(folder, out=tmp_path / "few", limit=3))) == 3


def test_halves_cost_themselves_and_other_files_are_noted(tmp_path):
    members = [*sa1b_members([1, 2, 3]), ("notes.txt", b"x"), ("._sa_1.jpg", b"x")]
    folder = unpack(tmp_path / "sa_0", [one for one in members if one[0] not in ("sa_2.json", "sa_3.jpg")])
    source = Sa1b(tars=(str(folder),))
    assert "passed over" in source.plans()[0].notes[0]
    assert ".txt 1" in source.plans()[0].notes[0]
    dataset = taken(folder, out=tmp_path / "out")
    assert image_ids(dataset) == ["sa1b/1"]
    assert {item: reason for (kind, item, _), reason in ledger(dataset).items() if kind == "image"} == {
        "sa1b/2": "incomplete_pair",
        "sa1b/3": "incomplete_pair",
    }
    assert len(object_ids(dataset)) == 3


def test_a_folder_of_neither_is_refused_with_the_way_out(tmp_path):
    folder = unpack(tmp_path / "sa_0", [one for one in sa1b_members([1]) if one[0].endswith("jpg")])
    with pytest.raises(Refused, match=r"no \.tar in .*, and no picture with its json beside it: give SA-1B tars"):
        taken(folder, out=tmp_path / "out")


def test_a_folder_of_tars_given_as_pictures_is_refused_with_the_way_out(tmp_path):
    write_tar(tmp_path / "set.tar", sa1b_members([1]))
    with pytest.raises(Refused, match="it holds tars, so give them one by one"):
        PlainPictures(path=str(tmp_path)).plans()
