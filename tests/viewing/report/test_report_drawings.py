"""The drawings of a report: outlines on the edges of masks, small thumbnails, and no more read than is shown."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from reporting import reported

from refloom.schemas import boxes, masks, pictures
from refloom.schemas.dataset import Dataset
from refloom.viewing.outlines import View, around, cut, view_of
from refloom.viewing.rows import fetch


@pytest.fixture
def made(tmp_path_factory) -> Path:
    """Not to be changed: the tests of reports share it."""
    return reported(tmp_path_factory)


@pytest.fixture
def dataset(made) -> Dataset:
    return Dataset(str(made))


def _corners(path: str) -> np.ndarray:
    """The points of an SVG path, (N, 2)."""
    return np.array([float(number) for number in re.findall(r"-?[\d.]+", path)]).reshape(-1, 2)


@pytest.mark.parametrize("box", [(20, 12, 60, 40), (0, 0, 30, 64), (97, 60, 100, 64)])
def test_the_outline_lies_on_the_edge_of_the_mask(box):
    x0, y0, x1, y1 = box
    shape = np.zeros((64, 100), np.uint8)
    shape[y0:y1, x0:x1] = 1
    view = view_of(around(box, 100, 64), 160)
    found = _corners(view.outline(masks.encode(shape), 64, 100))
    left, top, right, bottom = view.box(box)
    assert found.min(axis=0) == pytest.approx([left, top], abs=0.6)
    assert found.max(axis=0) == pytest.approx([right, bottom], abs=0.6)


def test_a_hole_is_outlined_too_and_a_mask_of_another_picture_is_not_drawn():
    shape = np.ones((64, 64), np.uint8)
    shape[20:40, 20:40] = 0
    view = View((0, 0, 64, 64), 128, 128)
    assert view.outline(masks.encode(shape), 64, 64).count("M") == 2
    assert view.outline(masks.encode(shape), 65, 64) == ""
    assert view.outline(None, 64, 64) == ""
    assert view.outline({"size": [64, 64], "counts": "broken"}, 64, 64) == ""


def test_the_outline_of_a_mask_of_crumbs_stays_short():
    crumbs = (np.random.default_rng(0).random((200, 200)) > 0.5).astype(np.uint8)
    path = View((0, 0, 200, 200), 160, 160).outline(masks.encode(crumbs), 200, 200)
    assert 0 < len(_corners(path)) <= 600


@pytest.mark.parametrize("box", [(0, 0, 3, 3), (10, 10, 300, 14), (0, 0, 480, 480), (-5, 470, 900, 600)])
def test_a_thumbnail_shows_its_box_is_not_a_stripe_and_stays_small(box):
    noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    region = around(box, 640, 480)
    x0, y0, x1, y1 = boxes.pad(box, 640, 480)
    assert region[0] <= x0 < x1 <= region[2]
    assert region[1] <= y0 < y1 <= region[3]
    drawn = cut(noise, view_of(region, 160))
    assert max(drawn.width, drawn.height) <= 160
    assert min(drawn.width, drawn.height) >= 40
    assert len(drawn.jpeg) <= 14_000
    assert pictures.decode(drawn.jpeg).shape == (drawn.height, drawn.width, 3)


def test_only_the_row_groups_that_hold_wanted_pictures_are_read(made, tmp_path, monkeypatch):
    copied = tmp_path / "data"
    shutil.copytree(made, copied)
    dataset = Dataset(str(copied))
    unit = next(unit for unit in dataset.units() if unit.startswith("ytvis"))
    (file,) = dataset.manifests("ingest")[unit].files_of("images")
    path = dataset.folder.at(file.path)
    rows = pq.read_table(path)
    pq.write_table(rows, path, row_group_size=1, compression="NONE")
    ids = rows["image_id"].to_pylist()
    places = pq.ParquetFile(path).metadata
    starts = {}
    for group in range(places.num_row_groups):
        columns = [places.row_group(group).column(index) for index in range(places.num_columns)]
        (bytes_column,) = [column for column in columns if column.path_in_schema == "image.bytes"]
        starts[ids[group]] = bytes_column.data_page_offset
    read: list[tuple[int, int]] = []
    plain = dataset.folder.open
    monkeypatch.setattr(dataset.folder, "open", lambda name: _Counting(plain(name), read))
    wanted = ids[3]
    (row,) = fetch(dataset, "images", {unit: {wanted, "not there"}}, ["image_id", "image"])
    assert row == {"image_id": wanted, "image": rows["image"][3].as_py()}

    def is_read(image_id: str) -> bool:
        return any(start <= starts[image_id] + 64 < end for start, end in read)

    assert [image_id for image_id in ids if is_read(image_id)] == [wanted]


class _Counting:
    """A file that notes the ranges that are read of it."""

    def __init__(self, file: Any, read: list[tuple[int, int]]) -> None:
        self._file, self._read = file, read

    def read(self, size: int = -1) -> bytes:
        start = self._file.tell()
        data: bytes = self._file.read(size)
        self._read.append((start, start + len(data)))
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_Counting":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
