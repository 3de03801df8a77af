"""Sample data: true formats, exact masks, the same bytes for the same arguments, nothing given away."""

import io
import json
import re
import tarfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import ingest
from pycocotools import mask as coco_api

from refloom.ingest import sampledata
from refloom.ingest.sampledata import (
    captions,
    casting,
    categories,
    coco,
    cutouts,
    materials,
    photos,
    sa1b,
    scenes,
    subjects,
    videos,
)
from refloom.ingest.sampledata.backdrops import Backdrop
from refloom.ingest.sampledata.captions import Seen
from refloom.ingest.sampledata.solids import Pose
from refloom.ingest.sampledata.subjects import Placement
from refloom.ingest.sources.coco import Coco
from refloom.ingest.sources.sa1b import Sa1b
from refloom.ingest.sources.subjects import Subjects
from refloom.ingest.sources.ytvis import YouTubeVis
from refloom.schemas import pictures
from refloom.schemas.errors import Refused
from refloom.schemas.verify import verify

IMAGES, VIDEOS = 6, 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools under numpy 2


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("sample") / "data"
    sampledata.write(str(out), images=IMAGES, videos=VIDEOS, seed=0)
    return out


def load(path: Path):
    return json.loads(path.read_bytes())


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar.getmembers()}


def decode(segmentation, height: int, width: int) -> np.ndarray:
    """As everybody's loader does it: with pycocotools, from whatever COCO's `segmentation` holds."""
    encoded = segmentation
    if isinstance(segmentation, list):
        encoded = coco_api.merge(coco_api.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        encoded = coco_api.frPyObjects(segmentation, height, width)
    return coco_api.decode(encoded)


def tight(mask: np.ndarray) -> list[int]:
    return list(cv2.boundingRect(mask))


def test_every_format_is_taken_whole(tree, tmp_path):
    out = tmp_path / "dataset"
    for split in coco.SPLITS:
        annotations = tree / "coco/annotations"
        ingest(
            Coco(
                images=str(tree / "coco" / split),
                instances=str(annotations / f"instances_{split}.json"),
                captions=str(annotations / f"captions_{split}.json"),
            ),
            out,
        )
    ingest(Sa1b(tars=(str(tree / "sa1b"),)), out)
    ingest(Subjects(directory=str(tree / "subjects")), out)
    frames, instances = tree / "ytvis/train/JPEGImages", tree / "ytvis/train/instances.json"
    dataset = ingest(YouTubeVis(frames=str(frames), annotations=str(instances)), out)
    for kind, counts in dataset.counts("ingest").items():
        assert not counts.failed.total(), kind
        assert set(counts.rejected) <= {"crowd"}, kind
        assert bool(counts.kept) == (kind not in ("member",)), kind
    findings = verify(dataset, decode_per_unit=-1)
    assert findings.sound, findings.lines()
    truth = load(tree / "identities.json")
    known = {row["object_id"] for row in dataset.read("objects", ["object_id"]).to_pylist()}
    assert truth["objects"].keys() <= known
    tracks = {row["track_id"] for row in dataset.read("objects", ["track_id"]).to_pylist()}
    assert truth["tracks"].keys() == tracks - {None}


def test_the_same_arguments_give_the_same_bytes(tmp_path):
    for name, seed in (("one", 4), ("two", 4), ("other", 5)):
        sampledata.write(str(tmp_path / name), images=2, videos=1, seed=seed)
    one, two, other = (files(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two
    pictures_ = [name for name in one if name.startswith("coco") and name.endswith(".jpg")]
    assert pictures_
    assert all(one[name] != other[name] for name in pictures_)


def test_more_pictures_only_add_to_fewer(tree, tmp_path):
    few = tmp_path / "few"
    sampledata.write(str(few), images=IMAGES // 2, videos=1, seed=0)
    small, large = files(few), files(tree)
    assert all(large[name] == data for name, data in small.items() if name.endswith(".jpg"))
    tar = "sa1b/sa_000000.tar"
    assert members(few / tar).items() <= members(tree / tar).items()
    for split in coco.SPLITS:
        for name in (f"instances_{split}", f"captions_{split}"):
            fewer, more = (load(root / f"coco/annotations/{name}.json")["annotations"] for root in (few, tree))
            assert more[: len(fewer)] == fewer
    fewer, more = (load(root / "ytvis/train/instances.json")["annotations"] for root in (few, tree))
    assert more[: len(fewer)] == fewer


@pytest.mark.parametrize("index", range(6))
def test_boxes_and_areas_are_those_of_what_is_written(index, tmp_path):
    still = casting.still(coco.BRIEF, 3, index, held_out=False)
    height, width = still.picture.owner.shape
    covered = np.zeros((height, width), int)
    for annotation, _ in coco._annotations(1, list(coco._shown(still))):
        mask = decode(annotation["segmentation"], height, width)
        assert tight(mask) == annotation["bbox"]
        assert mask.sum() == annotation["area"]
        # polygons may share their outermost pixels, nothing more
        covered += cv2.erode(mask, np.ones((3, 3), np.uint8))
    assert covered.max() <= 1


def test_polygons_are_within_a_pixel_of_the_truth():
    polygons = lengths = 0
    for index in range(12):
        still = casting.still(coco.BRIEF, 0, index, held_out=False)
        height, width = still.picture.owner.shape
        shown = list(coco._shown(still))
        for (annotation, subject), one in zip(coco._annotations(1, shown), shown, strict=True):
            x0, y0, x1, y1 = one.pixels.box
            truth = np.zeros((height, width), np.uint8)
            truth[y0:y1, x0:x1] = one.pixels.pixels
            mask = decode(annotation["segmentation"], height, width)
            square = np.ones((3, 3), np.uint8)
            assert not (mask & ~cv2.dilate(truth, square)).any()
            assert not (cv2.erode(truth, square) & ~mask).any()
            if isinstance(annotation["segmentation"], dict):
                assert (mask == truth).all()
            polygons += isinstance(annotation["segmentation"], list)
            lengths += isinstance(annotation["segmentation"], dict) and subject is not None
    assert polygons > lengths > 0


def test_crowds_are_run_lengths_of_several_subjects():
    brief = replace(coco.BRIEF, view_share=0.0, real_share=0.0, crowd_share=1.0)
    still = casting.still(brief, 0, 0, held_out=False)
    assert len(still.picture.crowd) >= 5
    crowds = [one for one, subject in coco._annotations(1, list(coco._shown(still))) if subject is None]
    assert [one["iscrowd"] for one in crowds] == [1]
    assert isinstance(crowds[0]["segmentation"]["counts"], list)


def test_a_mask_is_what_covers_half_a_pixel_and_nearer_subjects_take_pixels_from_farther_ones():
    balls = [toy for toy in map(subjects.toy, range(100, 126)) if toy.kind == "ball"]
    nothing = np.zeros((100, 120), np.uint8)
    place = Backdrop(
        pixels=np.full((100, 120, 3), 128, np.uint8),
        regions=nothing,
        own=(),
        labels=nothing,
        parts=nothing,
        vanish_y=0.0,
        ground=(10.0, 100.0),
        table_y=None,
        words=(),
        photos=frozenset(),
    )
    light = materials.Light((0.0, 0.6, 0.8), 0.5, (1.0, 1.0, 1.0))
    feet = [(70.0, 95.0), (45.0, 85.0)]  # the nearer one is listed first
    placed = [
        scenes.Placed(ball, Placement(x, y, 60.0, Pose(0.4, 0.3, 0.0)))
        for ball, (x, y) in zip(balls, feet, strict=True)
    ]
    picture = scenes.compose(place, placed, light)
    # a ball is a disc from wherever one looks: its centre is half a unit above its foot
    row, column = np.mgrid[:100, :120] + 0.5
    near, far = (np.hypot(column - x, row - (y - 30 * np.cos(0.3))) <= 30 for x, y in feet)
    for position, truth in ((0, near), (1, far & ~near)):
        wrong = np.count_nonzero((picture.owner == position) ^ truth)
        assert wrong < 0.015 * truth.sum()
    assert not (picture.pixels[picture.owner >= 0] == 128).all()


def test_tracks_are_disjoint_complete_and_null_where_nothing_shows(tree):
    document = load(tree / "ytvis/train/instances.json")
    assert [entry["id"] for entry in document["categories"]] == list(range(1, len(document["categories"]) + 1))
    for video in document["videos"]:
        tracks = [track for track in document["annotations"] if track["video_id"] == video["id"]]
        assert tracks
        assert 12 <= video["length"] == len(video["file_names"]) <= 36
        assert [int(Path(name).stem) for name in video["file_names"]] == list(range(0, 5 * video["length"], 5))
        for frame in range(video["length"]):
            covered = np.zeros((video["height"], video["width"]), np.uint8)
            for track in tracks:
                entries = [track[key][frame] for key in ("segmentations", "bboxes", "areas")]
                assert len({entry is None for entry in entries}) == 1
                if entries[0] is not None:
                    mask = decode(entries[0], video["height"], video["width"])
                    assert tight(mask) == entries[1]
                    assert mask.sum() == entries[2]
                    covered += mask
            assert covered.max() <= 1


def test_subjects_of_videos_leave_and_come_back():
    """In some of the first videos a track is null between two frames in which it shows."""
    gaps = 0
    for index in range(6):
        video = videos.plan(0, index)
        shown = np.array(
            [[(picture.owner == who).any() for who in range(len(video.cast))] for picture, _ in video.frames()]
        )
        for column in shown.T:
            frames = np.flatnonzero(column)
            gaps += bool(len(frames) and not column[frames[0] : frames[-1]].all())
    assert gaps >= 1


def test_sa1b_records_follow_the_format(tree):
    content = members(tree / "sa1b/sa_000000.tar")
    for number in range(1, IMAGES + 1):
        record = json.loads(content[f"sa_{number}.json"])
        height, width = pictures.decode(content[f"sa_{number}.jpg"]).shape[:2]
        assert record["image"] == {
            "image_id": number,
            "width": width,
            "height": height,
            "file_name": f"sa_{number}.jpg",
        }
        assert 8 <= len(record["annotations"]) <= 40
        nested, whole = 0, []
        for annotation in record["annotations"]:
            mask = decode(annotation["segmentation"], height, width)
            x, y, w, h = tight(mask)
            assert annotation["bbox"] == [x, y, w - 1, h - 1]
            assert annotation["area"] == mask.sum()
            ((px, py),) = annotation["point_coords"]
            assert mask[int(py), int(px)]
            assert 0.8 < annotation["predicted_iou"] <= 1.05
            assert 0.9 < annotation["stability_score"] <= 1.0
            assert annotation["crop_box"] == [0.0, 0.0, width, height]
            nested += any((mask & ~other).sum() == 0 for other in whole)
            whole.append(mask)
        assert nested


def test_tars_hold_neither_clock_nor_user(tree):
    with tarfile.open(tree / "sa1b/sa_000000.tar") as tar:
        assert all((m.mtime, m.uid, m.gid, m.uname, m.gname) == (0, 0, 0, "", "") for m in tar.getmembers())


def test_sa1b_hides_the_face_and_coco_does_not():
    person = cutouts.real()[1]
    face = cutouts.filled([person.shapes["face"]], 512, 512) != 0
    plain, blurred = photos.pixels("astronaut"), cutouts.face_blurred("astronaut")

    def detail(pixels):
        return cv2.Laplacian(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.CV_32F)[face].std()

    assert detail(blurred) < 0.2 * detail(plain)
    assert sa1b.BRIEF.blurred
    assert not coco.BRIEF.blurred


IDENTITY_WORDS = frozenset({
    "red", "orange", "yellow", "green", "blue", "purple", "violet", "pink", "brown", "black", "white", "grey",
    "gray", "gold", "golden", "silver", "beige", "turquoise", "colorful", "colourful", "bright", "dark", "pale",
    "stripe", "stripes", "striped", "band", "bands", "banded", "dot", "dots", "dotted", "spot", "spots", "spotted",
    "check", "checks", "checked", "checkered", "marble", "marbled", "patch", "patches", "patched", "ring", "rings",
    "ringed", "swirl", "sector", "sectors", "plain",
})  # fmt: skip
"""Words that would give a subject's identity away."""


def test_captions_say_what_is_there_and_never_which_one(tree):
    words = {
        word for split in coco.SPLITS for word in re.findall(r"[a-z]+", json.dumps(_captions(tree, split)).lower())
    }
    assert not words & (IDENTITY_WORDS | set(materials.PATTERNS))
    said = [word for entry in photos.data("photos.json").values() for one in entry for word in one.get("words", ())]
    said += [
        noun for kind in photos.data("categories.json")["kinds"] for pair in categories.nouns(kind) for noun in pair
    ]
    assert not set(re.findall(r"[a-z]+", " ".join(said))) & IDENTITY_WORDS
    for split in coco.SPLITS:
        instances = load(tree / f"coco/annotations/instances_{split}.json")
        nouns = {
            number: {w for pair in pairs for w in pair}
            for number, pairs in photos.data("categories.json")["nouns"].items()
        }
        for image in instances["images"]:
            mine = [text for owner, text in _captions(tree, split) if owner == image["id"]]
            assert 1 <= len(mine) <= 5
            for annotation in instances["annotations"]:
                if annotation["image_id"] == image["id"]:
                    assert any(noun in mine[0].lower() for noun in nouns[str(annotation["category_id"])])


def _captions(tree: Path, split: str) -> list[tuple[int, str]]:
    document = load(tree / f"coco/annotations/captions_{split}.json")
    return [(entry["image_id"], entry["caption"]) for entry in document["annotations"]]


def test_kinds_of_one_category_are_counted_together():
    rng = np.random.default_rng(0)
    first = captions.write(rng, [Seen("rabbit", 1), Seen("cup", 1), Seen("elephant", 2)], [("on a table",)])[0]
    assert first == "Three plush toys and a cup on a table."


def test_held_out_subjects_are_nowhere_in_train(tree):
    truth = load(tree / "identities.json")
    val = {f"coco/{image['id']:012d}" for image in load(tree / "coco/annotations/instances_val2017.json")["images"]}
    assert val
    held = {n for name, n in truth["objects"].items() if name.split("#")[0] in val} | set(truth["folders"].values())
    train = {n for name, n in truth["objects"].items() if name.split("#")[0] not in val} | set(truth["tracks"].values())
    assert held
    assert train
    assert not held & train
    assert all(truth["subjects"][str(number)]["held_out"] == (number in held) for number in held | train)


def test_identities_come_back_in_other_pictures_and_videos(tree):
    truth = load(tree / "identities.json")
    shown = [*truth["objects"].values(), *truth["tracks"].values()]
    assert len(set(shown)) < 0.7 * len(shown)
    assert set(truth["tracks"].values()) & set(truth["objects"].values())


def test_toys_of_a_kind_differ_and_fill_their_boxes_naturally():
    light = materials.Light((0.0, 0.6, 0.8), 0.5, (1.0, 1.0, 1.0))
    fills, colours = [], set()
    for number in range(100, 152):
        toy = subjects.toy(number)
        place = Placement(100.0, 150.0, 90.0, Pose(0.5, 0.25, 0.0))
        sprite = toy.draw(place, light, 200, 200, blurred=False)
        mask = (sprite.alpha >= 0.5).astype(np.uint8)
        _, _, w, h = tight(mask)
        fills.append(mask.sum() / (w * h))
        colours.add(toy.materials[0].colours)
    assert len(colours) == 52
    assert min(fills) > 0.25
    assert max(fills) < 0.95
    assert 0.5 < np.median(fills) < 0.85


def test_sizes_of_subjects_vary():
    shares = []
    for index in range(24):
        still = casting.still(coco.BRIEF, 1, index, held_out=False)
        shares += [one.pixels.area / still.picture.owner.size for one in coco._shown(still)]
    assert np.quantile(shares, 0.1) < 0.04
    assert np.quantile(shares, 0.9) > 0.1
    assert max(shares) < 0.9


def test_a_finished_folder_is_left_alone_and_others_are_refused(tree, tmp_path):
    before = files(tree)
    lines = sampledata.write(str(tree), images=IMAGES, videos=VIDEOS, seed=0)
    assert "already" in lines[0]
    assert files(tree) == before
    with pytest.raises(Refused, match="other arguments"):
        sampledata.write(str(tree), images=IMAGES, videos=VIDEOS, seed=1)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(Refused, match="not empty"):
        sampledata.write(str(tmp_path), images=1, videos=0, seed=0)
    for wrong in ({"images": -1}, {"videos": -1}, {"seed": -1}, {"images": 0, "videos": 0}):
        with pytest.raises(Refused):
            sampledata.write(str(tmp_path / "new"), **({"images": 1, "videos": 1, "seed": 0} | wrong))
    assert not (tmp_path / "new").exists()


def test_an_interrupted_write_is_done_again(tmp_path, monkeypatch):
    out = tmp_path / "data"

    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sampledata.sa1b, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            sampledata.write(str(out), images=2, videos=0, seed=0)
    assert not (out / sampledata.MARKER).exists()
    with pytest.raises(Refused, match="other arguments"):
        sampledata.write(str(out), images=3, videos=0, seed=0)
    sampledata.write(str(out), images=2, videos=0, seed=0)
    sampledata.write(str(tmp_path / "whole"), images=2, videos=0, seed=0)
    assert files(out) == files(tmp_path / "whole")


def test_licenses_name_every_photograph(tree):
    document = load(tree / "coco/annotations/instances_train2017.json")
    named = {entry["id"]: entry["name"] for entry in document["licenses"]}
    assert len(named) == len(photos.catalogue())
    assert all(image["license"] in named for image in document["images"])
    assert "CC BY 2.0" in named[photos.license_id({"astronaut", "flower", "motorcycle"})]
    assert "danielbuechele" in (tree / "README.txt").read_text()


def test_an_absent_photograph_is_named(monkeypatch):
    monkeypatch.setattr(photos.importlib.util, "find_spec", lambda name: None)
    photos.pixels.cache_clear()
    with pytest.raises(Refused, match="skimage"):
        photos.pixels("coffee")
    monkeypatch.undo()
    assert photos.pixels("coffee").shape == (400, 600, 3)


def test_real_outlines_lie_in_their_photographs():
    for subject in cutouts.real().values():
        height, width = photos.pixels(subject.photo).shape[:2]
        for outline in (subject.outline, *subject.holes, *subject.shapes.values()):
            assert (outline >= 0).all()
            assert (outline <= (width, height)).all()
        inside, parts = subject.labels(np.eye(3), width, height)
        assert set(np.unique(parts)) == set(range(len(subject.parts) + 1))
        assert not parts[inside == 0].any()


def test_streams_do_not_need_to_seek():
    """The tar is written as a stream: an object store cannot seek."""
    data = io.BytesIO()
    data.seekable = lambda: False
    with tarfile.open(fileobj=data, mode="w|", format=tarfile.USTAR_FORMAT) as tar:
        sa1b._add(tar, "sa_1.json", b"{}")
    with tarfile.open(fileobj=io.BytesIO(data.getvalue())) as tar:
        assert tar.getnames() == ["sa_1.json"]
