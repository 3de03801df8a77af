"""Several sets of one kind in one dataset: `--name` sets their ids apart, and every refusal names what helps."""

import json
from pathlib import Path

import pytest
from bugreports import case
from drawing import encoded, gradient
from helpers import image_ids, ingest, ledger, object_ids, sa1b_members, write_coco, write_tar, write_ytvis
from PIL import Image

from refloom.ingest import job
from refloom.ingest.idsets import under
from refloom.ingest.sources.coco import Coco
from refloom.ingest.sources.easyref import EasyRef
from refloom.ingest.sources.folder import PlainPictures
from refloom.ingest.sources.sa1b import Sa1b
from refloom.ingest.sources.subjects import Subjects
from refloom.ingest.sources.vos import Vos
from refloom.ingest.sources.ytvis import YouTubeVis
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused
from refloom.schemas.verify import verify
from refloom.sharing.export.coco import _coco_id
from refloom.sharing.publish.sourceindex import open_copy


def picture(path: Path, seed: int, kind: str = "JPEG") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(Image.fromarray(gradient(32, 24, seed)), kind))


def roboflow(root: Path, split: str, seed: int, count: int = 3) -> tuple[Path, Path]:
    """One split of an export whose numbers begin at 0 in each; returns its folder and its json."""
    folder = root / split
    images, annotations = [], []
    for number in range(count):
        picture(folder / f"{number}.jpg", seed + number)
        images.append({"id": number, "file_name": f"{number}.jpg", "width": 32, "height": 24})
        box = [2, 3, 10 + number, 12]
        annotations.append({"id": number, "image_id": number, "category_id": 1, "bbox": box, "segmentation": []})
    path = folder / "_annotations.coco.json"
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
    path.write_text(json.dumps(content))
    return folder, path


def coco(folder_and_json: tuple[Path, Path], **more) -> Coco:
    folder, path = folder_and_json
    return Coco(images=str(folder), instances=str(path), **more)


def sound(out: Path) -> Dataset:
    dataset = Dataset(str(out))
    findings = verify(dataset)
    assert findings.sound, findings.problems
    return dataset


def test_splits_that_number_from_0_go_into_one_dataset(tmp_path):
    out = tmp_path / "out"
    train, valid = roboflow(tmp_path, "train", 10), roboflow(tmp_path, "valid", 20, count=5)
    ingest(coco(train), out)
    with pytest.raises(Refused, match="if this is another set, give it a --name of its own"):
        ingest(coco(valid), out)
    ingest(coco(valid, name="valid"), out)
    ingest(coco(roboflow(tmp_path, "test", 30), name="Test Set"), out)
    dataset = sound(out)
    plain = [f"coco/{number:012d}" for number in range(3)]
    apart = [f"coco/valid/{number:012d}" for number in range(5)]
    rest = set(image_ids(dataset)) - {*plain, *apart}
    assert len(rest) == 3
    assert all(name.startswith("coco/test-set-") for name in rest)
    assert {f"{one}#{number}" for number, one in enumerate(apart)} <= object_ids(dataset)
    assert not ledger(dataset)


def test_a_set_that_is_apart_stays_so(tmp_path):
    out = tmp_path / "out"
    train, valid = roboflow(tmp_path, "train", 10), roboflow(tmp_path, "valid", 20)
    ingest(coco(train), out)
    dataset = ingest(coco(valid, name="valid"), out)
    before = dataset.fingerprint("images")
    assert not job.look_ahead(coco(valid, name="valid"), Dataset(str(out)), job.Options()).todo
    (valid[0] / "1.jpg").rename(valid[0] / "gone.jpg")
    lost = ingest(coco(valid, name="valid", limit=2), out, replace=True)
    assert ledger(lost)["image", "coco/valid/000000000001", 0] == "missing_file"
    assert ledger(lost)["annotation", "coco/valid/000000000001#1", 0] == "image_failed"
    (valid[0] / "gone.jpg").rename(valid[0] / "1.jpg")
    ingest(coco(valid, name="valid", limit=2), out, retry_failed=True)
    assert ingest(coco(valid, name="valid"), out, replace=True).fingerprint("images") == before
    sound(out)


def test_a_name_alone_sets_nothing_apart(tmp_path):
    out = tmp_path / "out"
    assert image_ids(ingest(coco(roboflow(tmp_path, "a", 1), name="mine"), out))[0] == "coco/000000000000"
    with pytest.raises(Refused, match=r"already held under the key mine\._annotations\.coco: if this is another set"):
        ingest(coco(roboflow(tmp_path, "b", 9)), out)


def test_the_same_input_under_another_name_is_no_other_set(tmp_path):
    out = tmp_path / "out"
    train = roboflow(tmp_path, "train", 10)
    ingest(coco(train, unit_size=2), out)
    for source in (coco(train, name="again"), coco(train, name="again", limit=2, unit_size=1)):
        with pytest.raises(Refused, match=r"from the same input: use the --name it was ingested with"):
            ingest(source, out)
    assert len(image_ids(sound(out))) == 3


def folders(root: Path, seed: int, kind: str = "JPEG"):
    for number in range(2):
        picture(root / "pics" / "dog" / f"{number}.jpg", seed + number, kind)
    return root / "pics"


def test_folders_of_one_size_and_other_pixels_are_other_sets(tmp_path):
    one, two = folders(tmp_path / "a", 1, "BMP"), folders(tmp_path / "b", 50, "BMP")
    out = tmp_path / "out"
    ingest(PlainPictures(path=str(one)), out)
    with pytest.raises(Refused, match="from the same input"):
        ingest(PlainPictures(path=str(one), name="again"), out)
    ingest(PlainPictures(path=str(two), name="two"), out)
    assert set(image_ids(sound(out))) == {f"folder/{name}dog/{n}.jpg" for name in ("", "two/") for n in range(2)}


def sources(root: Path, seed: int, name: dict):
    """One small source of every kind that is made of files of its own."""
    pictures = folders(root, seed)
    (root / "records.json").write_text(
        json.dumps([{"target": "dog/0.jpg", "text": f"a dog {seed}", "image_file": ["dog/1.jpg"]}])
    )
    videos = write_ytvis(root / "vis", videos=1, frames=2 + seed)
    for frame in range(2):
        picture(root / "vos/JPEGImages/v" / f"{frame}.jpg", seed + frame)
        mask = Image.new("L", (32, 24))
        mask.paste(1, (4, 4, 16, 16))
        (root / "vos/Annotations/v").mkdir(parents=True, exist_ok=True)
        mask.save(root / "vos/Annotations/v" / f"{frame}.png")
    tar = write_tar(root / "sa_0.tar", [*sa1b_members([1]), *([("note.txt", b"x")] * seed)])
    return [
        PlainPictures(path=str(pictures), **name),
        Subjects(directory=str(pictures), **{key: f"{value}-subjects" for key, value in name.items()}),
        EasyRef(records=str(root / "records.json"), images=str(pictures), **name),
        YouTubeVis(frames=str(videos.parent), annotations=str(videos), **name),
        Vos(root=str(root / "vos"), **name),
        Sa1b(tars=(str(tar),), **name),
    ]


def test_every_kind_of_source_can_be_there_twice(tmp_path):
    out = tmp_path / "out"
    for source in sources(tmp_path / "a", 1, {}):
        ingest(source, out)
    once = set(image_ids(Dataset(str(out))))
    for source in sources(tmp_path / "b", 3, {"name": "second"}):
        ingest(source, out)
    dataset = sound(out)
    added = set(image_ids(dataset)) - once
    kinds = {one: one.partition("/")[0] for one in once}
    names = dict.fromkeys(kinds.values(), "second") | {"subjects": "second-subjects"}
    assert {under(one, kind, names[kind]) for one, kind in kinds.items()} <= added
    videos = set(dataset.read("images", ["video_id"])["video_id"].to_pylist()) - {None}
    assert videos == {"ytvis/v1", "ytvis/second/v1", "vos/v", "vos/second/v"}
    tracks = set(dataset.read("objects", ["track_id"])["track_id"].to_pylist())
    assert {"ytvis/v1#10", "ytvis/second/v1#10", "vos/second/v#1"} <= tracks
    groups = {row["group_id"]: row["members"] for row in dataset.read("source_groups").to_pylist()}
    assert groups["subjects/second-subjects/dog"] == [f"subjects/second-subjects/dog/{n}.jpg" for n in range(2)]
    assert set(groups["easyref/second/records#0"]) <= added
    assert {item for (kind, item, _) in ledger(dataset) if kind == "member"} == {"note.txt"}


def test_a_name_that_another_kind_has_is_refused_and_nothing_is_replaced(tmp_path):
    pictures = folders(tmp_path, 1)
    ingest(PlainPictures(path=str(pictures), name="mine"), tmp_path / "out")
    with pytest.raises(Refused, match="another kind of source has this key, so give this one another --name") as caught:
        ingest(Subjects(directory=str(pictures), name="mine"), tmp_path / "out")
    assert "--replace" not in str(caught.value)


def test_videos_of_one_title_and_other_frames_do_not_become_one(tmp_path):
    one, two = write_ytvis(tmp_path / "a", videos=1), write_ytvis(tmp_path / "b", videos=1)
    document = json.loads(two.read_text())
    for at, name in enumerate(document["videos"][0]["file_names"]):
        document["videos"][0]["file_names"][at] = new = name.replace("v1/000", "v1/100")
        (two.parent / "JPEGImages" / name).rename(two.parent / "JPEGImages" / new)
    two.write_text(json.dumps(document))
    out = tmp_path / "out"
    ingest(YouTubeVis(frames=str(one.parent), annotations=str(one)), out)
    other = tmp_path / "b/other.json"
    two.rename(other)
    with pytest.raises(Refused, match=r"ytvis/v1 .*already held.*--name"):
        ingest(YouTubeVis(frames=str(two.parent), annotations=str(other)), out)
    dataset = ingest(YouTubeVis(frames=str(two.parent), annotations=str(other), name="b"), out)
    assert set(dataset.read("images", ["video_id"])["video_id"].to_pylist()) == {"ytvis/v1", "ytvis/b/v1"}


def test_two_tars_of_one_command_say_how_both_come_in(tmp_path):
    one = write_tar(tmp_path / "sa_0.tar", sa1b_members([1]))
    two = write_tar(tmp_path / "sa_1.tar", sa1b_members([1, 2]))
    with pytest.raises(Refused, match="ingest one by itself under a --name of its own"):
        ingest(Sa1b(tars=(str(one), str(two))), tmp_path / "out")
    ingest(Sa1b(tars=(str(one),)), tmp_path / "out")
    ingest(Sa1b(tars=(str(two),), name="more"), tmp_path / "out")
    assert image_ids(sound(tmp_path / "out")) == ["sa1b/more/1", "sa1b/more/2", "sa1b/1"]


def test_members_of_a_tar_that_make_one_id_are_two_pictures(tmp_path):
    members = dict(sa1b_members([1]))
    record = json.loads(members["sa_1.json"])
    record["image"]["file_name"] = "1.jpg"
    other = [("1.jpg", sa1b_members([7])[0][1]), ("1.json", json.dumps(record).encode())]
    dataset = ingest(Sa1b(tars=(str(write_tar(tmp_path / "a.tar", [*members.items(), *other])),)), tmp_path / "out")
    assert len(set(image_ids(sound(tmp_path / "out")))) == 2
    assert not ledger(dataset)


def test_frames_of_one_name_in_a_vos_folder_are_two_frames(tmp_path):
    picture(tmp_path / "JPEGImages/v/00000.jpg", 1)
    picture(tmp_path / "JPEGImages/v/00000.png", 2, "PNG")
    picture(tmp_path / "JPEGImages/v/00001.jpg", 3)
    (tmp_path / "Annotations/v").mkdir(parents=True)
    dataset = ingest(Vos(root=str(tmp_path)), tmp_path / "out")
    rows = dataset.read("images", ["image_id", "frame_index"]).to_pylist()
    assert {row["image_id"] for row in rows} == {"vos/v/00000", "vos/v/00000.png", "vos/v/00001"}
    assert sorted(row["frame_index"] for row in rows) == [0, 1, 2]
    assert not ledger(dataset)


def test_export_gives_pictures_of_two_sets_two_numbers():
    assert _coco_id("coco/000000000007") == 7
    assert _coco_id("coco/valid/000000000007") is None


def test_a_copy_of_the_source_is_found_for_pictures_of_a_set_that_is_apart(tmp_path):
    picture(tmp_path / "a/sa_12.jpg", 1)
    found = open_copy(str(tmp_path)).candidates("sa1b/more/12", None)
    assert len(list(found)) == 1


def test_what_is_said_helps(tmp_path, call):
    images, instances, _ = write_coco(tmp_path / "one", 2)
    more, others, _ = write_coco(tmp_path / "two", 3, objects=1)
    end = ["--workers", 0, "--out", tmp_path / "out"]
    assert call("ingest", "coco", "--images", images, "--instances", instances, *end).code == 0
    refused = call("ingest", "coco", "--images", more, "--instances", others, *end)
    assert (refused.code, "--name of its own" in refused.err) == (2, True)
    answer = call("ingest", "coco", "--images", more, "--instances", others, "--name", "two", *end)
    assert answer.code == 0
    assert "its own are under its name, e.g. coco/two/000000000001" in answer.out


@pytest.mark.shared
def test_two_splits_of_one_export(tmp_path):
    for split, name in (("train", "coco"), ("valid", "valid")):
        folder = case("12") / split
        source = Coco(images=str(folder), instances=str(folder / "_annotations.coco.json"), name=name)
        ingest(source, tmp_path / "out")
    assert len(set(image_ids(sound(tmp_path / "out")))) == 8
