"""Exports in formats of tools: COCO's and WebDataset's tools read them, and our importers; the folder they go to."""

import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest
from drawing import gradient
from exporting import make_mixed, rows, run
from helpers import ingest, write_coco
from PIL import Image
from pycocotools.coco import COCO

from refloom.ingest.sources.coco import Coco
from refloom.ingest.sources.easyref import EasyRef
from refloom.ingest.sources.folder import PlainPictures
from refloom.schemas import masks, pictures
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused
from refloom.sharing.export.folder import Names, safe


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Dataset:
    return make_mixed(tmp_path_factory.mktemp("mixed"))


# -- COCO ----------------------------------------------------------------------------------------------------------


def test_coco_comes_back_as_the_same_rows(tmp_path):
    images, instances, captions = write_coco(tmp_path / "coco", 5)
    first = ingest(Coco(images=str(images), instances=str(instances), captions=str(captions)), tmp_path / "data")
    assert run(first, tmp_path / "out", "coco") == 0
    out = tmp_path / "out"
    again = ingest(
        Coco(images=str(out / "images"), instances=str(out / "instances.json"), captions=str(out / "captions.json")),
        tmp_path / "again",
    )
    columns = ["image_id", "sha256", "width", "height", "captions", "license", "image"]
    assert rows(again, "images", columns) == rows(first, "images", columns)
    columns = ["object_id", "image_id", "kind", "category", "box", "area", "mask", "source_json"]
    assert rows(again, "objects", columns) == rows(first, "objects", columns)
    assert again.ledger("ingest").num_rows == 0


def test_pycocotools_loads_what_is_written_and_every_mask_decodes(mixed, tmp_path, capsys):
    assert run(mixed, tmp_path / "out", "coco") == 0
    found = COCO(str(tmp_path / "out/instances.json"))
    stored = rows(mixed, "objects", ["object_id", "category", "kind", "mask", "box"])
    stored = {key: row for key, row in stored.items() if row["kind"] == "object"}
    assert len(found.anns) == len(stored) == 12
    for annotation in found.anns.values():
        own = stored[f"coco/{annotation['image_id']:012d}#{annotation['id']}"]
        assert found.cats[annotation["category_id"]]["name"] == own["category"]
        assert (found.annToMask(annotation) == masks.decode(own["mask"])).all()
        assert annotation["iscrowd"] == 0
    names = [image["file_name"] for image in found.imgs.values()]
    assert len(names) == len(set(names)) == len(mixed.read("images", ["image_id"])) == 11
    for image in found.imgs.values():
        pixels = pictures.decode((tmp_path / "out/images" / image["file_name"]).read_bytes())
        assert pixels.shape[:2] == (image["height"], image["width"])
    assert len(COCO(str(tmp_path / "out/captions.json")).anns) == 6


def test_ids_of_other_sources_are_counted_behind_cocos(mixed, tmp_path):
    run(mixed, tmp_path / "out", "coco")
    images = json.loads((tmp_path / "out/instances.json").read_text())["images"]
    assert [image["id"] for image in images] == list(range(1, 12))
    assert [image.get("refloom_id") for image in images[:7]] == [None] * 6 + ["subjects/red thing/0.jpg"]


def test_objects_without_a_mask_go_to_a_file_of_their_own(tmp_path):
    images, instances, _ = write_coco(tmp_path / "coco", 2)
    record = [{"target": "a.jpg", "text": "x", "face": [[4, 4, 20, 20, 0.5]]}]
    (tmp_path / "a.jpg").write_bytes(pictures.encode_jpeg(gradient(64, 48, 3)))
    (tmp_path / "r.json").write_text(json.dumps(record))
    ingest(Coco(images=str(images), instances=str(instances)), tmp_path / "data")
    dataset = ingest(EasyRef(records=str(tmp_path / "r.json"), images=str(tmp_path)), tmp_path / "data")
    run(dataset, tmp_path / "out", "coco")
    boxes = json.loads((tmp_path / "out/boxes.json").read_text())
    (face,) = boxes["annotations"]
    assert face["bbox"] == [4, 4, 16, 16]
    assert {entry["id"]: entry["name"] for entry in boxes["categories"]}[face["category_id"]] == "face"
    assert all(
        "segmentation" in one for one in json.loads((tmp_path / "out/instances.json").read_text())["annotations"]
    )


def test_two_sources_of_one_category_id_are_kept_apart(tmp_path):
    for number, name in enumerate(("cat", "horse")):
        images, instances, _ = write_coco(tmp_path / f"c{number}", 1 + number, objects=1)
        value = json.loads(instances.read_text())
        value["categories"] = [{"id": 1, "name": name}]
        value["images"], value["annotations"] = value["images"][-1:], value["annotations"][-1:]
        instances.write_text(json.dumps(value))
        source = Coco(images=str(images), instances=str(instances), name=f"n{number}")
        dataset = ingest(source, tmp_path / "data")
    run(dataset, tmp_path / "out", "coco")
    value = json.loads((tmp_path / "out/instances.json").read_text())
    names = {entry["id"]: entry["name"] for entry in value["categories"]}
    assert sorted(names.values()) == ["cat", "horse"]
    assert [names[one["category_id"]] for one in value["annotations"]] == ["cat", "horse"]


def test_coco_of_a_split_of_the_kept_and_of_the_first_few(mixed, tmp_path):
    run(mixed, tmp_path / "few", "coco", limit=2)
    few = json.loads((tmp_path / "few/instances.json").read_text())
    assert [image["id"] for image in few["images"]] == [1, 2]
    splits = rows(mixed, "splits", ["image_id", "split"])
    run(mixed, tmp_path / "train", "coco", split="train", kept=True)
    train = json.loads((tmp_path / "train/instances.json").read_text())
    assert len(train["images"]) == sum(row["split"] == "train" for row in splits.values())
    kept = {key for key, row in rows(mixed, "selection", ["object_id", "verdict"]).items() if row["verdict"] == "keep"}
    assert {f"coco/{one['image_id']:012d}#{one['id']}" for one in train["annotations"]} <= kept


def test_a_linked_picture_that_is_gone_is_a_failure_that_the_next_run_tries_again(tmp_path):
    images, instances, _ = write_coco(tmp_path / "coco", 3)
    dataset = ingest(Coco(images=str(images), instances=str(instances)), tmp_path / "data", link=True)
    gone = images / "000000000002.jpg"
    data = gone.read_bytes()
    gone.unlink()
    assert run(dataset, tmp_path / "out", "coco") == 1
    assert len(json.loads((tmp_path / "out/instances.json").read_text())["images"]) == 2
    gone.write_bytes(data)
    assert run(dataset, tmp_path / "out", "coco") == 0
    assert len(json.loads((tmp_path / "out/instances.json").read_text())["images"]) == 3


# -- WebDataset ----------------------------------------------------------------------------------------------------


def read_tar(path: Path) -> dict[str, dict[str, bytes]]:
    """Samples of a tar as webdataset groups them: by the name up to its first dot, read front to back."""
    found: dict[str, dict[str, bytes]] = {}
    last = None
    with path.open("rb") as file, tarfile.open(fileobj=file, mode="r|") as tar:
        for member in tar:
            assert member.isfile()
            assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
            key, _, extension = member.name.partition(".")
            assert key == last or key not in found  # members of a sample lie side by side
            last = key
            extracted = tar.extractfile(member)
            assert extracted is not None
            found.setdefault(key, {})[extension] = extracted.read()
    return found


def test_tars_hold_every_sample_as_it_is(mixed, tmp_path):
    assert run(mixed, tmp_path / "out", "webdataset", per_shard=3) == 0
    tars = sorted(path.name for path in (tmp_path / "out").glob("*.tar"))
    assert all(re.fullmatch(r"(train|validation)-\d{6}\.tar", name) for name in tars)
    stored = {row["sample_id"]: row for row in mixed.read("samples").to_pylist()}
    seen = []
    for name in tars:
        samples = read_tar(tmp_path / "out" / name)
        assert len(samples) <= 3
        for files in samples.values():
            record = json.loads(files.pop("json"))
            own = stored[record["sample_id"]]
            seen.append(record["sample_id"])
            names = sorted(files)
            assert names == (["jpg"] if len(names) == 1 else [f"{index}.jpg" for index in range(len(names))])
            assert [files[one] for one in names] == [image["bytes"] for image in own["images"]]
            for subject, kept in zip(record["subjects"], own["subjects"], strict=True):
                for one, other in zip(subject["appearances"], kept["appearances"], strict=True):
                    assert one["mask"] == other["mask"]
                    assert one["box"] == other["box"]
            assert "license" in record["pictures"][0]
            assert "source_url" in record["pictures"][0]
    assert sorted(seen) == sorted(stored)


def test_tars_are_the_same_bytes_every_time(mixed, tmp_path):
    for name in ("one", "two"):
        run(mixed, tmp_path / name, "webdataset", per_shard=4)
    for path in (tmp_path / "one").glob("*.tar"):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_webdataset_itself_reads_them(mixed, tmp_path):
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    run(mixed, tmp_path / "out", "webdataset")
    found = list(webdataset.WebDataset(str(tmp_path / "out/train-000000.tar"), shardshuffle=False))
    assert {"__key__", "json"} <= set(found[0])


def test_only_one_sample_is_in_memory(tmp_path, monkeypatch):
    """The rows of a row group are taken out one by one, and each is let go before the next."""
    import gc
    import weakref

    from refloom.sharing.export import reading as streams
    from refloom.sharing.export import webdataset

    for number in range(12):
        (tmp_path / "p").mkdir(exist_ok=True)
        (tmp_path / "p" / f"{number}.jpg").write_bytes(pictures.encode_jpeg(gradient(64, 64, number)))
    dataset = ingest(PlainPictures(path=str(tmp_path / "p")), tmp_path / "data")

    class Row(dict):
        pass

    alive: list[weakref.ref] = []
    most = 0

    def one_by_one(*_: Any) -> Any:
        nonlocal most
        for number in range(30):
            row = Row(split="train", sample_id=str(number), images=[{"bytes": pictures.encode_jpeg(gradient(8, 8))}])
            row["pictures"] = [{"image_id": "x"}]
            alive.append(weakref.ref(row))
            gc.collect()
            most = max(most, sum(ref() is not None for ref in alive))
            yield row

    monkeypatch.setattr(webdataset, "samples", one_by_one)
    monkeypatch.setattr(streams, "sample_files", lambda *_: [])
    run(dataset, tmp_path / "out", "webdataset", per_shard=7)
    assert len(list((tmp_path / "out").glob("*.tar"))) == 5
    assert most <= 3


# -- the folder ----------------------------------------------------------------------------------------------------


def test_a_finished_export_is_not_written_again_and_a_stopped_one_is(mixed, tmp_path, capsys):
    out = tmp_path / "out"
    run(mixed, out, "easyref")
    marker = out / "export.json"
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert run(mixed, out, "easyref") == 0
    assert "already" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    marker.rename(out / "export.begun.json")
    (out / "records.json").write_text("half")
    assert run(mixed, out, "easyref") == 0
    assert marker.is_file()
    assert not (out / "export.begun.json").exists()
    assert json.loads((out / "records.json").read_text())


def test_another_export_and_foreign_folders_are_refused_and_left_alone(mixed, tmp_path):
    run(mixed, tmp_path / "out", "webdataset", limit=1)
    with pytest.raises(Refused, match="limit"):
        run(mixed, tmp_path / "out", "webdataset")
    with pytest.raises(Refused, match="format"):
        run(mixed, tmp_path / "out", "easyref", limit=1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("precious")
    with pytest.raises(Refused, match="not empty"):
        run(mixed, tmp_path / "mine", "coco")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    with pytest.raises(Refused, match="itself"):
        run(mixed, Path(mixed.url), "coco")


def test_what_is_not_there_yet_is_said(tmp_path):
    images, instances, _ = write_coco(tmp_path / "coco", 1)
    dataset = ingest(Coco(images=str(images), instances=str(instances)), tmp_path / "data")
    with pytest.raises(Refused, match="no samples yet"):
        run(dataset, tmp_path / "a", "easyref")
    with pytest.raises(Refused, match="no splits yet"):
        run(dataset, tmp_path / "b", "coco", split="train")
    with pytest.raises(Refused, match="not selected"):
        run(dataset, tmp_path / "c", "coco", kept=True)
    with pytest.raises(Refused, match="limit"):
        run(dataset, tmp_path / "d", "coco", limit=0)


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        ("a/b.jpg", "a/b.jpg"),
        ("../../etc/passwd", "__/__/etc/passwd"),
        ("/etc/passwd", "etc/passwd"),
        ("a/./b//c.jpg", "a/b/c.jpg"),
        ("con.jpg", "con.jpg_"),
        ("a:b\\c?.jpg", "a_b_c_.jpg"),
        ("", "_"),
        ("dot.", "dot_"),
    ],
)
def test_names_are_safe_everywhere(wanted, given):
    found = safe(wanted)
    assert ".." not in found.split("/")
    assert not found.startswith("/")
    assert found == given.replace("__/__", "_/_")


def test_names_are_unique_whatever_the_case_and_none_is_both_file_and_folder():
    names = Names()
    taken = [names.take(name) for name in ("a.jpg", "A.jpg", "a.jpg", "x", "x/y.jpg", "p/q.jpg", "p")]
    assert taken == ["a.jpg", "A-2.jpg", "a-3.jpg", "x", "x-2/y.jpg", "p/q.jpg", "p-2"]
    assert len(names.take("é" * 400 + ".jpg").encode()) <= 160


def test_a_picture_of_another_name_than_its_format_keeps_its_bytes(tmp_path):
    image = io.BytesIO()
    Image.fromarray(gradient(40, 40)).save(image, "WEBP")
    (tmp_path / "p").mkdir()
    (tmp_path / "p/a.jpg").write_bytes(image.getvalue())
    dataset = ingest(PlainPictures(path=str(tmp_path / "p")), tmp_path / "data")
    run(dataset, tmp_path / "out", "coco")
    (file,) = (path for path in (tmp_path / "out/images").rglob("*") if path.is_file())
    assert file.suffix == ".webp"
    assert file.read_bytes() == image.getvalue()
