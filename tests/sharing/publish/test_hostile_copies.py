"""Copies of a source that a stranger made, and publications that claim what is not: bounded, and never waited for."""

import gzip
import os

import numpy as np
import pytest
from helpers import sa1b_members, write_tar
from hostiletars import hostile_middles, member, write

from refloom.schemas.errors import Refused, Rejected
from refloom.schemas.storage import Folder
from refloom.sharing.publish import rehydration
from refloom.sharing.publish import sourceindex as localcopy
from refloom.sharing.publish.rehydration import _is_near, _Rehydrator, _Shaper
from refloom.sharing.publish.sourceindex import FolderCopy


@pytest.mark.parametrize("what", hostile_middles())
def test_a_hostile_tar_in_a_copy_costs_what_lies_behind_the_damage(tmp_path, what):
    parts = [member(name, data) for name, data in sa1b_members([1, 2], count=1)]
    write(tmp_path / "sa_0.tar", *parts[:2], hostile_middles()[what], *parts[2:])
    copy = FolderCopy(Folder(tmp_path))
    assert list(copy.candidates("sa1b/1", None))
    assert not list(copy.candidates("sa1b/2", None))


def test_a_tar_that_cannot_be_read_and_a_pipe_cost_themselves(tmp_path, monkeypatch):
    write_tar(tmp_path / "bad.tar", sa1b_members([1], count=1))
    write_tar(tmp_path / "good.tar", sa1b_members([2], count=1))
    os.mkfifo(tmp_path / "pipe.tar")
    os.mkfifo(tmp_path / "sa_3.jpg")
    read = Folder.open

    def broken(folder, name):
        if name == "bad.tar":
            raise PermissionError(13, "Permission denied")
        return read(folder, name)

    monkeypatch.setattr(Folder, "open", broken)
    copy = FolderCopy(Folder(tmp_path))
    assert not list(copy.candidates("sa1b/1", None))
    assert list(copy.candidates("sa1b/2", None))
    joined = _Rehydrator(None, copy, None, None)
    (pipe,) = copy.candidates("sa1b/3", None)
    assert joined._read(*pipe) is None


def test_a_member_that_claims_terabytes_is_no_candidate(tmp_path, monkeypatch):
    monkeypatch.setattr(localcopy, "MAX_MEMBER_BYTES", 1000)
    write_tar(tmp_path / "a.tar", [("sa_1.jpg", bytes(2000)), ("sa_2.jpg", bytes(500))])
    copy = FolderCopy(Folder(tmp_path))
    assert not list(copy.candidates("sa1b/1", None))
    assert list(copy.candidates("sa1b/2", None))
    monkeypatch.setattr(rehydration, "MAX_FILE_BYTES", 1000)
    assert _Rehydrator(None, copy, None, None)._read(0, 0, 1 << 60) is None


def test_of_thousands_of_files_of_one_name_some_are_tried(tmp_path):
    write_tar(tmp_path / "a.tar", [("sa_1.jpg", b"x")] * 3000)
    assert len(list(FolderCopy(Folder(tmp_path)).candidates("sa1b/1", None))) == 64


def test_a_compressed_tar_is_refused_before_it_is_unpacked_whole(tmp_path):
    (tmp_path / "a.tar").write_bytes(gzip.compress(bytes(1 << 20)))
    with pytest.raises(Refused, match="is compressed"):
        FolderCopy(Folder(tmp_path))


@pytest.mark.parametrize(
    "box", [[0, 0, 1e9, 1e9], [-1e9, -1e9, 0, 0], [0, 0, np.inf, np.inf], [0, 0, np.nan, 1], [0, 0]]
)
def test_a_crop_beyond_its_picture_is_not_made(box):
    shaper = _Shaper({"face": {"crop_max_side_px": 10_000, "crop_quality": 95}})
    shaper.boxes[0] = box
    assert not _is_near(box, np.zeros((48, 64, 3), np.uint8))
    with pytest.raises(Rejected):
        shaper.shape(0, "crop", sa1b_members([1], count=1)[0][1])
