"""The second look: copies agree with their original in the small, other photographs of the same thing do not."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import HERE, ingest
from maderows import FINE, rows_after

from refloom.curation.annotate.settings import Models
from refloom.curation.config import Curation
from refloom.curation.dedup.pixels import NOTHING, Overlay, is_copy, mirrored, overlay, view
from refloom.curation.dedup.settings import Dedup
from refloom.curation.job import curate
from refloom.ingest.sampledata import photos
from refloom.ingest.sources.folder import PlainPictures
from refloom.schemas import pictures
from refloom.schemas.dataset import Dataset

Pixels = np.ndarray
LEAST = 0.8


def cut(pixels: Pixels, left: float, top: float, right: float, bottom: float) -> Pixels:
    height, width = pixels.shape[:2]
    rows = slice(int(height * top), int(height * (1 - bottom)))
    return np.ascontiguousarray(pixels[rows, int(width * left) : int(width * (1 - right))])


def scaled(pixels: Pixels, x: float, y: float) -> Pixels:
    size = round(pixels.shape[1] * x), round(pixels.shape[0] * y)
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))


def written(pixels: Pixels) -> Pixels:
    size = pixels.shape[0] / 400
    where, colour = (20, round(0.9 * pixels.shape[0])), (255, 255, 255)
    return np.asarray(cv2.putText(pixels.copy(), "a word 2026", where, 0, size, colour, max(1, round(2 * size))))


EDITS: dict[str, Callable[[Pixels], Pixels]] = {
    "jpeg": lambda pixels: pictures.decode(pictures.encode_jpeg(pixels, 20)),
    "quarter": lambda pixels: scaled(pixels, 0.25, 0.25),
    "squeezed": lambda pixels: scaled(pixels, 0.8, 0.7),
    "inner": lambda pixels: cut(pixels, 0.1, 0.1, 0.1, 0.1),
    "corner": lambda pixels: cut(pixels, 0.2, 0.2, 0.0, 0.0),
    "mirrored": mirrored,
    "bright": lambda pixels: np.clip(1.2 * pixels.astype(float) + 20, 0, 255).astype(np.uint8),
    "grey": lambda pixels: np.repeat(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2),
    "written": written,
    "bordered": lambda pixels: np.pad(pixels, ((40, 40), (40, 40), (0, 0)), constant_values=255),
}


@pytest.fixture(scope="module")
def originals() -> dict[str, Pixels]:
    names = [name for name in photos.catalogue() if name.startswith(("astronaut", "chelsea", "coffee"))]
    return {name: photos.pixels(name) for name in names[:3]}


@pytest.mark.parametrize("edit", EDITS)
def test_a_copy_is_seen_through_every_edit(originals, edit):
    for pixels in originals.values():
        one, copy = view(pixels), EDITS[edit](pixels)
        assert any(is_copy(overlay(one, view(way)), LEAST) for way in (copy, mirrored(copy)))


def test_different_photographs_are_no_copies(originals):
    names = list(originals)
    for one, other in zip(names, names[1:] + names[:1], strict=True):
        assert not is_copy(overlay(view(originals[one]), view(originals[other])), LEAST)


def test_parts_of_one_photograph_of_which_neither_holds_the_other_are_no_copies(originals):
    pixels = next(iter(originals.values()))
    one, other = cut(pixels, 0.2, 0, 0, 0), cut(pixels, 0, 0, 0.2, 0)
    found = overlay(view(one), view(other))
    assert found.agreement > LEAST
    assert found.covered[1] < 0.9
    assert not is_copy(found, LEAST)


def test_a_turned_picture_and_one_without_texture_are_no_copies(originals):
    pixels = next(iter(originals.values()))
    assert not is_copy(overlay(view(pixels), view(np.ascontiguousarray(np.rot90(pixels)))), LEAST)
    plain = view(np.full((60, 80, 3), 128, np.uint8))
    assert overlay(plain, plain) == NOTHING
    assert view(np.zeros((1, 1, 3), np.uint8)).grey.shape == (256, 256)
    assert is_copy(Overlay(0.8, (0.5, 0.99)), 0.8)
    assert not is_copy(Overlay(0.79, (0.5, 0.99)), 0.8)


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="min_agreement"):
        Dedup(min_agreement=1.2)


@pytest.mark.shared
def test_of_two_photographs_of_one_sitting_both_stay_and_any_cut_says_so(shared: Path, tmp_path: Path):
    """Neutral and smiling; by embedding alone one of them goes."""
    (tmp_path / "in").mkdir()
    for name in ("london_005/005_03", "london_005/005_08"):
        data = (shared / "faces" / f"{name}.jpg").read_bytes()
        (tmp_path / "in" / f"{Path(name).name}.jpg").write_bytes(data)
        smaller = cut(pictures.decode(data), 0.05, 0.05, 0.05, 0.05)
        (tmp_path / "in" / f"{Path(name).name}_cut.jpg").write_bytes(pictures.encode_jpeg(smaller, 80))
    near = Dedup(by=("bytes", "embedding"), min_cosine=0.8, max_whole_hamming=64)
    config = Curation(models=Models(face="none"), dedup=near)
    trusting = replace(config, dedup=replace(config.dedup, min_agreement=None))
    dataset = ingest(PlainPictures(path=str(tmp_path / "in"), unit_size=1), tmp_path / "data")
    curate(dataset.url, config, HERE, until="quality")
    others = [Dataset(shutil.copytree(dataset.url, tmp_path / name)) for name in ("fine", "trusting")]
    rows = rows_after(dataset, "dedup", config)
    assert {row["id"]: row["of"] for row in rows if row["kind"] == "image"} == {
        f"folder/{name}_cut.jpg": f"folder/{name}.jpg" for name in ("005_03", "005_08")
    }
    assert rows_after(others[0], "dedup", replace(config, grain=FINE)) == rows
    assert len([row for row in rows_after(others[1], "dedup", trusting) if row["kind"] == "image"]) == 3
