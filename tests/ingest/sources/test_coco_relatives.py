"""Formats next door to COCO and YouTube-VIS: LVIS, SA-Co, LIVECell are taken, panoptic json is refused by name."""

import json

import pytest
from helpers import image_ids, ingest, ledger, object_ids, write_coco, write_ytvis

from refloom.ingest.sources.coco import Coco
from refloom.ingest.sources.ytvis import YouTubeVis
from refloom.schemas.errors import Refused
from refloom.schemas.verify import verify


@pytest.fixture
def tree(tmp_path):
    return write_coco(tmp_path / "coco", 3)


def change(path, edit) -> None:
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def taken(tree, out, **options):
    source = Coco(images=str(options.pop("images", tree[0])), instances=str(tree[1]))
    dataset = ingest(source, out, **options)
    assert verify(dataset, decode_per_unit=-1).sound
    return dataset


# -- LVIS ------------------------------------------------------------------------------------------------------------


def as_lvis(document) -> None:
    for image in document["images"]:
        name = image.pop("file_name")
        image["coco_url"] = f"http://images.cocodataset.org/val2017/{name}"


@pytest.mark.parametrize("below", [False, True])
def test_lvis_names_its_files_by_the_end_of_their_url(tree, tmp_path, below):
    change(tree[1], as_lvis)
    dataset = taken(tree, tmp_path / "out", images=tree[0].parent if below else tree[0])
    assert len(image_ids(dataset)) == 3
    assert len(object_ids(dataset)) == 6
    assert not ledger(dataset)


def test_lvis_val_has_pictures_of_two_folders(tree, tmp_path):
    change(tree[1], as_lvis)
    change(tree[1], lambda lvis: lvis["images"][2].update(coco_url="http://x/train2017/000000000003.jpg?v=1"))
    (tree[0].parent / "train2017").mkdir()
    (tree[0] / "000000000003.jpg").rename(tree[0].parent / "train2017/000000000003.jpg")
    dataset = taken(tree, tmp_path / "out", images=tree[0].parent, link=True)
    files = [row["file"] for row in dataset.read("images")["link"].to_pylist()]
    assert files == ["val2017/000000000001.jpg", "val2017/000000000002.jpg", "train2017/000000000003.jpg"]


@pytest.mark.parametrize("url", [None, "", 5, "http://x/../../etc/passwd", "http://x/val2017/", "http://[bad/a.jpg"])
def test_a_url_that_names_no_file_costs_itself(tree, tmp_path, url):
    change(tree[1], as_lvis)
    change(tree[1], lambda lvis: lvis["images"][1].update(coco_url=url))
    dataset = taken(tree, tmp_path / "out")
    assert len(image_ids(dataset)) == 2
    assert ("image", "coco/000000000002", 0) in ledger(dataset)


# -- several records of one file -------------------------------------------------------------------------------------


def as_saco(document, *, shares: bool = False) -> None:
    """A record for each object, with its category as phrase, and a phrase that nothing on the picture fits."""
    names = {category["id"]: category["name"] for category in document["categories"]}
    images = {image["id"]: image for image in document["images"]}
    records = []
    for number, annotation in enumerate(document["annotations"]):
        image = images[annotation["image_id"]]
        records.append({**image, "id": 9000 + number, "text_input": f"a {names[annotation['category_id']]}"})
        annotation.update(image_id=9000 + number, category_id=1)
        if shares:
            width, height = image["width"], image["height"]
            x, y, w, h = annotation["bbox"]
            annotation["bbox"] = [x / width, y / height, w / width, h / height]
            annotation["area"] /= width * height
    records.append({**document["images"][0], "id": 9999, "text_input": "a unicorn"})
    document.update(images=records, categories=[{"id": 1, "name": "object"}])


@pytest.mark.parametrize("shares", [False, True])
def test_saco_has_a_record_for_each_phrase_of_a_picture(tree, tmp_path, shares):
    change(tree[1], lambda document: as_saco(document, shares=shares))
    dataset = taken(tree, tmp_path / "out")
    assert image_ids(dataset) == ["coco/000000009000", "coco/000000009002", "coco/000000009004"]
    rows = dataset.read("objects", ["object_id", "phrase"]).to_pylist()
    assert {row["object_id"]: row["phrase"] for row in rows} == {
        "coco/000000009000#10": "a cat",
        "coco/000000009000#11": "a dog",
        "coco/000000009002#20": "a cat",
        "coco/000000009002#21": "a dog",
        "coco/000000009004#30": "a cat",
        "coco/000000009004#31": "a dog",
    }
    assert ledger(dataset) == {
        ("image", f"coco/00000000{number}", 1): "duplicate" for number in (9001, 9003, 9005, 9999)
    }


def test_the_phrase_of_a_video_is_that_of_its_track(tmp_path):
    path = write_ytvis(tmp_path / "vis", videos=1)
    change(path, lambda document: document["annotations"][0].update(noun_phrase="the grey cat"))
    dataset = ingest(YouTubeVis(frames=str(tmp_path / "vis"), annotations=str(path)), tmp_path / "out")
    rows = dataset.read("objects", ["track_id", "phrase"]).to_pylist()
    assert {row["phrase"] for row in rows if row["track_id"].endswith("#10")} == {"the grey cat"}
    assert {row["phrase"] for row in rows if row["track_id"].endswith("#11")} == {None}


def test_two_records_of_one_file_join_over_the_border_of_a_unit(tree, tmp_path):
    def twice(document):
        document["images"].append({**document["images"][0], "id": 77})
        document["annotations"].append({**document["annotations"][0], "id": 770, "image_id": 77})

    change(tree[1], twice)
    source = Coco(images=str(tree[0]), instances=str(tree[1]), unit_size=1)
    dataset = ingest(source, tmp_path / "out")
    assert "coco/000000000001#770" in object_ids(dataset)
    assert ledger(dataset) == {("image", "coco/000000000077", 1): "duplicate"}
    assert verify(dataset).sound


def test_each_record_of_a_file_answers_for_its_own_size(tree, tmp_path):
    def twice(document):
        document["images"][0].update(width=10, height=20)  # wrong, the second record is right
        document["images"].append({**document["images"][0], "id": 77, "width": 64, "height": 48})
        document["images"].append({**document["images"][1], "id": 78, "width": 31, "height": 48})
        for number, image in ((770, 77), (780, 78)):
            document["annotations"].append({**document["annotations"][0], "id": number, "image_id": image})

    change(tree[1], twice)
    dataset = taken(tree, tmp_path / "out")
    reasons = {item: reason for (kind, item, _), reason in ledger(dataset).items() if kind == "annotation"}
    assert reasons == dict.fromkeys(
        ["coco/000000000001#10", "coco/000000000001#11", "coco/000000000002#780"], "size_mismatch"
    )
    assert "coco/000000000001#770" in object_ids(dataset)


@pytest.mark.parametrize("size", [[1], {"a": 1}, True, "wide", float("nan")])
def test_a_size_that_is_none_costs_what_lies_on_its_record(tree, tmp_path, size):
    def twice(document):
        document["images"].append({**document["images"][0], "id": 77, "width": size})
        document["annotations"].append({**document["annotations"][0], "id": 770, "image_id": 77})

    change(tree[1], twice)
    dataset = taken(tree, tmp_path / "out")
    assert len(object_ids(dataset)) == 6
    assert ("image", "coco/000000000077", 1) in ledger(dataset)


# -- panoptic --------------------------------------------------------------------------------------------------------


def as_panoptic(document) -> None:
    images = {image["id"]: image for image in document["images"]}
    document["annotations"] = [
        {"image_id": item["image_id"], "file_name": images[item["image_id"]]["file_name"], "segments_info": [item]}
        for item in document["annotations"]
    ]


def test_panoptic_json_is_refused_with_the_way_out(tree, tmp_path):
    change(tree[1], as_panoptic)
    with pytest.raises(Refused, match=r"is panoptic json.*Give the instances json.*panoptic2detection"):
        ingest(Coco(images=str(tree[0]), instances=str(tree[1])), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_panoptic_json_given_as_captions_or_of_videos_is_refused_too(tree, tmp_path):
    tree[2].write_text(json.dumps({"images": [], "annotations": [{"image_id": 1, "segments_info": []}]}))
    with pytest.raises(Refused, match="Give the captions json"):
        ingest(Coco(images=str(tree[0]), instances=str(tree[1]), captions=str(tree[2])), tmp_path / "out")
    path = write_ytvis(tmp_path / "vis", videos=1)
    vipseg = {"video_id": 1, "annotations": [{"file_name": "a.png", "segments_info": [{"id": 1}]}]}
    change(path, lambda document: document.update(annotations=[vipseg]))
    with pytest.raises(Refused, match=r"panoptic json.*Give the YouTube-VIS json"):
        ingest(YouTubeVis(frames=str(tmp_path / "vis"), annotations=str(path)), tmp_path / "out")
