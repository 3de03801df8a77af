"""Tars that a stranger made cost themselves: what lies before the damage is kept, and other tars are read."""

import gzip
import os

import pytest
from helpers import image_ids, ingest, ledger, sa1b_members, write_tar
from hostiletars import hostile_middles, member, write

from refloom.ingest import jsons
from refloom.ingest.files import passed_over
from refloom.ingest.sources import sa1b as sa1b_source
from refloom.ingest.sources.folder import PlainPictures
from refloom.ingest.sources.sa1b import Sa1b
from refloom.ingest.tar import Member
from refloom.schemas.errors import Refused
from refloom.schemas.storage import Folder
from refloom.schemas.verify import verify


def parts(*numbers: int) -> list[bytes]:
    return [member(name, data) for name, data in sa1b_members(numbers, count=1)]


@pytest.mark.parametrize("what", hostile_middles())
def test_of_sa1b_tars_a_hostile_one_costs_what_lies_behind_the_damage(tmp_path, what):
    bad = write(tmp_path / "sa_0.tar", *parts(1), hostile_middles()[what], *parts(2))
    good = write_tar(tmp_path / "sa_1.tar", sa1b_members([9], count=1))
    dataset = ingest(Sa1b(tars=(str(bad), str(good))), tmp_path / "out")
    assert image_ids(dataset) == ["sa1b/1", "sa1b/9"]
    found = ledger(dataset)
    assert found.pop(("tar", "sa_0.tar", 0)) == "io_error"
    assert all(kind == "member" for kind, *_ in found)
    assert verify(dataset).sound


@pytest.mark.parametrize("what", hostile_middles())
def test_a_gzip_tar_is_bounded_alike(tmp_path, what):
    plain = write(tmp_path / "plain" / "sa_0.tar", *parts(1), hostile_middles()[what], *parts(2))
    bad = tmp_path / "sa_0.tar"
    bad.write_bytes(gzip.compress(plain.read_bytes()))
    good = write_tar(tmp_path / "sa_1.tar", sa1b_members([9], count=1))
    dataset = ingest(Sa1b(tars=(str(bad), str(good))), tmp_path / "out")
    assert "sa1b/9" in image_ids(dataset)
    assert ledger(dataset)["tar", "sa_0.tar", 0] == "io_error"


@pytest.mark.parametrize("what", hostile_middles())
def test_of_a_tar_of_pictures_what_lies_before_the_damage_is_kept(tmp_path, what):
    pictures = [part for number in (1, 2) for part in parts(number)[:1]]
    bad = write(tmp_path / "x.tar", pictures[0], hostile_middles()[what], pictures[1])
    dataset = ingest(PlainPictures(path=str(bad)), tmp_path / "out")
    assert image_ids(dataset) == ["folder/sa_1.jpg"]
    assert ledger(dataset)["tar", "x.tar", 0] == "io_error"
    assert verify(dataset).sound


def test_a_tar_that_cannot_be_read_costs_itself_and_all_that_cannot_are_refused(tmp_path, monkeypatch):
    bad = write_tar(tmp_path / "sa_0.tar", sa1b_members([1], count=1))
    good = write_tar(tmp_path / "sa_1.tar", sa1b_members([9], count=1))
    read = Folder.open

    def broken(folder, name):
        if name == "sa_0.tar":
            raise PermissionError(13, "Permission denied")
        return read(folder, name)

    monkeypatch.setattr(Folder, "open", broken)
    dataset = ingest(Sa1b(tars=(str(bad), str(good))), tmp_path / "out")
    assert image_ids(dataset) == ["sa1b/9"]
    assert ledger(dataset) == {("tar", "sa_0.tar", 0): "io_error"}
    with pytest.raises(Refused, match=r"sa_0\.tar cannot be read: Permission denied"):
        ingest(Sa1b(tars=(str(bad),)), tmp_path / "other")
    monkeypatch.undo()
    dataset = ingest(Sa1b(tars=(str(bad), str(good))), tmp_path / "out", retry_failed=True)
    assert image_ids(dataset) == ["sa1b/1", "sa1b/9"]
    assert not ledger(dataset)


def test_a_hundred_thousand_members_of_one_name_are_numbered_in_one_pass(monkeypatch):
    compared = []

    class Stem(str):
        __slots__ = ()

        def __eq__(self, other):
            compared.append(other)
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    monkeypatch.setattr(sa1b_source, "safe_name", lambda name: name)
    monkeypatch.setattr(sa1b_source.posixpath, "basename", lambda name: name)
    monkeypatch.setattr(sa1b_source.posixpath, "splitext", lambda name: (Stem("sa_1"), ".jpg"))
    index = sa1b_source.tar.Index(tuple(Member("sa_1.jpg", at, 1, "file", True) for at in range(2000)), False, None)
    pairs, _ = sa1b_source._pair(index)
    assert [pair.occurrence for pair in pairs] == list(range(2000))
    assert len(compared) < 20 * 2000


def test_a_note_on_files_of_a_thousand_extensions_stays_a_line():
    (note,) = passed_over([f"x.{at}{'y' * 200}" for at in range(1000)], "DIR")
    assert "980 with other extensions" in note
    assert len(note) < 1500


def test_links_out_of_a_folder_of_tars_and_pipes_do_not_hang(tmp_path):
    os.mkfifo(tmp_path / "sa_0.tar")
    write_tar(tmp_path / "sa_1.tar", sa1b_members([9], count=1))
    dataset = ingest(Sa1b(tars=(str(tmp_path),)), tmp_path / "out")
    assert image_ids(dataset) == ["sa1b/9"]
    assert ledger(dataset) == {("tar", "sa_0.tar", 0): "io_error"}


def test_a_pipe_given_as_a_tar_of_pictures_is_refused_unopened(tmp_path):
    os.mkfifo(tmp_path / "x.tar")
    with pytest.raises(Refused, match="the file is empty"):
        PlainPictures(path=str(tmp_path / "x.tar")).plans()


def test_a_line_without_an_end_costs_itself_and_its_bytes_are_not_gathered(tmp_path, monkeypatch):
    monkeypatch.setattr(jsons, "MAX_LINE_BYTES", 1000)
    for name, data in sa1b_members([1, 2], count=1):
        (tmp_path / name).write_bytes(data)
    monkeypatch.setattr(jsons, "_PIECE_BYTES", 700)
    lines = [b'{"file": "sa_1.jpg"}', b'{"file": "' + b"x" * 100_000 + b'"}', b'{"file": "sa_2.jpg"}', b"y" * 5000]
    (tmp_path / "x.jsonl").write_bytes(b"\n".join(lines))
    with open(tmp_path / "x.jsonl", "rb") as file:
        assert [len(line) for line in jsons.lines(file)] == [21, 1002, 21, 1001]
    dataset = ingest(PlainPictures(path=str(tmp_path / "x.jsonl")), tmp_path / "out")
    assert image_ids(dataset) == ["folder/sa_1.jpg", "folder/sa_2.jpg"]
    assert ledger(dataset) == {("record", "x.jsonl#2", 0): "bad_record", ("record", "x.jsonl#4", 0): "bad_record"}
