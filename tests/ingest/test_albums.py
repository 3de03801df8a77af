"""Albums: one cast in several places, whole and unhidden, with captions that never tell two toys of a kind apart."""

import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import HERE, ingest
from pycocotools import mask as coco_api

from refloom.ingest import sampledata
from refloom.ingest.engine.tasks import Pool, Task
from refloom.ingest.engine.watch import Watch
from refloom.ingest.sampledata import albums, albumtrees, materials, photos, subjects
from refloom.ingest.sampledata.albumtrees import ScenesJob
from refloom.ingest.sampledata.identities import Identities
from refloom.ingest.sources.ytvis import YouTubeVis
from refloom.schemas.errors import Refused
from refloom.schemas.storage import Folder
from refloom.schemas.verify import verify

SIDE, SCENES = 64, 40


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scenes") / "data"
    sampledata.write(str(out), images=0, videos=0, seed=0, scenes=SCENES, side_px=SIDE)
    return out


def document(tree: Path, split: str) -> dict:
    return json.loads((tree / f"scenes/{split}/instances_{split}.json").read_bytes())


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_a_toy_is_whole_large_and_unhidden_in_every_picture():
    for index in range(24):
        album = albums.album(0, index, held_out=False)
        assert len(set(album.places)) == albums.PICTURES
        for number in range(albums.PICTURES):
            view = album.view(number, SIDE)
            for position in range(len(album.cast)):
                x, y, width, height = cv2.boundingRect((view.picture.owner == position).view(np.uint8))
                assert x >= 0
                assert y > 0
                assert x + width <= SIDE
                assert y + height <= SIDE
                assert max(width, height) >= 0.5 * SIDE / len(album.cast), (index, number)
                assert x > 0 or x + width < SIDE, "cut off on both sides"


def test_captions_tell_kinds_numbers_and_place_and_nothing_else():
    known = {word for kind in albums.KINDS for name in albums.names(kind) for word in name.split()}
    known |= {word for place in albums.places() for word in place.split()} | {"a", "an", "two", "and"}
    assert not known & set(materials.PATTERNS)
    for index in range(30):
        album = albums.album(1, index, held_out=True)
        for number, place in enumerate(album.places):
            text = album.view(number, SIDE).caption
            assert set(text.removesuffix(".").lower().split()) <= known
            told = albums.told(text)
            assert told is not None
            assert told.kinds == Counter(toy.kind for toy in album.cast)
            assert told.place == place.words


@pytest.mark.parametrize("text", ["", ".", "A rabbit.", "A dragon on the grass by a lake.", "a rabbit on the moon."])
def test_what_is_no_caption_of_an_album_tells_nothing(text: str):
    assert albums.told(text) is None


def test_places_are_told_apart_by_their_words():
    assert len(set(albums.places())) == len(photos.places()) == 8
    assert not any(one != other and one.endswith(other) for one in albums.places() for other in albums.places())


def test_toys_of_val_are_nowhere_in_train(tree: Path):
    tracks = json.loads((tree / "identities.json").read_bytes())["tracks"]
    assert {subjects.is_held_out(number) for name, number in tracks.items() if name.startswith("ytvis/h")} == {True}
    assert {subjects.is_held_out(number) for name, number in tracks.items() if name.startswith("ytvis/a")} == {False}


def test_scenes_are_taken_whole_with_who_is_who_and_exact_masks(tree: Path, tmp_path: Path):
    for split in albumtrees.SPLITS:
        folder = tree / "scenes" / split
        source = YouTubeVis(
            frames=str(folder / "JPEGImages"), annotations=str(folder / f"instances_{split}.json"), name="scenes"
        )
        dataset = ingest(source, tmp_path / "dataset")
    counts = dataset.counts("ingest")
    assert {
        kind: (one.rejected.total(), one.failed.total()) for kind, one in counts.items() if one.input
    } == dict.fromkeys(("annotation", "caption", "image", "track", "video"), (0, 0))
    assert counts["image"].kept == counts["caption"].kept == SCENES
    assert verify(dataset, decode_per_unit=-1).sound
    tracks = {row["track_id"] for row in dataset.read("objects", ["track_id"]).to_pylist()}
    assert tracks == json.loads((tree / "identities.json").read_bytes())["tracks"].keys()
    written = document(tree, "train")
    for video in written["videos"][:3]:
        album = albums.album(0, video["id"] - 1, held_out=False)
        own = [track for track in written["annotations"] if track["video_id"] == video["id"]]
        for position, track in enumerate(own):
            for number, shown in enumerate(track["segmentations"]):
                mask = coco_api.decode(coco_api.frPyObjects(shown, SIDE, SIDE))
                assert (mask == (album.view(number, SIDE).picture.owner == position)).all()


def test_an_interrupted_run_goes_on_to_the_same_bytes_in_any_order(tree: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(albumtrees, "_ALBUMS_PER_UNIT", 2)
    out = Folder(str(tmp_path / "data"))
    units = albumtrees._units("train", albumtrees._shares(SCENES)[0])
    worker = ScenesJob(out.url, 0, SIDE).start()
    for unit in reversed(units[1:]):
        with Watch(unit.name, timeout_s=0) as watch:
            worker.run(Task(unit.name, unit), watch)
    drawn = out.sizes("scenes/train/JPEGImages/a000002")
    out.remove("scenes/train/JPEGImages/a000002/00000.jpg")  # a unit that is whole is not drawn again
    albumtrees.write(out, 0, SCENES, SIDE, Identities(), HERE)
    assert drawn
    assert not out.exists("scenes/train/JPEGImages/a000002/00000.jpg")
    found, whole = files(tmp_path / "data" / "scenes"), files(tree / "scenes")
    assert found == {name: data for name, data in whole.items() if name != "train/JPEGImages/a000002/00000.jpg"}


@pytest.mark.processes
def test_two_workers_write_the_bytes_of_one(tree: Path, tmp_path: Path):
    sampledata.write(
        str(tmp_path / "data"), images=0, videos=0, seed=0, scenes=SCENES, side_px=SIDE, pool=Pool(workers=2)
    )
    assert files(tmp_path / "data") == {
        name: data.replace(str(tree).encode(), str(tmp_path / "data").encode()) for name, data in files(tree).items()
    }


def test_more_scenes_only_add_to_fewer(tree: Path, tmp_path: Path):
    sampledata.write(str(tmp_path / "few"), images=0, videos=0, seed=0, scenes=12)
    few, many = files(tmp_path / "few"), files(tree)
    assert all(many[name] == data for name, data in few.items() if name.endswith(".jpg"))


def test_scenes_of_other_sizes_are_of_the_same_toys():
    album = albums.album(2, 0, held_out=False)
    small, large = (album.view(0, side) for side in albums.SIDES_PX)
    assert (small.caption, small.picture.cast) == (large.caption, large.picture.cast)
    assert large.picture.pixels.shape == (128, 128, 3)


def test_other_arguments_are_refused_and_the_same_ones_do_nothing(tree: Path):
    before = files(tree)
    for more in ({"scenes": SCENES + 4}, {"scenes": SCENES, "side_px": 128}, {"scenes": 0}):
        with pytest.raises(Refused, match=r"other arguments|nothing to write"):
            sampledata.write(str(tree), images=0, videos=0, seed=0, **more)
    assert "already" in sampledata.write(str(tree), images=0, videos=0, seed=0, scenes=SCENES)[0]
    assert files(tree) == before
