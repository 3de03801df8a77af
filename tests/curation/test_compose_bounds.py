"""Bounded samples: the best subjects, smaller pictures with boxes and masks of their size, linked pictures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from curating import LOOSE, appearances, coco, composing, curated, samples, with_faces
from drawing import encoded, gradient
from helpers import HERE, ingest, ledger
from PIL import Image

from refloom.curation.config import Curation
from refloom.curation.job import curate
from refloom.ingest.sources.folder import PlainPictures
from refloom.schemas import masks, pictures
from refloom.schemas.dataset import Dataset

SCENES = [{"cat": (10, 10, 50, 50), "dog": (40, 20, 90, 70), "dog two": (60, 5, 80, 30)}, {"cat": (20, 20, 90, 70)}]

# -- bounds ----------------------------------------------------------------------------------------------------------


def test_the_best_subjects_are_kept_where_there_are_too_many(tmp_path):
    plain = samples(curated(tmp_path, coco(tmp_path, SCENES)))["image/coco/000000000001"]
    best = sorted(appearances(plain), key=lambda one: -one["quality"])[:2]
    config = composing(max_subjects=2)
    curate(str(tmp_path / "data"), config, HERE, replace=True)
    sample = samples(Dataset(str(tmp_path / "data")))["image/coco/000000000001"]
    assert appearances(sample) == best
    assert sample["scores"]["min_quality"] == best[-1]["quality"]


def sized(root: Path, config: Curation) -> tuple[dict[str, Any], dict[str, Any]]:
    """A sample before and after pictures are bounded."""
    scene = {"cat": (21, 33, 202, 187), "dog": (130, 40, 379, 290), "bird": (0, 0, 71, 300)}
    dataset = curated(root, coco(root, [scene], size=(400, 300)))
    with_faces(dataset, ("coco/000000000001", "coco/000000000001#100", [40, 50, 120, 130]))
    curate(dataset.url, LOOSE, HERE)
    (before,) = samples(Dataset(dataset.url)).values()
    curate(dataset.url, config, HERE, replace=True)
    (after,) = samples(Dataset(dataset.url)).values()
    return before, after


@pytest.mark.parametrize("side", [399, 257, 100])
def test_a_bounded_picture_is_encoded_again_with_boxes_and_masks_of_its_size(tmp_path, side):
    before, after = sized(tmp_path, composing(max_side_px=side))
    (picture,), (image,) = after["pictures"], after["images"]
    pixels = pictures.decode(image["bytes"])
    assert (picture["width"], picture["height"]) == (side, round(side * 0.75))
    assert pixels.shape == (picture["height"], picture["width"], 3)
    scale = np.array([picture["width"] / 400, picture["height"] / 300] * 2)
    kept = {one["object_id"]: one for one in appearances(after)}
    assert len(kept) == 3
    for one in appearances(before):
        small = kept[one["object_id"]]
        assert small["box"] == pytest.approx(np.array(one["box"]) * scale, abs=1e-3)
        assert small["mask"]["size"] == list(pixels.shape[:2])
        assert np.abs(masks.tight_boxes([small["mask"]])[0] - small["box"]).max() <= 2
        share = masks.areas([one["mask"]])[0] / (400 * 300) - masks.areas([small["mask"]])[0] / (pixels.size / 3)
        assert abs(share) < 0.02
        assert small["quality"] == one["quality"]
    (face,) = [one["face"] for one in kept.values() if one["face"]]
    assert face["box"] == pytest.approx(np.array([40, 50, 120, 130]) * scale, abs=1e-3)
    assert face["landmarks"][1] == pytest.approx(np.array([120, 50]) * scale[:2], abs=1e-3)


def test_pictures_within_the_bound_keep_their_bytes(tmp_path):
    before, after = sized(tmp_path, composing(max_side_px=400))
    assert repr(after) == repr(before)  # repr, because landmarks hold NaN


def test_a_turned_picture_that_is_bounded_is_upright(tmp_path):
    (tmp_path / "pictures").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(Image.fromarray(gradient(200, 120)), "JPEG", exif=exif)
    (tmp_path / "pictures/a.jpg").write_bytes(turned)
    source = PlainPictures(path=str(tmp_path / "pictures"))
    plain = samples(curated(tmp_path / "plain", source))
    small = samples(curated(tmp_path / "small", source, config=composing(max_side_px=100)))
    ((one,), (two,)) = (sample["pictures"] for sample in (*plain.values(), *small.values()))
    assert [(picture["width"], picture["height"], picture["orientation"]) for picture in (one, two)] == [
        (120, 200, 6),
        (60, 100, 1),
    ]


def test_a_picture_that_is_encoded_again_is_named_as_what_it_is(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/a.png").write_bytes(encoded(Image.fromarray(gradient(200, 120)), "PNG"))
    source = PlainPictures(path=str(tmp_path / "pictures"))
    (sample,) = samples(curated(tmp_path, source, config=composing(max_side_px=100))).values()
    (image,) = sample["images"]
    assert image["bytes"][:3] == b"\xff\xd8\xff"
    assert image["path"].endswith(".jpg")


# -- linked pictures -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("change", "reason"), [("remove", "missing_file"), ("swap", "source_changed")])
def test_a_linked_picture_that_is_gone_or_changed_costs_its_sample(tmp_path, change, reason):
    dataset = ingest(coco(tmp_path, SCENES), tmp_path / "data", link=True)
    curate(dataset.url, LOOSE, HERE, until="split")
    path = tmp_path / "val2017/000000000001.jpg"
    size = path.stat().st_size
    path.unlink()
    if change == "swap":
        path.write_bytes(pictures.encode_jpeg(gradient(96, 80, 77), 60).ljust(size, b"\0"))
        assert path.stat().st_size == size
    curate(dataset.url, LOOSE, HERE)
    again = Dataset(dataset.url)
    assert ledger(again, "compose")["image", "coco/000000000001", 0] == reason
    assert set(samples(again)) == {"image/coco/000000000002"}
