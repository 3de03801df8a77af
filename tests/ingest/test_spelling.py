"""Files under another spelling than the annotation file gives: found where one file alone can be meant."""

import json
import unicodedata

import pytest
from helpers import image_ids, ingest, ledger, write_coco, write_ytvis

from refloom.ingest import spelling
from refloom.ingest.sources.coco import Coco
from refloom.ingest.sources.folder import PlainPictures
from refloom.ingest.sources.ytvis import YouTubeVis
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Failed
from refloom.schemas.storage import Folder
from refloom.schemas.verify import verify

NAMES = [
    # in the json, on the disk
    ("höhe.jpg", unicodedata.normalize("NFD", "höhe.jpg")),
    (unicodedata.normalize("NFD", "höhe.jpg"), "höhe.jpg"),
    (unicodedata.normalize("NFC", "한글.jpg"), unicodedata.normalize("NFD", "한글.jpg")),
    ("a%20b.jpg", "a b.jpg"),
    ("a b.jpg", "a%20b.jpg"),
    ("sub%2Fa.jpg", "sub/a.jpg"),
    ("h%C3%B6he.jpg", unicodedata.normalize("NFD", "höhe.jpg")),
    ("./a.jpg", "a.jpg"),
    (".//sub/./a.jpg", "sub/a.jpg"),
    ("sub\\a.jpg", "sub/a.jpg"),
    ("a.JPG", "a.jpg"),
    ("a.jpg", "a.JPG"),
    ("a.jpg", "a.Jpg"),
    (unicodedata.normalize("NFC", "é 1/à.JPG"), unicodedata.normalize("NFD", "é 1/à.jpg")),
    ("set%201/a.jpg", "set 1/a.jpg"),
]


@pytest.fixture
def tree(tmp_path):
    return write_coco(tmp_path / "coco", 1)


def rename(tree, told: str, there: str) -> Coco:
    """The only picture of the tree is told as one name and lies under another."""
    folder, instances, _ = tree
    (folder / there).parent.mkdir(parents=True, exist_ok=True)
    (folder / "000000000001.jpg").rename(folder / there)
    document = json.loads(instances.read_text())
    document["images"][0]["file_name"] = told
    instances.write_text(json.dumps(document))
    return Coco(images=str(folder), instances=str(instances))


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize(("told", "there"), NAMES)
def test_a_picture_is_found_under_its_other_spelling(tree, tmp_path, told, there, link):
    dataset = ingest(rename(tree, told, there), tmp_path / "out", link=link)
    assert not ledger(dataset)
    assert image_ids(dataset) == ["coco/000000000001"]
    assert verify(dataset, decode_per_unit=-1).sound
    (row,) = dataset.read("images").to_pylist()
    assert dataset.checked_picture(row) == (tree[0] / there).read_bytes()


@pytest.mark.parametrize("told", ["%2e%2e/outside.jpg", "..%2Foutside.jpg", "%2Fetc/passwd", "a.jpg%00.jpg"])
def test_what_hides_a_way_out_of_the_folder_finds_nothing(tree, tmp_path, told):
    source = rename(tree, told, "a.jpg")
    (tree[0].parent / "outside.jpg").write_bytes((tree[0] / "a.jpg").read_bytes())
    document = json.loads(tree[1].read_text())
    document["images"].append({**document["images"][0], "id": 2, "file_name": "a.jpg"})  # so that --images is right
    tree[1].write_text(json.dumps(document))
    dataset = ingest(source, tmp_path / "out")
    assert ledger(dataset)["image", "coco/000000000001", 0] == "missing_file"
    assert image_ids(dataset) == ["coco/000000000002"]


def test_the_name_as_it_stands_is_taken_before_any_other_spelling(tmp_path):
    for name in ("a.JPG", "a.jpg", "a b.png", "a%20b.png"):
        (tmp_path / name).write_text(name)
    assert spelling.spelled(Folder(tmp_path), "a.jpG".replace("G", "eg")) is None
    with pytest.raises(Failed, match="2 files could be meant"):
        spelling.spelled(Folder(tmp_path), "a.Jpg")
    with pytest.raises(Failed, match="2 files could be meant"):
        spelling.spelled(Folder(tmp_path), "a b.PNG")


def test_a_file_that_comes_later_is_found_by_the_next_run(tree, tmp_path):
    source = rename(tree, "a.jpg", "a.JPG")
    document = json.loads(tree[1].read_text())
    document["images"].append({**document["images"][0], "id": 2, "file_name": "b.jpg"})
    tree[1].write_text(json.dumps(document))
    assert ledger(ingest(source, tmp_path / "out"))["image", "coco/000000000002", 0] == "missing_file"
    (tree[0] / "b.JPG").write_bytes((tree[0] / "a.JPG").read_bytes())
    assert not ledger(ingest(source, tmp_path / "out", retry_failed=True))


def test_frames_and_lines_are_found_as_well(tmp_path):
    path = write_ytvis(tmp_path / "vis", videos=1)
    for frame in (tmp_path / "vis/JPEGImages/v1").iterdir():
        frame.rename(frame.with_suffix(".JPG"))
    dataset = ingest(YouTubeVis(frames=str(tmp_path / "vis"), annotations=str(path)), tmp_path / "out")
    assert dataset.counts("ingest")["image"].kept == 4
    lines = tmp_path / "vis/lines.jsonl"
    lines.write_text('{"file_name": "JPEGImages%2Fv1/00000.jpg", "text": "a cat"}\n')
    dataset = ingest(PlainPictures(path=str(lines)), tmp_path / "plain", link=True)
    assert dataset.counts("ingest")["caption"].kept == 1
    assert Dataset(dataset.url).read("images")["link"].to_pylist()[0]["file"] == "JPEGImages/v1/00000.JPG"
