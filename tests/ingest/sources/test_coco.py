"""COCO: ids, captions, splits, licenses, layouts, and every defect that an annotation file can have."""

import gzip
import json
from pathlib import Path

import pytest
from helpers import image_ids, ingest, ledger, object_ids, write_coco

from refloom.ingest import job
from refloom.ingest.sources.coco import Coco
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused
from refloom.schemas.verify import verify


@pytest.fixture
def tree(tmp_path) -> tuple[Path, Path, Path]:
    return write_coco(tmp_path / "coco", 5)


def coco(tree: tuple[Path, Path, Path], **more: object) -> Coco:
    images, instances, captions = tree
    return Coco(images=str(images), instances=str(instances), captions=str(captions), **more)


def change(path: Path, edit) -> None:
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def test_rows_hold_what_the_file_says(tree, tmp_path):
    dataset = ingest(coco(tree), tmp_path / "out")
    (row,) = [row for row in dataset.read("images").to_pylist() if row["image_id"] == "coco/000000000003"]
    assert row["image"]["bytes"] == (tree[0] / "000000000003.jpg").read_bytes()
    assert row["captions"] == ["A cat and a dog, number 3"]
    assert (row["split"], row["license"], row["source"], row["faces_blurred"]) == ("val", "CC BY 4.0", "coco", False)
    objects = {row["object_id"]: row for row in dataset.read("objects").to_pylist()}
    assert objects["coco/000000000003#31"]["category"] == "dog"
    assert json.loads(objects["coco/000000000003#31"]["source_json"])["category_id"] == 2
    assert verify(dataset).sound


def test_units_are_runs_of_images_and_do_not_change_the_rows(tree, tmp_path):
    one = ingest(coco(tree), tmp_path / "one")
    many = ingest(coco(tree, unit_size=2), tmp_path / "many")
    assert len(many.units()) == 3
    assert image_ids(one) == image_ids(many)
    assert one.read("objects").equals(many.read("objects"))


@pytest.mark.parametrize("prefix", ["", "val2017/", "images/", "images/val2017/"])
def test_usual_layouts_are_found(tree, tmp_path, prefix):
    images, instances, _ = tree
    root = tmp_path / "layout"
    (root / prefix).parent.mkdir(parents=True, exist_ok=True)
    images.rename(root / prefix) if prefix else images.rename(root)
    dataset = ingest(Coco(images=str(root), instances=str(instances)), tmp_path / "out")
    assert len(image_ids(dataset)) == 5


def test_a_folder_without_the_pictures_is_refused(tree, tmp_path):
    with pytest.raises(Refused, match="check --images"):
        ingest(Coco(images=str(tmp_path / "nowhere"), instances=str(tree[1])), tmp_path / "out")


def test_gzip_is_read_and_captions_given_as_instances_are_refused(tree, tmp_path):
    images, instances, captions = tree
    packed = instances.with_suffix(".json.gz")
    packed.write_bytes(gzip.compress(instances.read_bytes()))
    assert len(image_ids(ingest(Coco(images=str(images), instances=str(packed)), tmp_path / "out"))) == 5
    with pytest.raises(Refused, match="--captions"):
        Coco(images=str(images), instances=str(captions)).plans()


def test_limit_takes_the_first_images_and_counts_no_others(tree, tmp_path):
    dataset = ingest(coco(tree, limit=2), tmp_path / "out")
    assert image_ids(dataset) == ["coco/000000000001", "coco/000000000002"]
    counts = dataset.counts("ingest")
    assert (counts["annotation"].input, counts["caption"].input) == (4, 2)


def test_what_belongs_to_no_image_is_on_record(tree, tmp_path):
    change(tree[1], lambda document: document["annotations"].extend([{"id": 900, "image_id": 77}, "not an object"]))
    change(tree[2], lambda document: document["annotations"].append({"id": 901, "image_id": 77, "caption": "x"}))
    dataset = ingest(coco(tree, unit_size=2), tmp_path / "out")
    found = ledger(dataset)
    assert found["annotation", "coco#900", 0] == "no_image"
    assert found["annotation", "coco#no-id", 0] == "bad_record"
    assert found["caption", "coco#901", 0] == "no_image"
    assert dataset.counts("ingest")["annotation"].input == 12
    assert verify(dataset).sound


def test_the_second_of_one_id_or_file_is_a_duplicate(tree, tmp_path):
    def edit(document):
        document["images"].append(document["images"][0])
        document["images"].append({"id": 50, "file_name": document["images"][1]["file_name"]})
        document["annotations"].append({**document["annotations"][0], "image_id": 50, "id": 500})
        document["annotations"].append(document["annotations"][2])

    change(tree[1], edit)
    dataset = ingest(coco(tree), tmp_path / "out")
    assert ledger(dataset) == {
        ("image", "coco/000000000001", 1): "duplicate",
        ("image", "coco/000000000050", 1): "duplicate",
        ("annotation", "coco/000000000050#500", 0): "image_rejected",
        ("annotation", "coco/000000000002#20", 1): "duplicate",
    }
    assert verify(dataset).sound


def test_a_missing_file_fails_and_is_retried(tree, tmp_path):
    lost = tree[0] / "000000000002.jpg"
    data = lost.read_bytes()
    lost.unlink()
    dataset = ingest(coco(tree, unit_size=2), tmp_path / "out")
    assert ledger(dataset)["image", "coco/000000000002", 0] == "missing_file"
    assert ledger(dataset)["annotation", "coco/000000000002#20", 0] == "image_failed"
    assert dataset.counts("ingest")["image"].failed == {"missing_file": 1}
    lost.write_bytes(data)
    assert not job.look_ahead(coco(tree, unit_size=2), dataset, job.Options()).todo
    dataset = ingest(coco(tree, unit_size=2), tmp_path / "out", retry_failed=True)
    assert not ledger(dataset)
    assert len(image_ids(dataset)) == 5


def test_other_settings_are_refused_by_name_and_replaced_on_demand(tree, tmp_path):
    ingest(coco(tree, unit_size=2), tmp_path / "out")
    with pytest.raises(Refused, match="unit_size: 2 -> 3"):
        ingest(coco(tree, unit_size=3), tmp_path / "out")
    with pytest.raises(Refused, match="link: False -> True"):
        ingest(coco(tree, unit_size=2), tmp_path / "out", link=True)
    change(tree[1], lambda document: document["annotations"].pop())
    with pytest.raises(Refused, match=r"input\.instances"):
        ingest(coco(tree, unit_size=2), tmp_path / "out")
    dataset = ingest(coco(tree, unit_size=3), tmp_path / "out", replace=True)
    assert len(dataset.units()) == 2
    assert len(object_ids(dataset)) == 9
    assert verify(dataset).sound


def test_ids_held_under_another_key_are_refused(tree, tmp_path):
    ingest(coco(tree), tmp_path / "out")
    with pytest.raises(Refused, match=r"coco/000000000001.*already held under the key coco.instances_val2017.*--name"):
        ingest(coco(tree, name="again"), tmp_path / "out")


def test_a_finished_ingest_does_nothing(tree, tmp_path):
    dataset = ingest(coco(tree), tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.parquet")}
    outlook = job.ingest(coco(tree), dataset.url, job.Options(), job.engine.Pool(workers=0))
    assert not outlook.todo
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.parquet")}


def test_links_point_at_the_very_bytes(tree, tmp_path):
    dataset = ingest(coco(tree), tmp_path / "out", link=True)
    rows = dataset.read("images").to_pylist()
    assert all(row["image"] is None for row in rows)
    assert dataset.picture(rows[0]) == (tree[0] / "000000000001.jpg").read_bytes()
    assert verify(dataset).sound
    (tree[0] / "000000000001.jpg").write_bytes(b"other")
    assert any("000000000001" in problem for problem in verify(dataset).problems)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("[]", "detection results"),
        ("{}", "no list `images`"),
        ('{"images": [], "annotations": []}', "no images"),
        ('{"images": [{"id": 1}], "annotations": [{"id": 1}]}', "no categories"),
        ('{"images": [1,]}', "not json"),
        ("[" * 100_000, "nested too deeply"),
        ("\x1f\x8bbroken", "not json"),
    ],
    ids=lambda value: value[:20],
)
def test_a_file_that_is_no_coco_json_is_refused_by_name(tree, tmp_path, text, message):
    tree[1].write_bytes(text.encode("latin-1"))
    with pytest.raises(Refused, match=message) as caught:
        coco(tree).plans()
    assert str(tree[1]) in str(caught.value)


def test_a_json_that_grows_beyond_reason_is_refused(tree):
    tree[1].write_bytes(gzip.compress(b" " * 50_000_000))
    with pytest.raises(Refused, match="beyond reason"):
        coco(tree).plans()


def test_real_photographs(shared, tmp_path):
    for split in ("train2017", "val2017"):
        source = Coco(
            images=str(shared / "coco"),
            instances=str(shared / f"coco/annotations/instances_{split}.json"),
            captions=str(shared / f"coco/annotations/captions_{split}.json"),
        )
        dataset = ingest(source, tmp_path / "out")
    counts = Dataset(dataset.url).counts("ingest")
    assert (counts["image"].kept, counts["caption"].kept) == (46, 210)
    assert counts["annotation"].input == 453
    assert dict(counts["annotation"].rejected) == {"crowd": 6}
    assert verify(dataset, decode_per_unit=-1).sound
