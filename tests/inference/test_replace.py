"""`--replace` keeps the old result until the new one is whole."""

import json

import numpy as np
import pytest
import tinypipes as tiny
from adapting import ip_adapter
from PIL import Image

from refloom.inference import results
from refloom.inference.adapters.reference import Reference
from refloom.inference.checkpoints import weights
from refloom.inference.pipeline import Generated
from refloom.schemas import swap
from refloom.schemas.storage import Folder

REFERENCES = [Reference(np.zeros((8, 8, 3), np.uint8), "cat")]


def made(shade, count):
    images = [Image.new("RGB", (8, 8), (shade,) * 3) for _ in range(count)]
    return Generated(images, tuple(range(count)))


def write(folder, shade, count):
    return results.write(Folder(str(folder)), made(shade, count), REFERENCES, ["a cat"], {"shade": shade})


def held(folder):
    """Every file by name."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def out(tmp_path):
    write(tmp_path / "out", 10, 3)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    return tmp_path / "out"


def test_a_new_result_takes_the_place_of_the_whole_old_one(out):
    assert write(out, 20, 2) == ["image-0000.png", "image-0001.png"]
    assert sorted(held(out)) == ["image-0000.png", "image-0001.png", "notes.txt", "settings.json", "sheet.png"]
    assert json.loads((out / "settings.json").read_text())["shade"] == 20
    assert [one.name for one in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("step", ["image-0001.png", "sheet.png", "settings.json"])
def test_a_result_that_cannot_be_written_to_its_end_leaves_the_old_one(out, monkeypatch, step):
    before, real = held(out), Folder.write

    def failing(self, path, data):
        if path == step:
            raise KeyboardInterrupt
        real(self, path, data)

    monkeypatch.setattr(Folder, "write", failing)
    with pytest.raises(KeyboardInterrupt):
        write(out, 20, 2)
    assert held(out) == before
    assert [one.name for one in out.parent.iterdir()] == ["out"]


def test_on_a_store_the_settings_go_first_and_come_last(tmp_path):
    """A store cannot exchange folders, so what is half written must not look whole."""
    folder = Folder("memory://replace-test/out")
    arguments = (REFERENCES, ["a cat"], {})
    results.write(folder, made(10, 2), *arguments)
    results.write(folder, made(20, 1), *arguments)
    assert folder.names() == ["image-0000.png", "settings.json", "sheet.png"]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters") / "ip"
    ip_adapter(tiny.sdxl_pipe()).save_pretrained(folder)
    return folder


@pytest.fixture
def convert(adapter, call):
    return lambda out, *more: call("convert", adapter, out, *more)


def test_a_conversion_takes_the_place_of_an_earlier_one_when_it_is_whole(convert, tmp_path, monkeypatch):
    out = tmp_path / "ours"
    assert convert(out).code == 0
    (out / "README.md").write_text("mine")
    assert "or --replace" in convert(out).err
    before = held(out)

    def failing(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(weights, "save_file", failing)
        failed = convert(out, "--replace", "--dtype", "bf16")
        assert (failed.code, "no space left" in failed.err) == (3, True)
    assert held(out) == before
    assert convert(out, "--replace", "--dtype", "bf16").code == 0
    assert held(out) != before
    assert sorted(held(out)) == ["README.md", "adapter.safetensors", "config.json"]
    assert [one.name for one in tmp_path.iterdir()] == ["ours"]


def test_a_conversion_replaces_no_folder_that_holds_something_else(convert, tmp_path):
    (tmp_path / "mine" / "photos").mkdir(parents=True)
    assert "holds photos, which is no adapter's" in convert(tmp_path / "mine", "--replace").err
    assert (tmp_path / "mine" / "photos").is_dir()
    refused = convert(tmp_path / "mine", "--replace", "--format", "diffusers")
    assert (refused.code, "must end in .safetensors" in refused.err) == (2, True)


def test_nothing_of_a_swap_is_left_where_the_system_cannot_exchange_names(out, monkeypatch):
    monkeypatch.setattr(swap, "_exchanged", lambda one, other: False)
    write(out, 20, 1)
    assert sorted(held(out)) == ["image-0000.png", "notes.txt", "settings.json", "sheet.png"]
    assert [one.name for one in out.parent.iterdir()] == ["out"]
