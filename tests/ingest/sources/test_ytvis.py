"""YouTube-VIS: tracks, absent frames, order of frames, and every defect that an annotation file can have."""

import json

import pytest
from helpers import image_ids, ingest, ledger, object_ids, write_ytvis

from refloom.ingest.sources.ytvis import YouTubeVis
from refloom.schemas.errors import Refused
from refloom.schemas.verify import verify


def ytvis(path, **more) -> YouTubeVis:
    return YouTubeVis(frames=str(path.parent), annotations=str(path), **more)


def change(path, edit) -> None:
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def test_rows_hold_what_the_file_says(tmp_path):
    dataset = ingest(ytvis(write_ytvis(tmp_path / "vis")), tmp_path / "out")
    images = dataset.read("images").to_pylist()
    assert [row["image_id"] for row in images[:2]] == ["ytvis/v1/00000", "ytvis/v1/00005"]
    assert [(row["video_id"], row["frame_index"]) for row in images[:2]] == [("ytvis/v1", 0), ("ytvis/v1", 5)]
    assert images[1]["time_s"] == pytest.approx(5 / 30)
    objects = {row["object_id"]: row for row in dataset.read("objects").to_pylist()}
    assert "ytvis/v1/00000#11" not in objects  # null in the first frame
    assert objects["ytvis/v1/00005#11"]["track_id"] == "ytvis/v1#11"
    assert objects["ytvis/v1/00005#11"]["category"] == "giant_panda"
    counts = dataset.counts("ingest")
    assert {kind: counts[kind].kept for kind in counts} == {"video": 2, "image": 8, "track": 4, "annotation": 14}
    assert verify(dataset).sound


def test_frames_may_have_captions_and_each_counts(tmp_path):
    path = write_ytvis(tmp_path / "vis")

    def tell(document):
        document["videos"][0]["captions"] = [["a panda", "a panda and a dog"], None, "one text", ["fine", 7, " "]]

    change(path, tell)
    dataset = ingest(ytvis(path), tmp_path / "out")
    captions = {
        row["image_id"]: row["captions"] for row in dataset.read("images", ["image_id", "captions"]).to_pylist()
    }
    first = [captions[f"ytvis/v1/{frame:05d}"] for frame in (0, 5, 10, 15)]
    assert first == [["a panda", "a panda and a dog"], [], ["one text"], ["fine"]]
    assert not any(texts for name, texts in captions.items() if not name.startswith("ytvis/v1/"))
    counts = dataset.counts("ingest")["caption"]
    assert (counts.input, counts.kept, dict(counts.rejected)) == (6, 4, {"bad_text": 2})
    assert verify(dataset).sound


def test_frames_come_in_the_order_of_their_numbers(tmp_path):
    path = write_ytvis(tmp_path / "vis")
    plain = ingest(ytvis(path), tmp_path / "plain")

    def reverse(document):
        for video in document["videos"]:
            video["file_names"].reverse()
        for track in document["annotations"]:
            for key in ("segmentations", "bboxes", "areas"):
                track[key].reverse()

    change(path, reverse)
    turned = ingest(ytvis(path), tmp_path / "turned")
    assert turned.fingerprint("images") == plain.fingerprint("images")
    assert turned.fingerprint("objects") == plain.fingerprint("objects")


def test_units_are_runs_of_videos(tmp_path):
    path = write_ytvis(tmp_path / "vis", videos=3)
    one, many = ingest(ytvis(path), tmp_path / "one"), ingest(ytvis(path, unit_size=1), tmp_path / "many")
    assert len(many.units()) == 3
    assert one.read("objects").equals(many.read("objects"))
    assert image_ids(ingest(ytvis(path, limit=1), tmp_path / "few")) == image_ids(one)[:4]


@pytest.mark.parametrize(
    ("edit", "track_reason"),
    [
        (lambda track: track.update(iscrowd=1), "crowd"),
        (lambda track: track.update(category_id=99), "unknown_category"),
        (lambda track: (track.pop("segmentations"), track.pop("bboxes")), "bad_record"),
        (lambda track: track["segmentations"].pop(), "bad_record"),
        (lambda track: track["bboxes"].append(None), "bad_record"),
        (lambda track: track.update(segmentations=[None] * 4), "bad_record"),
        (lambda track: track.update(video_id=77), "no_image"),
        (lambda track: track.update(id=11), "duplicate"),
        (lambda track: track.pop("id"), "bad_record"),
    ],
)
def test_a_bad_track_costs_itself(tmp_path, edit, track_reason):
    path = write_ytvis(tmp_path / "vis", videos=1)
    change(
        path,
        lambda document: (
            edit(document["annotations"][-1 if track_reason == "duplicate" else 0])
            if track_reason != "duplicate"
            else document["annotations"].append(document["annotations"][1])
        ),
    )
    dataset = ingest(ytvis(path), tmp_path / "out")
    reasons = [reason for (kind, *_), reason in ledger(dataset).items() if kind == "track"]
    assert reasons == [track_reason]
    assert {object_id for object_id in object_ids(dataset) if object_id.endswith("#11")} == {
        f"ytvis/v1/{frame:05d}#11" for frame in (5, 10, 15)
    }
    assert verify(dataset).sound


def test_a_bad_frame_of_a_track_costs_that_frame(tmp_path):
    path = write_ytvis(tmp_path / "vis", videos=1)

    def edit(document):
        document["annotations"][0]["segmentations"][1] = {"size": [48, 64], "counts": [1, 2]}
        document["annotations"][0]["bboxes"][2] = [float("nan")] * 4
        document["annotations"][0]["bboxes"][3] = [1, 2, 3]

    change(path, edit)
    dataset = ingest(ytvis(path), tmp_path / "out")
    assert ledger(dataset) == {
        ("annotation", "ytvis/v1/00005#10", 0): "bad_mask",
        ("annotation", "ytvis/v1/00010#10", 0): "bad_box",
        ("annotation", "ytvis/v1/00015#10", 0): "bad_box",
    }
    assert "ytvis/v1/00000#10" in object_ids(dataset)


def test_a_bad_frame_costs_itself_and_what_lies_on_it(tmp_path):
    path = write_ytvis(tmp_path / "vis", videos=1, frames=6)
    (path.parent / "JPEGImages/v1/00005.jpg").write_text("<html>404</html>")
    (path.parent / "JPEGImages/v1/00010.jpg").unlink()

    def edit(document):
        names = document["videos"][0]["file_names"]
        names[3], names[5] = "../../../etc/passwd", names[4]

    change(path, edit)
    dataset = ingest(ytvis(path), tmp_path / "out")
    images = {item: reason for (kind, item, _), reason in ledger(dataset).items() if kind == "image"}
    assert sorted(images.values()) == ["duplicate", "missing_file", "not_an_image", "unsafe_path"]
    assert image_ids(dataset) == ["ytvis/v1/00000", "ytvis/v1/00020"]
    assert dataset.counts("ingest")["track"].kept == 2
    assert verify(dataset).sound


def test_a_video_without_frames_or_of_an_id_that_came_before_is_on_record(tmp_path):
    path = write_ytvis(tmp_path / "vis", videos=1)

    def edit(document):
        document["videos"] += [document["videos"][0], {"id": 5}, "text"]
        document["annotations"].append({**document["annotations"][0], "id": 99, "video_id": 5})

    change(path, edit)
    dataset = ingest(ytvis(path), tmp_path / "out")
    videos = [reason for (kind, *_), reason in ledger(dataset).items() if kind == "video"]
    assert sorted(videos) == ["bad_record", "bad_record", "duplicate"]
    assert ledger(dataset)["track", "ytvis/5#99", 0] == "no_image"
    assert dataset.counts("ingest")["image"].kept == 4
    assert verify(dataset).sound


def test_other_formats_are_refused_by_name(tmp_path):
    path = write_ytvis(tmp_path / "vis")
    for edit, message in (
        (lambda document: document.update(images=[]), "CocoVID"),
        (lambda document: document.pop("annotations"), "no list `annotations`"),
        (lambda document: document.update(videos=[]), "no videos"),
        (lambda document: document.update(categories=[]), "no categories"),
    ):
        before = path.read_text()
        change(path, edit)
        with pytest.raises(Refused, match=message):
            ytvis(path).plans()
        path.write_text(before)


@pytest.mark.parametrize("name", ["instances.json", "instances_compressed_rle.json"])
def test_real_videos(shared, tmp_path, name):
    source = YouTubeVis(frames=str(shared / "ytvis"), annotations=str(shared / "ytvis" / name), frame_rate=0)
    dataset = ingest(source, tmp_path / "out")
    counts = dataset.counts("ingest")
    assert (counts["image"].kept, counts["track"].kept, counts["annotation"].kept) == (115, 11, 353)
    assert not ledger(dataset)
    assert verify(dataset, decode_per_unit=-1).sound
