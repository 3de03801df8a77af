"""Rehydration: the same bytes as publishing with pictures, from folders, tars and datasets; wrong files stay null."""

import json
import shutil
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from curatedata import curated
from drawing import gradient
from helpers import HERE, ingest, sa1b_members, write_tar
from publishing import ALL, CONFIG, build, digests, rows
from refloom.curation.compose.settings import Compose

from refloom.cli.publish import rehydrate as rehydrate_command
from refloom.curation.job import curate
from refloom.ingest.sources.sa1b import Sa1b
from refloom.schemas import pictures
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused
from refloom.schemas.storage import Folder
from refloom.sharing.publish.hub import push
from refloom.sharing.publish.options import Publish
from refloom.sharing.publish.publication import publish
from refloom.sharing.publish.rehydration import rehydrate
from refloom.sharing.publish.sourceindex import FolderCopy

BARE = Publish(tables=("all",), images=False, shard_bytes=64 << 10)
FULL = replace(BARE, images=True)


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    """A folder with the sources `coco` and `videos`, and the dataset `data` made of them."""
    root = tmp_path_factory.mktemp("rehydrate")
    build(root, count=6)
    return root


@pytest.fixture(scope="module")
def bare(sources) -> Path:
    """The publication without bytes."""
    publish(Dataset(str(sources / "data")), str(sources / "bare"), BARE)
    return sources / "bare"


@pytest.fixture(scope="module")
def full(sources) -> Path:
    """The publication with them."""
    publish(Dataset(str(sources / "data")), str(sources / "full"), FULL)
    return sources / "full"


def test_a_publication_without_bytes_says_which_belong_to_it(bare, sources):
    listed = {row["picture_id"]: row for row in rows(bare, "pictures")}
    own = {row["image_id"]: row for row in Dataset(str(sources / "data")).read("images").to_pylist()}
    assert {name: row["sha256"] for name, row in listed.items()} == {name: row["sha256"] for name, row in own.items()}
    assert {name: row["bytes"] for name, row in listed.items()} == {
        name: len(row["image"]["bytes"]) for name, row in own.items()
    }
    assert all(image is None for row in rows(bare, "samples") for image in row["images"])
    assert all(subject["appearances"][0]["mask"] for row in rows(bare, "samples") for subject in row["subjects"])
    assert "refloom rehydrate" in (bare / "README.md").read_text()


def test_from_a_dataset_it_is_the_publication_with_bytes(bare, full, sources, tmp_path):
    done = rehydrate(str(bare), str(sources / "data"), str(tmp_path / "out"))
    assert not done.missing
    assert not done.differing
    assert digests(tmp_path / "out") == digests(full)
    assert done.manifest == json.loads((full / "MANIFEST.json").read_text())


def test_from_folders_it_is_the_publication_with_bytes(bare, full, sources, tmp_path):
    shutil.copytree(sources / "coco", tmp_path / "copy/somewhere/coco")
    shutil.copytree(sources / "videos", tmp_path / "copy/elsewhere")
    rehydrate(str(bare), str(tmp_path / "copy"), str(tmp_path / "out"))
    assert digests(tmp_path / "out") == digests(full)


def test_a_takedown_holds_in_what_is_rehydrated(sources, tmp_path):
    dataset = Dataset(str(sources / "data"))
    for name, options in (("bare", BARE), ("full", FULL)):
        publish(dataset, str(tmp_path / name), replace(options, takedown=("coco/000000000002", "ytvis/v1")))
    rehydrate(str(tmp_path / "bare"), str(sources / "data"), str(tmp_path / "out"))
    assert digests(tmp_path / "out") == digests(tmp_path / "full")


def test_a_picture_with_other_bytes_is_named_and_stays_null(bare, full, sources, tmp_path, capsys):
    copy = Path(shutil.copytree(sources, tmp_path / "copy", ignore=shutil.ignore_patterns("data", "bare", "full")))
    (copy / "coco/val2017/000000000003.jpg").write_bytes(pictures.encode_jpeg(gradient(96, 80, 99), 90))
    (copy / "coco/val2017/000000000004.jpg").unlink()
    options = Namespace(published=str(bare), source=str(copy), dest=str(tmp_path / "out"), replace=False, dry_run=False)
    assert rehydrate_command(options) == 1
    said = capsys.readouterr().out
    assert "coco/000000000003 has other bytes in the copy: left null" in said
    assert "coco/000000000004 is not in the copy: left null" in said
    found = {row["image_id"]: row["image"] for row in rows(tmp_path / "out", "images")}
    assert {name for name, image in found.items() if image is None} == {"coco/000000000003", "coco/000000000004"}
    expected = {row["image_id"]: row["image"] for row in rows(full, "images")}
    assert all(image in (None, expected[name]) for name, image in found.items())
    assert "2 pictures were not found" in (tmp_path / "out/README.md").read_text()

    shutil.copytree(sources / "coco", copy / "coco", dirs_exist_ok=True)  # the right files are found: it goes on
    assert rehydrate_command(options) == 0
    assert digests(tmp_path / "out") == digests(full)
    capsys.readouterr()
    assert rehydrate_command(Namespace(**vars(options) | {"dry_run": True})) == 0
    assert "18 pictures to find" in capsys.readouterr().out


def test_sa1b_comes_out_of_its_tars_and_must_not_be_given_on(tmp_path):
    (tmp_path / "copy").mkdir()
    tar = write_tar(tmp_path / "copy/sa_000000.tar", sa1b_members(range(1, 5), size=(96, 80)))
    dataset = ingest(Sa1b(tars=(str(tar),)), tmp_path / "data")
    linked = ingest(Sa1b(tars=(str(tar),)), tmp_path / "linked", link=True)
    own = {row["image_id"]: row["image"]["bytes"] for row in dataset.read("images").to_pylist()}
    for one in (dataset, linked):
        curate(one.url, CONFIG, HERE)
        out = Path(one.url).name
        publish(Dataset(one.url), str(tmp_path / "bare" / out), Publish(tables=("images", "samples"), images=False))
        done = rehydrate(str(tmp_path / "bare" / out), str(tmp_path / "copy"), str(tmp_path / "out" / out))
        assert not done.missing | done.differing
        found = {row["image_id"]: row["image"]["bytes"] for row in rows(tmp_path / "out" / out, "images")}
        assert found == own
        assert "Do not give this copy on" in (tmp_path / "out" / out / "README.md").read_text()
        with pytest.raises(Refused, match="sa1b, which may not be given on"):
            push(str(tmp_path / "out" / out), "me/it")


def test_reencoded_pictures_are_made_again(sources, tmp_path):
    config = replace(CONFIG, compose=replace(Compose(), frames_per_sample=3, max_side_px=64))
    dataset = build(tmp_path / "small", count=4, config=config)
    for name, options in (("bare", BARE), ("full", FULL)):
        publish(dataset, str(tmp_path / name), options)
    kinds = {row["kind"] for row in rows(tmp_path / "bare", "pictures")}
    assert kinds == {"picture", "smaller"}
    rehydrate(str(tmp_path / "bare"), str(tmp_path / "small/data"), str(tmp_path / "out"))
    assert digests(tmp_path / "out") == digests(tmp_path / "full")
    assert max(one["width"] for row in rows(tmp_path / "out", "samples") for one in row["pictures"]) == 64


def test_face_crops_are_made_again(tmp_path_factory, tmp_path):
    dataset = Dataset(str(curated(tmp_path_factory)))
    accepted = tuple({row["license"] or "none" for row in dataset.read("images", ["license"]).to_pylist()})
    for name, options in (("bare", BARE), ("full", FULL)):
        publish(dataset, str(tmp_path / name), replace(options, accept_licenses=accepted))
    assert all(row["crop"] is None for row in rows(tmp_path / "bare", "faces"))
    done = rehydrate(str(tmp_path / "bare"), dataset.url, str(tmp_path / "out"))
    assert not done.missing | done.differing
    assert digests(tmp_path / "out") == digests(tmp_path / "full")
    assert all(row["crop"]["bytes"] for row in rows(tmp_path / "out", "faces"))


def test_what_cannot_be_rehydrated_is_refused(bare, full, sources, tmp_path):
    with pytest.raises(Refused, match="nothing to rehydrate"):
        rehydrate(str(full), str(sources), str(tmp_path / "out"))
    with pytest.raises(Refused, match="no finished publication"):
        rehydrate(str(sources / "data"), str(sources), str(tmp_path / "out"))
    with pytest.raises(Refused, match="is not there"):
        rehydrate(str(bare), str(tmp_path / "absent"), str(tmp_path / "out"))
    damaged = Path(shutil.copytree(bare, tmp_path / "damaged"))
    file = next((damaged / "data/samples").glob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(Refused, match=r"is not the file that MANIFEST\.json names"):
        rehydrate(str(damaged), str(sources), str(tmp_path / "other"))


def test_tables_without_pictures_need_no_copy_of_anything(sources, tmp_path):
    publish(Dataset(str(sources / "data")), str(tmp_path / "out"), Publish(tables=("objects", "selection")))
    assert not (tmp_path / "out/data/pictures").exists()
    assert json.loads((tmp_path / "out/MANIFEST.json").read_text())["facts"]["pictures"] == []
    assert ALL.images


@pytest.mark.parametrize(
    ("files", "image_id", "path", "expected"),
    [
        (["a/v1/00005.jpg", "a/v2/00005.jpg"], "ytvis/v2/00005", "v2/00005.jpg", "a/v2/00005.jpg"),
        (["a/v1/00005.jpg", "a/v2/00005.jpg"], "ytvis/v2/00005", None, "a/v2/00005.jpg"),
        (["x/000000000139.jpg"], "coco/000000000139", "val2017/000000000139.jpg", "x/000000000139.jpg"),
        (["sa_12.jpg", "sa_1.jpg"], "sa1b/12", None, "sa_12.jpg"),
        (["dog/00.jpg", "cat/00.jpg"], "subjects/cat/00.jpg", "cat/00.jpg", "cat/00.jpg"),
        (["dog/a%23b.jpg", "dog/a#b.jpg"], "subjects/dog/a%23b.jpg", "dog/a#b.jpg", "dog/a#b.jpg"),
    ],
)
def test_names_lead_to_the_right_file(tmp_path, files, image_id, path, expected):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(pictures.encode_jpeg(gradient(8, 8), 90))
    copy: Any = FolderCopy(Folder(str(tmp_path)))
    place, offset, length = next(copy.candidates(image_id, path))
    assert (copy.places.name(place), offset, length) == (expected, 0, -1)
