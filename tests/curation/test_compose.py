"""Samples: what is in them belongs together and is the source's; frames, groups, faces, captions, bounds and bytes."""

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from curating import LOOSE, appearances, coco, composing, curated, easyref, embed, folders, samples, with_faces, ytvis
from helpers import HERE, ledger
from hypothesis import given, settings
from hypothesis import strategies as st

from refloom.curation.compose.frames import image_frames, video_frames
from refloom.curation.compose.inputs import ComposeInputs
from refloom.curation.compose.settings import Compose
from refloom.curation.job import curate
from refloom.curation.select.settings import Split
from refloom.ingest.sources.subjects import Subjects
from refloom.schemas import masks, pictures
from refloom.schemas.dataset import Dataset

SCENES = [
    {"cat": (10, 10, 50, 50), "dog": (40, 20, 90, 70), "dog two": (60, 5, 80, 30)},
    {"cat": (20, 20, 90, 70)},
    {},
]
CAPTIONS = {1: "A dog looks at a cat, which looks at dogs"}
FRAMES = 10
STEADY = [(10 + frame, 10, 50 + frame, 50) for frame in range(FRAMES)]
VIDEOS = {
    "long": {"cat": STEADY, "dog": [None] * 6 + [(40, 20, 90, 70)] * 4},
    "once": {"cat": [None, (10, 10, 50, 50), None]},
    "apart": {"cat": [(10, 10, 50, 50)], "dog": [None, None, (40, 20, 90, 70)]},
}
CONFIG = composing(frames_per_sample=4, samples_per_video=2, images_per_video=0)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Pictures, videos, folders and records, ingested and curated."""
    root = tmp_path_factory.mktemp("compose")
    curated(
        root,
        coco(root / "coco", SCENES, captions=CAPTIONS),
        ytvis(root / "ytvis", VIDEOS),
        Subjects(directory=str(folders(root / "subjects", {"vase": 3, "lamp": 1})), phrase_from_folder=True),
        easyref(root / "records", [("a.jpg", ["b.jpg"])]),
        config=replace(CONFIG, split=Split(validation_share=0.4)),
    )
    return root


@pytest.fixture(scope="module")
def dataset(root) -> Dataset:
    return Dataset(str(root / "data"))


def names(sample: dict[str, Any]) -> list[str]:
    return [picture["image_id"] for picture in sample["pictures"]]


# -- what belongs together -------------------------------------------------------------------------------------------


def test_every_picture_group_and_video_is_a_sample_or_in_the_ledger(dataset):
    assert {name.split("~")[0] for name in samples(dataset)} == {  # behind ~ stands the record
        "image/coco/000000000001",
        "image/coco/000000000002",
        "image/subjects/lamp/00.jpg",
        "group/folder/subjects/vase/00.jpg#whole",
        "group/folder/easyref/a.jpg#whole",
        "video/ytvis/long/0",
        "video/ytvis/long/1",
    }
    assert ledger(dataset, "compose") == {
        ("image", "coco/000000000003", 0): "no_subject",
        ("video", "ytvis/once", 0): "no_subject",
        ("video", "ytvis/apart/0", 0): "no_subject",
        ("cross", "coco/000000000001", 0): "no_reference",
    }
    counts = dataset.counts("compose")
    assert {kind: (one.input, one.kept, one.rejected.total()) for kind, one in counts.items()} == {
        "image": (4, 3, 1),
        "video": (4, 2, 2),
        "group": (2, 2, 0),
        "cross": (1, 0, 1),
    }


def test_every_appearance_is_an_object_of_its_picture(dataset):
    objects = {row["object_id"]: row for row in dataset.read("objects").to_pylist()}
    qualities = {row["object_id"]: row["quality"] for row in dataset.read("object_scores").to_pylist()}
    seen = Counter()
    for sample in samples(dataset).values():
        for subject in sample["subjects"]:
            assert len({one["picture"] for one in subject["appearances"]}) == len(subject["appearances"])
            for one in subject["appearances"]:
                row, picture = objects[one["object_id"]], sample["pictures"][one["picture"]]
                assert row["image_id"] == picture["image_id"]
                assert (row["box"], row["mask"], row["track_id"]) == (one["box"], one["mask"], subject["track_id"])
                assert (row["kind"], row["category"]) == (subject["kind"], subject["category"])
                assert one["quality"] == qualities[one["object_id"]]
                seen[sample["kind"], row["kind"]] += 1
                if one["mask"] is not None:
                    pixels = masks.decode(one["mask"])
                    assert pixels.shape == (picture["height"], picture["width"])
                    x0, y0, x1, y1 = (int(edge) for edge in one["box"])
                    assert pixels[y0:y1, x0:x1].sum() == pixels.sum() > 0
    assert set(seen) == {("image", "object"), ("image", "whole"), ("video", "object"), ("group", "whole")}


def test_pictures_are_the_sources_own_bytes_and_decode_to_their_size(dataset, root):
    rows = {row["image_id"]: row for row in dataset.read("images").to_pylist()}
    sources = {hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*.jpg")}
    for sample in samples(dataset).values():
        assert len(sample["images"]) == len(sample["pictures"])
        for picture, image in zip(sample["pictures"], sample["images"], strict=True):
            row = rows[picture["image_id"]]
            assert image == row["image"]
            assert hashlib.sha256(image["bytes"]).hexdigest() in sources
            assert pictures.decode(image["bytes"]).shape == (picture["height"], picture["width"], 3)
            for name in ("source", "video_id", "frame_index", "width", "height", "orientation", "license"):
                assert picture[name] == row[name], name


def test_min_quality_is_the_minimum_and_mip_s_is_not_made_up(dataset):
    for sample in samples(dataset).values():
        qualities = [one["quality"] for one in appearances(sample)]
        assert sample["scores"] == {"mip_s": None, "min_quality": min(qualities), "named": []}
        assert 0 <= min(qualities) <= 1


def test_a_sample_lies_in_the_split_of_its_pictures(dataset):
    splits = {row["image_id"]: row["split"] for row in dataset.read("splits").to_pylist()}
    found = {}
    for path in sorted(Path(dataset.url).glob("samples/*/*.parquet")):
        for row in pq.ParquetFile(path).read().to_pylist():
            found[row["sample_id"]] = path.parent.name
            assert {splits[name] for name in names(row)} == {path.parent.name}
    assert found.keys() == samples(dataset).keys()
    assert set(found.values()) == {"train", "validation"}


def test_only_kept_objects_are_subjects(tmp_path):
    config = replace(LOOSE, select=replace(LOOSE.select, min_area_share=0.15))
    sample = samples(curated(tmp_path, coco(tmp_path, SCENES), config=config))["image/coco/000000000001"]
    assert {one["object_id"] for one in appearances(sample)} == {"coco/000000000001#100", "coco/000000000001#101"}


# -- videos ----------------------------------------------------------------------------------------------------------


def test_frames_are_evenly_spaced_and_every_sample_spans_the_video(dataset):
    found = samples(dataset)
    frames = [[picture["frame_index"] for picture in found[f"video/ytvis/long/{n}"]["pictures"]] for n in (0, 1)]
    assert frames == [[0, 10, 30, 40], [5, 15, 35, 45]]  # of 0, 5, 10 ... 45


def test_the_subjects_of_a_video_are_its_tracks(dataset):
    sample = samples(dataset)["video/ytvis/long/0"]
    assert [
        (subject["subject_id"], [one["picture"] for one in subject["appearances"]]) for subject in sample["subjects"]
    ] == [("ytvis/long#1", [0, 1, 2, 3]), ("ytvis/long#2", [2, 3])]


def shelf_of(useful: list[bool]) -> tuple[list[str], ComposeInputs]:
    frames = [f"v/{number:03d}" for number in range(len(useful))]
    kept = {frame: [{"track_id": "v#1"}] for frame, holds in zip(frames, useful, strict=True) if holds}
    return frames, ComposeInputs(objects=kept)


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=60), st.integers(2, 9), st.integers(1, 5))
def test_frames_of_samples_are_even_interleaved_and_hold_an_object(useful, frames_per_sample, samples_per_video):
    frames, inputs = shelf_of(useful)
    config = Compose(frames_per_sample=frames_per_sample, samples_per_video=samples_per_video)
    found = video_frames(frames, inputs, config)
    places = {frame: place for place, frame in enumerate(frame for frame in frames if frame in inputs.objects)}
    if len(places) < 2:
        assert found == []
        return
    assert 1 <= len(found) <= samples_per_video
    assert len({frame for sample in found for frame in sample}) == sum(map(len, found))
    for sample in found:
        steps = np.diff([places[frame] for frame in sample])
        assert len(sample) == min(frames_per_sample, len(places))
        assert steps.min() > 0
        assert np.ptp(steps) <= len(found)
        assert places[sample[0]] < len(found)
        assert places[sample[-1]] >= len(places) - len(found)


# -- similarity ------------------------------------------------------------------------------------------------------


def test_frames_with_several_subjects_are_image_samples_too_and_tracks_of_one_frame_count(tmp_path):
    videos = {"apart": {"cat": [(10, 10, 50, 50)], "dog": [(40, 20, 90, 70)]}, "alone": {"cat": STEADY}}
    sources = ytvis(tmp_path / "ytvis", videos | {"long": VIDEOS["long"]})
    rows = samples(curated(tmp_path, sources, config=composing(frames_per_sample=4, samples_per_video=2)))
    stills = {name: row for name, row in rows.items() if row["kind"] == "image"}
    assert set(stills) == {"image/ytvis/apart/00000", "image/ytvis/long/00040"}
    assert all(len(row["subjects"]) == 2 for row in stills.values())
    assert {name for name in rows if name.startswith("video/")} == {
        "video/ytvis/long/0",
        "video/ytvis/long/1",
        "video/ytvis/alone/0",
        "video/ytvis/alone/1",
    }
    with pytest.raises(ValueError, match="images_per_video"):
        Compose(images_per_video=-1)


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), max_size=12), st.integers(0, 5))
def test_stills_are_the_frames_with_the_most_subjects(counts, wanted):
    frames = [f"v/{number:02d}" for number in range(len(counts))]
    inputs = ComposeInputs(objects={frame: [{}] * count for frame, count in zip(frames, counts, strict=True)})
    picked = image_frames(frames, inputs, Compose(images_per_video=wanted))
    assert picked == sorted(set(picked))
    several = sorted((count for count in counts if count >= 2), reverse=True)
    assert sorted((counts[frames.index(frame)] for frame in picked), reverse=True) == several[:wanted]


def test_similarity_is_the_cosines_of_pairs_of_appearances_in_order(tmp_path):
    dataset = curated(
        tmp_path, ytvis(tmp_path, {"v": {"cat": STEADY[:3], "dog": [(40, 20, 90, 70)] * 3}}), config=CONFIG
    )
    angles = {f"ytvis/v/{5 * frame:05d}#1": np.radians(angle) for frame, angle in enumerate((0, 60, 90))}
    vectors = {name: (np.cos(angle), np.sin(angle)) for name, angle in angles.items()}
    embed(dataset, vectors | {"ytvis/v/00000#2": (1, 0), "ytvis/v/00005#2": (0, 1)})
    curate(dataset.url, CONFIG, HERE)
    cat, dog = samples(Dataset(dataset.url))["video/ytvis/v/0"]["subjects"]
    assert cat["similarity"] == pytest.approx([0.5, 0, np.sqrt(3) / 2], abs=1e-3)  # (0,1), (0,2), (1,2)
    assert dog["similarity"] is None  # one of its three appearances has no embedding


# -- faces -----------------------------------------------------------------------------------------------------------


def test_a_face_inside_an_object_is_that_appearances_face_and_others_are_subjects(tmp_path):
    config = composing(min_face_px=20)
    dataset = curated(tmp_path, coco(tmp_path, SCENES), config=config)
    image, cat = "coco/000000000001", "coco/000000000001#100"
    inside, second, loose, small = [15, 15, 40, 40], [30, 30, 50, 50], [60, 40, 80, 70], [60, 40, 79, 70]
    with_faces(dataset, (image, cat, inside), (image, cat, second), (image, None, loose), (image, None, small))
    curate(dataset.url, config, HERE)
    sample = samples(Dataset(dataset.url))[f"image/{image}"]
    faces = {one["object_id"]: one["face"] for one in appearances(sample) if one["object_id"]}
    assert {name for name, face in faces.items() if face} == {cat}
    assert (faces[cat]["box"], faces[cat]["det_score"]) == (inside, 1.0)  # the better of two
    (subject,) = [subject for subject in sample["subjects"] if subject["kind"] == "face"]
    (one,) = subject["appearances"]
    assert (subject["subject_id"], one["box"], one["face"]["box"]) == (f"{image}@2", loose, loose)
    assert (one["object_id"], one["mask"], one["quality"]) == (None, None, None)
    assert sample["scores"]["min_quality"] == min(one["quality"] for one in appearances(sample) if one["object_id"])


def test_the_face_of_a_rejected_object_is_a_subject_of_its_own(tmp_path):
    config = replace(composing(min_face_px=20), select=replace(LOOSE.select, min_area_share=0.9))
    dataset = curated(tmp_path, coco(tmp_path, SCENES), config=config)
    with_faces(dataset, ("coco/000000000001", "coco/000000000001#100", [15, 15, 40, 40]))
    curate(dataset.url, config, HERE)
    (sample,) = samples(Dataset(dataset.url)).values()
    assert [subject["kind"] for subject in sample["subjects"]] == ["face"]
    assert sample["scores"]["min_quality"] is None


# -- captions --------------------------------------------------------------------------------------------------------


def test_captions_are_the_sources_or_marked_as_a_template(dataset):
    said = {
        picture["image_id"]: (picture["captions"], picture["caption_from"])
        for sample in samples(dataset).values()
        for picture in sample["pictures"]
    }
    assert said["coco/000000000001"] == ([CAPTIONS[1]], "source")
    assert said["coco/000000000002"] == (["a photo of a cat"], "template")
    assert said["ytvis/long/00000"] == (["a photo of a cat"], "template")  # the dog comes later
    assert said["ytvis/long/00030"] == (["a photo of a cat and a dog"], "template")
    assert said["subjects/lamp/00.jpg"] == (["a photo of a lamp"], "template")
    assert said["easyref/a.jpg"] == (["about a.jpg"], "source")
    assert said["easyref/b.jpg"] == ([], None)  # nothing is known to say


def test_mentions_are_spans_in_captions_of_pictures_that_show_the_subject(dataset):
    found = samples(dataset)
    for sample in found.values():
        for subject in sample["subjects"]:
            shown = {one["picture"] for one in subject["appearances"]}
            for one in subject["mentions"]:
                assert one["picture"] in shown
                caption = sample["pictures"][one["picture"]]["captions"][one["caption"]]
                assert caption[one["start"] : one["end"]].rstrip("s") == subject["phrase"]
    count = {subject["subject_id"]: len(subject["mentions"]) for subject in found["video/ytvis/long/0"]["subjects"]}
    assert count == {"ytvis/long#1": 4, "ytvis/long#2": 2}
    of_dogs = [
        subject["mentions"] for subject in found["image/coco/000000000001"]["subjects"] if subject["phrase"] == "dog"
    ]
    assert [len(mentions) for mentions in of_dogs] == [2, 2]


# -- groups ----------------------------------------------------------------------------------------------------------


def test_the_subject_of_a_group_is_the_group_seen_on_every_picture(dataset):
    sample = samples(dataset)["group/folder/subjects/vase/00.jpg#whole"]
    assert names(sample) == [f"subjects/vase/{number:02d}.jpg" for number in range(3)]
    (subject,) = sample["subjects"]
    assert (subject["subject_id"], subject["kind"], subject["phrase"]) == (sample["sample_id"][6:], "whole", "vase")
    assert [one["picture"] for one in subject["appearances"]] == [0, 1, 2]


def test_pictures_of_a_large_group_are_thinned_evenly(tmp_path):
    source = Subjects(directory=str(folders(tmp_path / "subjects", {"vase": 9})))
    (sample,) = samples(curated(tmp_path, source, config=composing(max_pictures_per_group=5))).values()
    assert names(sample) == [f"subjects/vase/{number:02d}.jpg" for number in (0, 2, 4, 6, 8)]


def test_pictures_of_a_record_are_one_sample_whatever_units_they_lie_in(tmp_path):
    for size in (10, 2):
        source = easyref(tmp_path, [("a.jpg", ["b.jpg", "c.jpg"]), ("d.jpg", ["e.jpg", "b.jpg"])], unit_size=size)
        dataset = curated(tmp_path / str(size), source)
        assert sorted(names(sample) for sample in samples(dataset).values()) == [
            [f"easyref/{name}.jpg" for name in members] for members in ("abc", "bde")
        ], f"{size} pictures a unit"
