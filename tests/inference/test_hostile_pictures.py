"""Pictures that strangers hand to generation, editing and evaluation: one sentence, and nothing is decoded."""

import os

import pytest
import simplejpeg
from PIL import Image
from slowfiles import bombs

from refloom.inference.adapters import reading
from refloom.inference.adapters.reading import read_mask, read_picture
from refloom.inference.adapters.reference import Reference
from refloom.schemas.errors import Refused


@pytest.mark.parametrize("what", bombs())
def test_a_slow_bomb_is_no_reference_and_no_mask(what, tmp_path, monkeypatch):
    file = tmp_path / "bomb.jpg"
    file.write_bytes(bombs()[what][0])
    for place, name in ((Image, "open"), (simplejpeg, "decode_jpeg")):
        monkeypatch.setattr(place, name, lambda *_, **__: pytest.fail("a decoder was asked"))
    with pytest.raises(Refused, match=r"the reference 'cat'.*bomb\.jpg cannot be used"):
        Reference(file, "cat")
    with pytest.raises(Refused, match="cannot be used"):
        read_mask(file.read_bytes())


def test_a_pipe_and_a_device_are_refused_unopened(tmp_path):
    os.mkfifo(tmp_path / "x.png")
    for file in (tmp_path / "x.png", "/dev/zero", tmp_path):
        with pytest.raises(Refused, match="is no regular file: give a picture file"):
            read_picture(file)


def test_of_a_file_beyond_the_limit_no_more_is_read_than_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_FILE_BYTES", 1 << 20)
    file = tmp_path / "x.png"
    with open(file, "wb") as opened:
        opened.truncate(8 << 40)  # sparse: reading all of it would take the memory
    with pytest.raises(Refused, match="has more than 1 MB: make it smaller first"):
        read_picture(file)
