"""Takedowns of a dataset itself: nothing of a picture is left but words of the ledger, and it does not come back."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import run
from curatedata import copy, curated, ingested
from drawing import gradient
from helpers import HERE, ingest, ledger, write_coco
from pairfiles import diptych, subjects200k_row, write_images, write_lines, write_subjects200k
from publishing import CONFIG, build, publishable

from refloom.curation.config import Curation
from refloom.curation.group.looks import Looks
from refloom.curation.job import curate
from refloom.curation.select.settings import Select
from refloom.ingest.sources.coco import Coco
from refloom.ingest.sources.folder import PlainPictures as Pictures
from refloom.ingest.sources.pairs.pairs import Pairs
from refloom.ingest.sources.subjects import Subjects
from refloom.schemas import pictures
from refloom.schemas.dataset import STAGES, Dataset
from refloom.schemas.errors import Refused
from refloom.schemas.manifest import Manifest
from refloom.schemas.storage import Folder
from refloom.schemas.takedownlist import TakedownList, refuse_listed
from refloom.schemas.unit import UnitKey, UnitWriter
from refloom.schemas.verify import verify
from refloom.sharing.publish.options import Publish
from refloom.sharing.publish.publication import publish
from refloom.sharing.publish.removal import remove
from refloom.sharing.publish.takedown import read, resolve
from refloom.training.data.index import Index

GONE = "coco/000000000002"


@pytest.fixture
def dataset(tmp_path_factory, tmp_path) -> Dataset:
    """Eight COCO pictures and two videos of its own, curated."""
    shutil.copytree(publishable(tmp_path_factory), tmp_path / "data")
    return Dataset(str(tmp_path / "data"))


def cells(root: Path, name: str) -> list[str]:
    """Tables, not ledgers of ingest, of which a cell holds a text."""

    def texts(value: Any) -> Iterator[str]:
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            for inner in value.values():
                yield from texts(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from texts(inner)

    found = []
    for path in sorted(root.rglob("*.parquet")):
        where = str(path.relative_to(root))
        if not where.startswith("ledger/ingest/") and any(
            name in text for text in texts(pq.ParquetFile(path).read().to_pylist())
        ):
            found.append(where)
    return found


def files_with(root: Path, data: bytes) -> list[str]:
    return [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and data in path.read_bytes()]


def is_current(dataset: Dataset) -> bool:
    dataset.refresh()
    manifests = [one for stage in STAGES for one in dataset.manifests(stage).values()]
    return not any(dataset.is_stale(one) for one in manifests)


def stored(dataset: Dataset, image_id: str) -> bytes:
    row = next(row for row in dataset.read("images").to_pylist() if row["image_id"] == image_id)
    return dataset.picture(row)


def test_a_picture_goes_from_every_file_and_leaves_a_word_of_the_ledger(dataset, tmp_path):
    root, data = tmp_path / "data", stored(dataset, GONE)
    (root / "report.html").write_text(f"<img alt='{GONE}'>")
    assert cells(root, GONE)
    assert len(files_with(root, data)) >= 2  # images and samples, so that the test can fail
    before = {name: entry["fingerprint"] for name, entry in dataset.table_summary().items()}
    counts = dataset.counts("ingest")
    done = remove(dataset.url, [GONE])
    dataset = Dataset(dataset.url)
    assert cells(root, GONE) == []
    assert files_with(root, data) == []
    assert not (root / "report.html").exists()
    assert done.rows["images dropped"] == 1
    assert done.rows["samples dropped"] == 1
    assert ledger(dataset)["image", GONE, 0] == "taken_down"
    assert ledger(dataset)["annotation", f"{GONE}#20", 0] == "image_rejected"
    assert ledger(dataset)["caption", GONE, 0] == "image_rejected"
    after = dataset.counts("ingest")
    for kind in ("image", "annotation", "caption"):
        assert after[kind].balanced
        assert after[kind].input == counts[kind].input
    assert verify(dataset).problems == []
    assert is_current(dataset)
    now = {name: entry["fingerprint"] for name, entry in dataset.table_summary().items()}
    assert {name for name in now if now[name] != before[name]} >= {"images", "objects", "samples", "splits"}


def test_pictures_that_stay_keep_their_rows(dataset):
    def rows(table: str, key: str) -> dict[str, Any]:
        return {row[key]: row for row in Dataset(dataset.url).read(table).to_pylist()}

    tables = (
        ("images", "image_id"),
        ("objects", "object_id"),
        ("object_scores", "object_id"),
        ("samples", "sample_id"),
    )
    before = {table: rows(table, key) for table, key in tables}
    remove(dataset.url, [GONE])
    for table, key in tables:
        after = rows(table, key)
        assert after == {name: row for name, row in before[table].items() if GONE not in name}


def test_faces_crops_embeddings_and_groups_go_along(tmp_path_factory, tmp_path):
    root = copy(ingested(tmp_path_factory), tmp_path)
    # the toys look alike by what the demo asks of them
    looks = Looks(strictness=0.55, cut_out_margin=0.0, max_cosine=None, min_side_px=0.0)
    curate(str(root), Curation(looks=looks, select=Select(min_quality=0.35)), HERE)
    dataset = Dataset(str(root))
    face = dataset.read("faces", ["face_id", "image_id", "crop"]).to_pylist()[0]
    group = next(row for row in dataset.read("groups").to_pylist() if row["kind"] == "look")
    entries = [face["face_id"], group["members"][0]]
    remove(str(root), entries)
    dataset = Dataset(str(root))
    assert files_with(root, face["crop"]["bytes"]) == []
    for image_id in (face["image_id"], entries[1].split("#")[0]):
        assert cells(root, image_id) == []
        for stage in STAGES[1:]:
            assert not any(image_id in row["item_id"] for row in dataset.ledger(stage).to_pylist())
    assert verify(dataset).problems == []
    assert is_current(dataset)


def test_a_whole_video_goes_with_its_tracks(dataset, tmp_path):
    tracks = {name for name in dataset.read("objects")["track_id"].to_pylist() if name and name.startswith("ytvis/v1#")}
    remove(dataset.url, ["ytvis/v1"])
    assert cells(tmp_path / "data", "ytvis/v1") == []
    dataset = Dataset(dataset.url)
    assert tracks
    assert {ledger(dataset)["track", name, 0] for name in tracks} == {"image_rejected"}
    assert verify(dataset).problems == []


def test_a_source_group_loses_its_member(tmp_path):
    for number in range(3):
        place = tmp_path / "subjects/toy"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.jpg").write_bytes(pictures.encode_jpeg(gradient(64, 48, number), 90))
    source = Subjects(directory=str(tmp_path / "subjects"))
    ingest(source, tmp_path / "data")
    remove(str(tmp_path / "data"), ["subjects/toy/0.jpg"])
    first = Dataset(str(tmp_path / "data"))
    (group,) = first.read("source_groups").to_pylist()
    assert group["members"] == ["subjects/toy/1.jpg", "subjects/toy/2.jpg"]
    assert verify(first).problems == []
    (tmp_path / "other").mkdir()
    shutil.copy(tmp_path / "data/takedown.json", tmp_path / "other/takedown.json")
    Dataset(str(shutil.copytree(_empty(tmp_path), tmp_path / "other", dirs_exist_ok=True)))
    second = ingest(source, tmp_path / "other")
    for table in ("images", "objects", "source_groups"):
        assert second.fingerprint(table) == first.fingerprint(table)
    assert verify(second).problems == []


@pytest.mark.parametrize("lost", ["b.jpg", "t.jpg"])
def test_a_record_loses_what_counts_a_picture_that_went(tmp_path, lost):
    write_images(tmp_path / "set", ["a.jpg", "b.jpg", "t.jpg", "d.jpg", "e.jpg"])
    records = [
        {"instruction": "with a and b", "input_images": ["a.jpg", "b.jpg"], "output_image": "t.jpg", "score": 4},
        {"instruction": "with a and d", "input_images": ["a.jpg", "d.jpg"], "output_image": "e.jpg"},
    ]
    source = Pairs(path=write_lines(tmp_path / "set" / "r.jsonl", records))
    before = ingest(source, tmp_path / "data").read("source_groups").to_pylist()
    remove(str(tmp_path / "data"), [f"pairs/{lost}"])
    first = Dataset(str(tmp_path / "data"))
    *shrunk, other = first.read("source_groups").to_pylist()
    assert len(shrunk) == (lost != "t.jpg"), "what a record makes of its others is gone: so is the record"
    for row in shrunk:
        assert (len(row["members"]), row["target"]) == (2, "pairs/t.jpg")
        assert [row[name] for name in ("instructions", "scores", "source_json")] == [None, None, None]
    assert other == before[1]
    (tmp_path / "other").mkdir()
    shutil.copy(tmp_path / "data/takedown.json", tmp_path / "other/takedown.json")
    Dataset(str(shutil.copytree(_empty(tmp_path), tmp_path / "other", dirs_exist_ok=True)))
    second = ingest(source, tmp_path / "other")  # whoever takes the source in afterwards gets the same
    assert second.fingerprint("source_groups") == first.fingerprint("source_groups")
    lost_groups = {key: reason for key, reason in ledger(second).items() if key[0] == "group"}
    assert list(lost_groups.values()) == ["no_target"] * (lost == "t.jpg")


def test_halves_of_a_whole_whose_sha256_is_listed_stay_out(tmp_path):
    rows = [subjects200k_row(diptych(1)), subjects200k_row(diptych(2))]
    source = Pairs(path=write_subjects200k(tmp_path / "s.parquet", rows))
    remove(str(_empty(tmp_path)), [hashlib.sha256(diptych(1)).hexdigest()], ignore_unknown=True)
    dataset = ingest(source, tmp_path / "empty")
    assert dataset.read("images")["image_id"].to_pylist() == ["pairs/s/1/0", "pairs/s/1/1"]
    lost = {key: reason for key, reason in ledger(dataset).items() if key[0] in ("image", "group")}
    assert lost == {
        ("image", "pairs/s/0/0", 0): "taken_down",
        ("image", "pairs/s/0/1", 0): "taken_down",
        ("group", "pairs/s#0", 0): "too_few_members",
    }


def _empty(root: Path) -> Path:
    Dataset(str(root / "empty"), create=True)
    return root / "empty"


def test_nobody_adds_pictures_to_a_group_or_a_video_that_was_taken_down(tmp_path):
    place = tmp_path / "subjects/toy"
    place.mkdir(parents=True)
    for number in range(4):
        (place / f"{number}.jpg").write_bytes(pictures.encode_jpeg(gradient(64, 48, number), 90))
    (place / "3.jpg").rename(tmp_path / "3.jpg")
    source = Subjects(directory=str(tmp_path / "subjects"))
    dataset = ingest(source, tmp_path / "data")
    remove(dataset.url, ["subjects/toy"])
    assert len(Dataset(dataset.url).read("images")) == 0
    (tmp_path / "3.jpg").rename(place / "3.jpg")
    dataset = ingest(source, tmp_path / "data", replace=True)
    assert len(dataset.read("images")) == 0
    assert ledger(dataset)["image", "subjects/toy/3.jpg", 0] == "taken_down"
    assert verify(dataset).problems == []


# -- entries ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def named(tmp_path_factory) -> Dataset:
    """COCO pictures with addresses, and a video; only ingested."""
    root = tmp_path_factory.mktemp("named")
    images, instances, _ = write_coco(root / "coco", 4)
    document = json.loads(instances.read_text())
    for image in document["images"]:
        image["flickr_url"] = f"https://example.org/Photo/{image['id']}"
    instances.write_text(json.dumps(document))
    ingest(Coco(images=str(images), instances=str(instances)), root / "data")
    return ingest(Pictures(path=str(images)), root / "data", link=True)


def reached(dataset: Dataset, entry: str) -> tuple[set[str], set[str]]:
    (one,) = resolve(dataset, [entry]).reached
    return set(one.kinds), {name for name in one.images if name.startswith("coco/")}


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        ("coco/000000000002", "picture"),
        ("COCO/000000000002", "picture"),
        ("coco/000000000002#20", "object"),
        ("coco/000000000002@0", "face"),
        ("Coco/000000000002#20", "object"),
        ("https://example.org/Photo/2", "url"),
        ("HTTPS://EXAMPLE.ORG/photo/2", "url"),
        ("000000000002.jpg", "file"),
        ("000000000002.JPG", "file"),
    ],
)
def test_an_entry_names_its_picture_however_it_is_written(named, entry, kind):
    assert reached(named, entry) == ({kind}, {GONE})


def test_a_sha256_names_all_pictures_of_these_bytes(named):
    row = next(row for row in named.read("images", ["image_id", "sha256"]).to_pylist() if row["image_id"] == GONE)
    for entry in (row["sha256"], row["sha256"].upper(), f"sha256:{row['sha256']}"):
        assert resolve(named, [entry]).images == {GONE, "folder/000000000002.jpg"}


def test_the_same_bytes_under_another_id_go_along(named):
    taken = resolve(named, [GONE])
    assert taken.images == {GONE, "folder/000000000002.jpg"}
    assert taken.twins == ("folder/000000000002.jpg",)


def test_very_letters_come_before_other_case(tmp_path):
    for name in ("a.jpg", "A.jpg"):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(pictures.encode_jpeg(gradient(32, 32, ord(name[0])), 90))
    dataset = ingest(Pictures(path=str(tmp_path / "in")), tmp_path / "data")
    assert resolve(dataset, ["folder/A.jpg"]).images == {"folder/A.jpg"}
    assert resolve(dataset, ["FOLDER/A.JPG"]).images == {"folder/A.jpg", "folder/a.jpg"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_list_may_begin_with_a_byte_order_mark(tmp_path, encoding):
    (tmp_path / "list").write_bytes("coco/é\r\n\r\n# no\r\ncoco/2 # why\r\n".encode(encoding))
    assert read(str(tmp_path / "list")) == ("coco/é", "coco/2")


# -- unknown entries -------------------------------------------------------------------------------------------------


def test_an_unknown_entry_is_refused_and_nothing_changes(dataset, tmp_path, capsys):
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*") if path.suffix == ".parquet"}
    (tmp_path / "list").write_text(f"{GONE}\ncoco/0000000000022\n")
    answer = run(capsys, "takedown", dataset.url, tmp_path / "list")
    assert answer.code == 2
    assert "coco/0000000000022" in answer.err
    assert "Traceback" not in answer.err
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not (tmp_path / "data/takedown.json").exists()
    answer = run(capsys, "takedown", dataset.url, tmp_path / "list", "--ignore-unknown")
    assert answer.code == 0
    assert f"{GONE}: picture: 1 picture" in answer.out
    assert "coco/0000000000022: names nothing here" in answer.out


def test_publish_refuses_an_unknown_entry(dataset, tmp_path, capsys):
    (tmp_path / "list").write_text(f"{GONE}\nnobody\n")
    wanted = ["publish", dataset.url, tmp_path / "out", "--takedown", tmp_path / "list"]
    answer = run(capsys, *wanted)
    assert answer.code == 2
    assert "nobody" in answer.err
    assert not (tmp_path / "out").exists()
    answer = run(capsys, *wanted, "--ignore-unknown")
    assert answer.code == 0
    assert f"{GONE}: picture: 1 picture" in answer.out


def test_what_is_gone_already_is_no_unknown_entry(dataset, tmp_path, capsys):
    (tmp_path / "list").write_text(f"{GONE}\n{GONE}#20\n")
    assert run(capsys, "takedown", dataset.url, tmp_path / "list").code == 0
    answer = run(capsys, "takedown", dataset.url, tmp_path / "list")
    assert answer.code == 0
    assert f"{GONE}: was taken down before" in answer.out
    wanted = ["publish", dataset.url, tmp_path / "out", "--takedown", tmp_path / "list"]
    assert run(capsys, *wanted).code == 0


def test_a_dry_run_says_what_would_go_and_changes_nothing(dataset, tmp_path, capsys):
    (tmp_path / "list").write_text(f"{GONE}\n")
    answer = run(capsys, "takedown", dataset.url, tmp_path / "list", "--dry-run", "--json")
    foreseen = json.loads(answer.out)["rows"]
    assert foreseen["images dropped"] == foreseen["samples dropped"] == 1
    assert cells(tmp_path / "data", GONE)
    assert not (tmp_path / "data/takedown.json").exists()


def test_without_a_list_there_is_nothing_to_do(dataset, capsys):
    answer = run(capsys, "takedown", dataset.url)
    assert answer.code == 2
    assert "no takedown list" in answer.err


def test_a_list_without_entries_is_not_called_absent(dataset, tmp_path, capsys):
    (tmp_path / "list").write_text("\n# nothing yet\n")
    answer = run(capsys, "takedown", dataset.url, tmp_path / "list")
    assert answer.code == 2
    assert "no entry was given" in answer.err


# -- what stays out --------------------------------------------------------------------------------------------------


def test_no_later_ingest_brings_a_picture_back(tmp_path):
    images, instances, captions = write_coco(tmp_path / "coco", 4)
    source = Coco(images=str(images), instances=str(instances), captions=str(captions))
    first = ingest(source, tmp_path / "data")
    remove(first.url, [GONE])
    first = Dataset(first.url)
    fingerprints = {name: first.fingerprint(name) for name in ("images", "objects")}
    again = ingest(replace(source, captions=None), tmp_path / "data", replace=True)
    again = ingest(source, tmp_path / "data", replace=True)
    assert {name: again.fingerprint(name) for name in fingerprints} == fingerprints
    assert ledger(again)["image", GONE, 0] == "taken_down"
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in images.iterdir():
        shutil.copy(path, copy / f"other-{path.name}")
    third = ingest(Pictures(path=str(copy)), tmp_path / "data")
    held = set(third.read("images", ["image_id"])["image_id"].to_pylist())
    assert "folder/other-000000000003.jpg" in held
    assert "folder/other-000000000002.jpg" not in held  # the same bytes
    assert verify(third).problems == []


@pytest.mark.parametrize(
    "entry", ["coco/000000000003", "COCO/000000000003#1", "000000000003.jpg", "coco/000000000003@0"]
)
def test_an_entry_that_names_nothing_yet_keeps_its_picture_out_later(tmp_path, entry):
    images, instances, _ = write_coco(tmp_path / "first", 2)
    dataset = ingest(Coco(images=str(images), instances=str(instances)), tmp_path / "data")
    remove(dataset.url, [entry], ignore_unknown=True)
    images, instances, _ = write_coco(tmp_path / "second", 4)
    dataset = ingest(Coco(images=str(images), instances=str(instances)), tmp_path / "data", replace=True)
    assert ledger(dataset)["image", "coco/000000000003", 0] == "taken_down"
    assert len(dataset.read("images")) == 3


def test_a_sample_stays_away_and_its_pictures_stay(dataset):
    name = "image/coco/000000000001"
    remove(dataset.url, [name])
    dataset = Dataset(dataset.url)
    assert name not in dataset.read("samples", ["sample_id"])["sample_id"].to_pylist()
    assert len(dataset.read("images")) == 20
    curate(dataset.url, replace(CONFIG, compose=replace(CONFIG.compose, frames_per_sample=2)), HERE, replace=True)
    dataset = Dataset(dataset.url)
    assert name not in dataset.read("samples", ["sample_id"])["sample_id"].to_pylist()
    assert ledger(dataset, "compose")["image", "coco/000000000001", 0] == "taken_down"
    assert verify(dataset).problems == []


def test_curation_goes_on_from_what_is_left(dataset):
    remove(dataset.url, [GONE])
    assert not any(curate(dataset.url, CONFIG, HERE).due.values())
    curate(dataset.url, replace(CONFIG, select=replace(CONFIG.select, min_quality=0.01)), HERE, replace=True)
    dataset = Dataset(dataset.url)
    assert not cells(Path(dataset.url), GONE)
    assert verify(dataset).problems == []


def test_rows_that_were_put_back_are_refused(dataset, tmp_path, capsys):
    shutil.copytree(tmp_path / "data", tmp_path / "old")
    remove(dataset.url, [GONE])
    for name in ("manifests", "images", "samples", "objects"):
        shutil.copytree(tmp_path / "old" / name, tmp_path / "data" / name, dirs_exist_ok=True)
    with pytest.raises(Refused, match="refloom takedown"):
        refuse_listed(Dataset(dataset.url))
    with pytest.raises(Refused, match="refloom takedown"):
        Index(dataset.url)  # of every recipe, cache and preview
    for command in (
        ["publish", dataset.url, tmp_path / "out"],
        ["export", dataset.url, tmp_path / "x", "--format", "coco"],
    ):
        answer = run(capsys, *command)
        assert answer.code == 2
        assert GONE in answer.err


def test_the_printed_remedy_takes_them_out_again(dataset, tmp_path, capsys):
    shutil.copytree(tmp_path / "data", tmp_path / "old")
    remove(dataset.url, [GONE])
    shutil.copy(tmp_path / "data/takedown.json", tmp_path / "old/takedown.json")
    assert run(capsys, "takedown", tmp_path / "old").code == 0
    assert cells(tmp_path / "old", GONE) == []
    refuse_listed(Dataset(str(tmp_path / "old")))
    assert Index(str(tmp_path / "old")).groups


def test_a_damaged_list_is_no_empty_one(dataset, tmp_path):
    for text in ("{", "[]", '{"version": 1}', json.dumps({"version": 1, "entries": [1]})):
        (tmp_path / "data/takedown.json").write_text(text)
        with pytest.raises(Refused, match=r"takedown\.json"):
            refuse_listed(Dataset(dataset.url))


# -- stops, stores, links, copies ------------------------------------------------------------------------------------


def state(url: str) -> dict[str, Any]:
    dataset = Dataset(url)
    return {
        f"{stage}/{unit}": (one.tables, one.inputs, {kind: counts.to_json() for kind, counts in one.items.items()})
        for stage in STAGES
        for unit, one in dataset.manifests(stage).items()
    }


def test_a_removal_that_was_stopped_is_finished_and_nothing_else_runs_meanwhile(
    tmp_path_factory, tmp_path, monkeypatch, capsys
):
    source = tmp_path / "source"
    shutil.copytree(curated(tmp_path_factory), source)
    group = next(row for row in Dataset(str(source)).read("groups").to_pylist() if row["kind"] == "folder")
    entry = group["members"][0].split("#")[0]
    shutil.copytree(source, tmp_path / "whole")
    remove(str(tmp_path / "whole"), [entry])
    wanted = state(str(tmp_path / "whole"))
    writes = Folder.write
    for stop in (2, 4, 7, 11, 16, 24):
        place = tmp_path / f"stopped-{stop}"
        shutil.copytree(source, place)
        left = iter(range(stop))

        def write(folder: Folder, path: str, data: bytes) -> None:
            if path.startswith("manifests/") and next(left, None) is None:  # noqa: B023  called at once
                raise InterruptedError("killed")
            writes(folder, path, data)

        monkeypatch.setattr(Folder, "write", write)
        with pytest.raises(InterruptedError):
            remove(str(place), [entry])
        monkeypatch.setattr(Folder, "write", writes)
        for command in (["curate", place], ["publish", place, tmp_path / "out"]):
            answer = run(capsys, *command)
            assert answer.code == 2
            assert f"refloom takedown {place}" in answer.err
        assert run(capsys, "takedown", place).code == 0
        assert state(str(place)) == wanted
        assert cells(place, entry) == []
        assert verify(Dataset(str(place))).problems == []


def test_on_an_object_store_as_on_a_disk(tmp_path):
    images, instances, _ = write_coco(tmp_path / "coco", 4)
    url = "memory://takedown/data"
    try:
        ingest(Coco(images=str(images), instances=str(instances)), url)
        curate(url, CONFIG, HERE, until="select")
        data = stored(Dataset(url), GONE)
        remove(url, [GONE])
        dataset = Dataset(url)
        assert verify(dataset).problems == []
        assert is_current(dataset)
        store = fsspec.filesystem("memory")
        assert not [path for path in store.find("/takedown") if data in store.cat_file(path)]
    finally:
        fsspec.filesystem("memory").rm("/takedown", recursive=True)


def test_links_go_and_the_source_is_named(tmp_path, capsys):
    dataset = build(tmp_path, count=4, link=True)
    (tmp_path / "list").write_text(f"{GONE}\n")
    answer = run(capsys, "takedown", dataset.url, tmp_path / "list")
    assert answer.code == 0
    assert "the bytes of 1 picture are links" in answer.out
    assert cells(tmp_path / "data", GONE) == []
    assert verify(Dataset(dataset.url)).problems == []


def test_copies_are_named_with_the_way_to_take_it_out_there(dataset, tmp_path, capsys):
    out, coco, page = tmp_path / "out put", tmp_path / "coco", tmp_path / "page.html"
    assert run(capsys, "publish", dataset.url, out, "--tables", "images", "samples").code == 0
    assert run(capsys, "export", dataset.url, coco, "--format", "coco").code == 0
    assert run(capsys, "report", dataset.url, "--out", page).code == 0
    (tmp_path / "list").write_text(f"{GONE}\n")
    answer = run(capsys, "takedown", dataset.url, tmp_path / "list")
    command = next(line for line in answer.out.splitlines() if "published in" in line).split("`")[1]
    assert command == f"refloom publish {dataset.url} '{out}' --tables images samples --replace"
    assert f"exported to {coco}" in answer.out
    assert str(page) in answer.out
    there = run(capsys, "takedown", out, tmp_path / "list")
    assert there.code == 2
    assert "is a publication" in there.err
    assert run(capsys, "publish", dataset.url, out, "--tables", "images", "samples", "--replace").code == 0
    assert cells(out, GONE) == []


def test_feature_caches_lose_what_was_made_of_the_samples(dataset, tmp_path):
    folder = Folder(str(tmp_path / "data/features/x"))
    schema = pa.schema([("key", pa.string())])
    for file in (one for manifest in dataset.manifests("compose").values() for one in manifest.files):
        if file.path.startswith("samples/"):
            unit = file.path.rpartition("/")[2].removesuffix(".parquet")
            key = UnitKey(stage="features", unit=unit, key="", inputs={file.path: file.sha256})
            with UnitWriter(folder, key, schemas={"tensors": schema}) as writer:
                writer.add("tensors", {"key": unit})
    folder.write("features.json", b"{}")
    before = set(folder.names("manifests/features"))
    done = remove(dataset.url, [GONE])
    assert done.features == [f"{dataset.url}/features/x"]
    after = set(folder.names("manifests/features"))
    assert after < before
    assert not folder.exists("features.json")  # so that nobody reads what is not whole
    current = {file.path for one in Dataset(dataset.url).manifests("compose").values() for file in one.files}
    for name in after:
        path = f"manifests/features/{name}"
        assert set(Manifest.from_json(folder.read(path), path).inputs) <= current


def test_the_list_is_no_part_of_a_publication(dataset, tmp_path):
    remove(dataset.url, [GONE])
    publish(Dataset(dataset.url), str(tmp_path / "out"), Publish(tables=("all",)))
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file() and GONE.encode() in path.read_bytes()]
    assert TakedownList.load(Folder(dataset.url)).images.keys() == {GONE}
