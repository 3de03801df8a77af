"""COCO and YouTube-VIS as tools write them: ids of every kind, boxes without masks, masks without boxes, odd sizes."""

import json
from pathlib import Path

import pytest
from bugreports import case
from helpers import image_ids, ingest, ledger, object_ids, write_coco, write_ytvis

from refloom.ingest.sources.coco import Coco
from refloom.ingest.sources.ytvis import YouTubeVis
from refloom.schemas.verify import verify


@pytest.fixture
def tree(tmp_path) -> tuple[Path, Path]:
    images, instances, _ = write_coco(tmp_path / "coco", 3)
    return images, instances


def take(tree, out, edit=None, **more):
    images, instances = tree
    document = json.loads(instances.read_text())
    if edit is not None:
        edit(document)
    instances.write_text(json.dumps(document))
    dataset = ingest(Coco(images=str(images), instances=str(instances), **more), out)
    findings = verify(dataset)
    assert findings.sound, findings.problems
    return dataset


def of_each(edit):
    """An edit of the whole document from one of each annotation."""

    def change(document):
        for number, annotation in enumerate(document["annotations"]):
            edit(number, annotation)

    return change


# ids


@pytest.mark.parametrize(
    "given",
    [
        (1, "1", "01"),
        ("01", "1", 1),
        ("1", 1.0, True),
        ("00000000001", "000000000001", 1),
        (1, "1", "000000000001"),
        ("caf\u00e9", "cafe\u0301", "CAFE"),
        (-1, 0, "-1"),
        (1.5, "1.5", 15),
        ("a#1", "a%231", "a@1"),
    ],
    ids=str,
)
def test_image_ids_of_other_types_or_other_spelling_are_other_pictures(tree, tmp_path, given):
    def edit(document):
        old = [image["id"] for image in document["images"]]
        for image, identity in zip(document["images"], given, strict=True):
            image["id"] = identity
        for annotation in document["annotations"]:
            annotation["image_id"] = given[old.index(annotation["image_id"])]

    dataset = take(tree, tmp_path / "out", edit)
    rows = {row["image"]["path"]: row["image_id"] for row in dataset.read("images").to_pylist()}
    assert len(set(rows.values())) == 3
    owner = {row["object_id"]: row["image_id"] for row in dataset.read("objects").to_pylist()}
    for number in (1, 2, 3):  # every annotation lies on the picture that its reference means by type and value
        own = rows[f"{number:012d}.jpg"]
        assert {name.rpartition("#")[2] for name, image in owner.items() if image == own} == {
            f"{number}0",
            f"{number}1",
        }
    assert not ledger(dataset)


def test_ids_do_not_depend_on_the_limit(tree, tmp_path):
    def edit(document):
        document["images"][0]["id"], document["images"][2]["id"] = "1", 1

    assert image_ids(take(tree, tmp_path / "all", edit))[0] == "coco/1"
    assert image_ids(take(tree, tmp_path / "few", limit=1)) == ["coco/1"]


@pytest.mark.parametrize("kind", [str, float, int])
def test_a_reference_of_another_type_means_the_same_text_where_nothing_matches_exactly(tree, tmp_path, kind):
    def edit(document):
        for image in document["images"]:
            image["id"] = kind(image["id"])
            image["license"] = kind(1)
        for annotation in document["annotations"]:
            annotation["image_id"] = str(annotation["image_id"])
            annotation["category_id"] = str(annotation["category_id"])

    dataset = take(tree, tmp_path / "out", edit)
    assert len(object_ids(dataset)) == 6
    assert set(dataset.read("images", ["license"])["license"].to_pylist()) == {"CC BY 4.0"}
    assert not ledger(dataset)


def test_exact_types_win_for_categories_and_licenses_too(tree, tmp_path):
    def edit(document):
        document["categories"] = [{"id": "1", "name": "text"}, {"id": 1, "name": "number"}]
        document["licenses"] = [{"id": 1, "name": "number"}, {"id": "1", "name": "text"}]
        document["images"][0]["license"] = "1"
        for number, annotation in enumerate(document["annotations"]):
            annotation["category_id"] = (1, "1")[number % 2]

    dataset = take(tree, tmp_path / "out", edit)
    assert dataset.read("objects", ["category"])["category"].to_pylist() == ["number", "text"] * 3
    assert dataset.read("images", ["license"])["license"].to_pylist() == ["text", "number", "number"]


def test_the_second_picture_of_one_exact_id_stays_a_duplicate(tree, tmp_path):
    def edit(document):
        document["images"][1]["id"] = 1.0

    dataset = take(tree, tmp_path / "out", edit)
    assert ledger(dataset)["image", "coco/000000000001", 1] == "duplicate"
    assert image_ids(dataset) == ["coco/000000000001", "coco/000000000003"]


@pytest.mark.parametrize(
    ("give", "expected"),
    [
        (lambda number: {"id": 0}, {"0", "0~2"}),
        (lambda number: {"id": number % 2}, {"0", "1"}),
        (lambda number: {}, {"~1", "~2"}),
        (lambda number: {"id": None}, {"~1", "~2"}),
        (lambda number: {"id": [number]}, {"~1", "~2"}),
        (lambda number: {"id": ""}, {"~1", "~2"}),
        (lambda number: {"id": ("5", 5)[number % 2]}, {"5", "5~2"}),
        (lambda number: {"id": ("whole", "sam1")[number % 2]}, {"whole~2", "sam1~2"}),
        (lambda number: {"id": ("caf\u00e9", "cafe\u0301")[number % 2]}, {"caf\u00e9", "caf\u00e9~2"}),
        (lambda number: {"id": "~1"} if number % 2 else {}, {"~1", "~1~2"}),
    ],
    ids=["all 0", "from 0 in each picture", "none", "null", "lists", "empty", "types", "reserved", "accents", "made"],
)
def test_annotation_ids_need_be_unique_in_no_more_than_their_picture(tree, tmp_path, give, expected):
    def edit(number, annotation):
        del annotation["id"]
        annotation |= give(number)

    dataset = take(tree, tmp_path / "out", of_each(edit))
    names = {f"coco/{number:012d}#{name}" for number in (1, 2, 3) for name in expected}
    assert object_ids(dataset) == names
    assert not ledger(dataset)


def test_how_ids_were_made_is_said(tree, tmp_path, call):
    take(tree, tmp_path / "out", of_each(lambda _, annotation: annotation.pop("id")))
    arguments = ["--images", tree[0], "--instances", tree[1], "--out", tmp_path / "again", "--workers", 0]
    assert "6 annotations have no id or share it" in call("ingest", "coco", *arguments).out


@pytest.mark.parametrize("without_id", [True, False])
def test_the_same_annotation_word_for_word_stays_a_duplicate(tree, tmp_path, without_id):
    def edit(document):
        if without_id:
            for annotation in document["annotations"]:
                del annotation["id"]
        document["annotations"].append(dict(reversed(document["annotations"][0].items())))

    dataset = take(tree, tmp_path / "out", edit)
    name = "~1" if without_id else "10"
    assert ledger(dataset) == {("annotation", f"coco/000000000001#{name}", 1): "duplicate"}
    assert len(object_ids(dataset)) == 6


# boxes and masks


@pytest.mark.parametrize("absent", [[], {}, None, "gone"], ids=str)
@pytest.mark.parametrize("mixed", [False, True])
def test_boxes_without_masks_are_taken_alone_and_beside_masks(tree, tmp_path, absent, mixed):
    def edit(number, annotation):
        if mixed and number % 2:
            return
        annotation["segmentation"] = absent
        if absent == "gone":
            del annotation["segmentation"]

    dataset = take(tree, tmp_path / "out", of_each(edit))
    rows = dataset.read("objects", ["mask", "area"]).to_pylist()
    assert [row["mask"] is None for row in rows] == [True, not mixed] * 3
    assert [row["area"] is None for row in rows] == [True, not mixed] * 3
    assert not ledger(dataset)


@pytest.mark.parametrize("absent", [[], None, [0, 0, 0, 0], [0.0, 0.0, 0.0, 0.0], "gone"], ids=str)
def test_masks_without_boxes_give_their_own(tree, tmp_path, absent):
    plain = ingest(Coco(images=str(tree[0]), instances=str(tree[1])), tmp_path / "plain")

    def edit(_, annotation):
        annotation["bbox"] = absent
        if absent == "gone":
            del annotation["bbox"]

    dataset = take(tree, tmp_path / "out", of_each(edit))
    assert dataset.read("objects", ["box"]).equals(plain.read("objects", ["box"]))


@pytest.mark.parametrize(
    ("box", "mask", "reason"),
    [
        (None, None, "bad_box"),
        ([0, 0, 0, 0], [], "bad_box"),
        ([1, 2, 3], "own", "bad_box"),
        ([5, 5, 0, 4], "own", "bad_box"),
        ("own", [[]], "bad_mask"),
        ("own", [[1, 2, 3, 4]], "bad_mask"),
        ("own", [1, 2, 3, 4], "bad_mask"),
        ("own", [1, 2, 3, 4, 5, 6, 7], "bad_mask"),
        ("own", [1, 2, [3, 4], 5, 6], "bad_mask"),
        ("own", ["1", "2", "3", "4", "5", "6"], "bad_mask"),
    ],
    ids=str,
)
def test_what_is_given_and_broken_stays_a_defect(tree, tmp_path, box, mask, reason):
    def edit(document):
        annotation = document["annotations"][0]
        annotation["bbox"] = annotation["bbox"] if box == "own" else box
        annotation["segmentation"] = annotation["segmentation"] if mask == "own" else mask

    dataset = take(tree, tmp_path / "out", edit)
    assert ledger(dataset) == {("annotation", "coco/000000000001#10", 0): reason}


SQUARE = [10, 10, 30, 10, 30, 26, 10, 26]
POINTS = [[10, 10], [30, 10], [30, 26], [10, 26]]


@pytest.mark.parametrize("polygon", [[SQUARE], SQUARE, POINTS, [POINTS], [SQUARE, POINTS]], ids=str)
def test_polygons_are_taken_in_every_plain_form(tree, tmp_path, polygon):
    def edit(document):
        document["annotations"][0] |= {"segmentation": polygon, "bbox": [10, 10, 20, 16]}

    (row, *_) = take(tree, tmp_path / "out", edit).read("objects", ["object_id", "area", "box"]).to_pylist()
    assert (row["area"], row["box"]) == (320, [10, 10, 30, 26])


@pytest.mark.parametrize("area", [0, 1e9, "wide", None, float("inf"), -5, 10**400], ids=lambda value: str(value)[:10])
def test_an_area_never_takes_a_sound_mask_away(tree, tmp_path, area):
    dataset = take(tree, tmp_path / "out", of_each(lambda _, annotation: annotation.update(area=area)))
    assert len(object_ids(dataset)) == 6
    assert dataset.notes("ingest") == ({} if area in ("wide", None) else {"area_differs": 6})
    assert min(dataset.read("objects", ["area"])["area"].to_pylist()) > 20


@pytest.mark.parametrize(
    "size", [(0, 0), (64.0, 48.0), ("64", "48"), ("64.0", " 48 "), (None, None), ("0", 0.0)], ids=str
)
def test_sizes_are_taken_in_every_plain_form(tree, tmp_path, size):
    def edit(document):
        for image in document["images"]:
            image["width"], image["height"] = size
        for annotation in document["annotations"]:
            annotation["segmentation"]["size"] = [48.0, "64"]

    dataset = take(tree, tmp_path / "out", edit)
    assert len(object_ids(dataset)) == 6
    assert not ledger(dataset)


@pytest.mark.parametrize(
    "size", [(64, None), (64.5, 48), ("64px", "48"), (-64, 48), (float("nan"), 48), ("inf", 48)], ids=str
)
def test_sizes_that_mean_nothing_cost_their_picture(tree, tmp_path, size):
    def edit(document):
        document["images"][0]["width"], document["images"][0]["height"] = size

    dataset = take(tree, tmp_path / "out", edit)
    assert ledger(dataset)["image", "coco/000000000001", 0] == "bad_record"
    assert len(image_ids(dataset)) == 2


def test_brush_masks_that_are_all_crowds_are_named_and_taken_on_request(tree, tmp_path, call):
    assert not object_ids(take(tree, tmp_path / "out", of_each(lambda _, one: one.update(iscrowd=1))))
    arguments = ["coco", "--images", tree[0], "--instances", tree[1], "--workers", 0, "--out"]
    answer = call("ingest", *arguments, tmp_path / "one")
    assert "all 6 annotations are crowds" in answer.out
    assert "--crowds keep" in answer.out
    answer = call("ingest", *arguments, tmp_path / "two", "--crowds", "keep")
    assert "6 in         6 kept" in answer.out
    assert "are crowds" not in answer.out
    refused = call("ingest", *arguments, tmp_path / "one", "--crowds", "keep")
    assert (refused.code, "--replace" in refused.err) == (2, True)
    assert call("ingest", *arguments, tmp_path / "one", "--crowds", "keep", "--replace").code == 0


# videos


def change(path: Path, edit) -> None:
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def videos(path: Path, out: Path, **more):
    dataset = ingest(YouTubeVis(frames=str(path.parent), annotations=str(path), **more), out)
    findings = verify(dataset)
    assert findings.sound, findings.problems
    return dataset


def move(path: Path, names: dict[str, str]) -> None:
    """Give frames other paths, in the json and on the disk."""
    root = path.parent / "JPEGImages"
    document = json.loads(path.read_text())
    for video in document["videos"]:
        for at, old in enumerate(video["file_names"]):
            new = next((new + old[len(start) :] for start, new in names.items() if old.startswith(start)), old)
            (root / new).parent.mkdir(parents=True, exist_ok=True)
            (root / old).rename(root / new)
            video["file_names"][at] = new
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("names", "titles"),
    [
        ({"v1/": "MOT17-02/img1/", "v2/": "MOT17-04/img1/"}, {"MOT17-02", "MOT17-04"}),
        ({"v1/": "train/a/img1/", "v2/": "val/a/img1/"}, {"train/a", "val/a"}),
        ({"v1/": "a/left/", "v2/": "b/left/"}, {"a/left", "b/left"}),
        ({"v1/": "a/img1/", "v2/": "a/frames/"}, {"a", "a~2"}),
        ({"v1/": "caf\u00e9/", "v2/": "cafe\u0301/"}, {"caf\u00e9", "caf\u00e9~2"}),
        ({"v1/": "same/1", "v2/": "same/2"}, {"same", "same~2"}),
        ({"v1/": "img1/", "v2/": "img2/"}, {"img1", "img2"}),
    ],
    ids=str,
)
def test_two_videos_stay_two_videos(tmp_path, names, titles):
    path = write_ytvis(tmp_path / "vis")
    move(path, names)
    dataset = videos(path, tmp_path / "out")
    rows = dataset.read("images", ["image_id", "video_id", "frame_index"]).to_pylist()
    assert {row["video_id"] for row in rows} == {f"ytvis/{title}" for title in titles}
    assert len({row["image_id"] for row in rows}) == len({(row["video_id"], row["frame_index"]) for row in rows}) == 8
    assert len(set(dataset.read("objects", ["track_id"])["track_id"].to_pylist())) == 4
    assert not ledger(dataset)


@pytest.mark.parametrize(("one", "two"), [(True, True), (1.5, 1.5), (1, 1.0), ("a", "a")])
def test_the_second_video_of_one_exact_id_stays_a_duplicate(tmp_path, one, two):
    path = write_ytvis(tmp_path / "vis")

    def edit(document):
        for video, identity in zip(document["videos"], (one, two), strict=True):
            video["id"] = identity
        for track in document["annotations"]:
            track["video_id"] = one
        document["annotations"][2:] = []

    change(path, edit)
    dataset = videos(path, tmp_path / "out")
    assert ledger(dataset) == {("video", "ytvis/v1", 1): "duplicate"}
    assert dataset.counts("ingest")["track"].kept == 2


@pytest.mark.parametrize("other", ["v1/00000.png", "v1/0.jpg", "v1/b/00000.jpg", "v1/cafe\u0301.jpg"])
def test_frames_of_one_name_are_two_frames(tmp_path, other):
    path = write_ytvis(tmp_path / "vis", videos=1)
    if "caf" in other:
        move(path, {"v1/00000.jpg": "v1/caf\u00e9.jpg"})
    move(path, {"v1/00005.jpg": other})
    dataset = videos(path, tmp_path / "out")
    rows = dataset.read("images", ["image_id", "frame_index"]).to_pylist()
    assert len({row["image_id"] for row in rows}) == len({row["frame_index"] for row in rows}) == 4
    assert not ledger(dataset)


def test_track_ids_need_be_unique_in_no_more_than_their_video(tmp_path):
    for name, give in (
        ("from 0", lambda number: {"id": number % 2}),
        ("all 0", lambda number: {"id": 0}),
        ("none", lambda number: {}),
    ):
        path = write_ytvis(tmp_path / name)

        def edit(document, give=give):
            for number, track in enumerate(document["annotations"]):
                del track["id"]
                track |= give(number)

        change(path, edit)
        (plan,) = YouTubeVis(frames=str(path.parent), annotations=str(path)).plans()
        assert ("tracks have no id or share it" in " ".join(plan.notes)) == (name != "from 0")
        dataset = videos(path, tmp_path / name / "out")
        assert dataset.counts("ingest")["track"].kept == 4, name
        assert not ledger(dataset), name


@pytest.mark.parametrize("key", ["bboxes", "segmentations"])
@pytest.mark.parametrize("value", ["gone", None, []], ids=str)
def test_a_track_of_masks_or_of_boxes_alone_is_taken(tmp_path, key, value):
    path = write_ytvis(tmp_path / "vis", videos=1)
    plain = videos(path, tmp_path / "plain")

    def edit(document):
        for track in document["annotations"][:1]:
            track[key] = value
            if value == "gone":
                del track[key]

    change(path, edit)
    dataset = videos(path, tmp_path / "out")
    assert dataset.read("objects", ["object_id", "box"]).equals(plain.read("objects", ["object_id", "box"]))
    assert not ledger(dataset)


@pytest.mark.parametrize("mask", [None, [], {}, {"size": [48, 64], "counts": [3072]}, "packed"], ids=str)
@pytest.mark.parametrize("box", [None, [], [0, 0, 0, 0], [0.0, 0.0, 0.0, 0.0]], ids=str)
def test_an_absent_frame_is_absent_however_it_is_written(tmp_path, mask, box):
    from refloom.schemas import runs

    path = write_ytvis(tmp_path / "vis", videos=1)

    def edit(document):
        packed = {"size": [48, 64], "counts": runs.write([3072])}
        document["annotations"][0]["segmentations"][1] = packed if mask == "packed" else mask
        document["annotations"][0]["bboxes"][1] = box

    change(path, edit)
    dataset = videos(path, tmp_path / "out")
    assert dataset.counts("ingest")["annotation"].input == 6
    assert "ytvis/v1/00005#10" not in object_ids(dataset)
    assert not ledger(dataset)


def test_a_box_where_the_mask_is_null_contradicts_it_unless_the_file_has_no_masks(tmp_path):
    path = write_ytvis(tmp_path / "vis", videos=1)

    def blank(document, tracks):
        for track in document["annotations"][:tracks]:
            track["segmentations"] = [None] * 4

    change(path, lambda document: blank(document, 1))
    assert set(ledger(videos(path, tmp_path / "one")).values()) == {"bad_mask", "bad_record"}
    change(path, lambda document: blank(document, 2))
    dataset = videos(path, tmp_path / "all")
    assert dataset.counts("ingest")["annotation"].kept == 7
    assert not ledger(dataset)


def test_crowd_tracks_are_taken_on_request(tmp_path):
    path = write_ytvis(tmp_path / "vis", videos=1)
    change(path, lambda document: [track.update(iscrowd=1) for track in document["annotations"]])
    assert not object_ids(videos(path, tmp_path / "out"))
    assert len(object_ids(videos(path, tmp_path / "kept", crowds="keep"))) == 7


# what bug reports gave


@pytest.mark.shared
@pytest.mark.parametrize(
    ("number", "kept"),
    [("01", 19), ("02", 21), ("02c", 21), ("03", 21), ("03c", 21), ("04", 21), ("05", 21), ("06", 21), ("09", 21)]
    + [("15", 0), ("17", 17), ("33", 11)],
)
def test_coco_from_bug_reports(tmp_path, number, kept):
    folder = case(number)
    dataset = ingest(Coco(images=str(folder / "images"), instances=str(folder / "instances.json")), tmp_path / "out")
    assert dataset.counts("ingest")["annotation"].kept == kept
    assert verify(dataset).sound


@pytest.mark.shared
@pytest.mark.parametrize(("number", "videos", "kept"), [("19", 2, 6), ("20", 1, 4), ("21", 1, 1), ("22", 1, 4)])
def test_videos_from_bug_reports(tmp_path, number, videos, kept):
    folder = case(number)
    source = YouTubeVis(frames=str(folder / "frames"), annotations=str(folder / "instances.json"))
    dataset = ingest(source, tmp_path / "out")
    assert len(set(dataset.read("images", ["video_id"])["video_id"].to_pylist())) == videos
    assert dataset.counts("ingest")["annotation"].kept == kept
    assert not ledger(dataset)
    assert verify(dataset).sound
