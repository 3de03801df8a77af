"""Publications: the rows of the dataset, the same bytes, refusals of other states, resumption, and the command."""

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from helpers import ingest, write_coco
from places import ROOT
from publishing import ALL, arguments, build, digests, publishable, rows

from refloom.cli.publish import publish as publish_command
from refloom.ingest.sources.coco import Coco
from refloom.schemas import pictures, tables
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import JobStopped, Refused
from refloom.sharing.publish.options import Publish
from refloom.sharing.publish.publication import look_ahead, publish


@pytest.fixture
def made(tmp_path_factory) -> Path:
    """Not to be changed: the tests of publications share it."""
    return publishable(tmp_path_factory)


@pytest.fixture
def dataset(made) -> Dataset:
    return Dataset(str(made))


def test_rows_are_those_of_the_dataset_in_order_of_the_hash_of_their_keys(dataset, tmp_path):
    publish(dataset, str(tmp_path / "out"), ALL)
    for table in ("images", "objects", "samples", "splits", "groups"):
        key = tables.TABLES[table].key
        published = rows(tmp_path / "out", table)
        expected = dataset.read(table).to_pylist()
        if table == "images":  # drawn pictures hold no metadata, so that their bytes are the source's
            expected = [row | {"published_sha256": row["sha256"]} for row in expected]
        if table == "samples":
            assert {file.name[:5] for file in (tmp_path / "out/data/samples").iterdir()} <= {"train", "valid"}
        else:
            assert [row[key] for row in published] == sorted(
                (row[key] for row in expected), key=lambda name: hashlib.sha256(name.encode()).digest()
            )
        assert sorted(published, key=lambda row: row[key]) == sorted(expected, key=lambda row: row[key])


def test_the_manifest_names_every_file_with_its_hash_and_no_other_is_there(dataset, tmp_path):
    manifest = publish(dataset, str(tmp_path / "out"), ALL).manifest
    named = {one["path"]: one["sha256"] for one in manifest["files"]}
    found = digests(tmp_path / "out")
    found.pop("MANIFEST.json")
    assert found == named
    assert json.loads((tmp_path / "out/MANIFEST.json").read_text()) == manifest


def test_parquet_follows_the_rules_of_the_dataset(dataset, tmp_path):
    publish(dataset, str(tmp_path / "out"))
    (file,) = (tmp_path / "out/data/samples").glob("train-*.parquet")
    with pq.ParquetFile(file, page_checksum_verification=True) as reader:
        columns = {
            reader.metadata.row_group(0).column(index).path_in_schema: reader.metadata.row_group(0).column(index)
            for index in range(reader.metadata.num_columns)
        }
        assert columns["images.list.element.bytes"].compression == "UNCOMPRESSED"
        assert not columns["images.list.element.bytes"].is_stats_set
        assert columns["sample_id"].compression == "ZSTD"
        assert columns["sample_id"].has_offset_index
        assert reader.schema_arrow.names == tables.TABLES["samples"].schema.names
        reader.read()


def test_the_same_bytes_whatever_the_units_were(made, tmp_path):
    other = build(tmp_path / "other", unit_size=3, name="zoo")  # so that the videos come first
    assert len(other.units()) != len(Dataset(str(made)).units())
    options = Publish(tables=("all",), shard_bytes=64 << 10)
    publish(Dataset(str(made)), str(tmp_path / "a"), options)
    publish(other, str(tmp_path / "b"), options)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_linked_pictures_are_published_as_bytes(made, tmp_path):
    linked = build(tmp_path / "linked", link=True)
    publish(linked, str(tmp_path / "out"), Publish(tables=("images", "samples")))
    own = {row["image_id"]: row["image"]["bytes"] for row in Dataset(str(made)).read("images").to_pylist()}
    for row in rows(tmp_path / "out", "images"):
        assert row["link"] is None
        assert row["image"]["bytes"] == own[row["image_id"]]


def test_a_linked_picture_that_has_changed_stops_the_publication(tmp_path):
    linked = build(tmp_path, link=True, count=2)
    path = tmp_path / "coco/val2017/000000000001.jpg"
    data = path.read_bytes()
    path.write_bytes(data[:-3] + b"\x00" + data[-2:])
    with pytest.raises(JobStopped, match=r"000000000001\.jpg is not what was ingested"):
        publish(linked, str(tmp_path / "out"), Publish(tables=("images",)))


# -- states -----------------------------------------------------------------------------------------------------------


def test_a_stale_or_half_done_dataset_is_refused_naming_the_stages(tmp_path):
    dataset = build(tmp_path, count=4)
    more = write_coco(tmp_path / "more", 2, size=(96, 80))
    for path in (more[1], more[2]):
        text = path.read_text().replace('"image_id": ', '"image_id": 9').replace('"id": ', '"id": 9')
        path.write_text(text)
    ingest(Coco(images=str(more[0]), instances=str(more[1]), name="more"), dataset.url)
    with pytest.raises(Refused, match=r"out of date: .*split|half done: compose was done for 3 of 4 units"):
        publish(Dataset(dataset.url), str(tmp_path / "out"))
    with pytest.raises(Refused, match="no rows in faces"):
        publish(dataset, str(tmp_path / "out"), Publish(tables=("faces",)))


def test_a_damaged_file_is_refused(tmp_path):
    dataset = build(tmp_path, count=3)
    path = next((tmp_path / "data/samples/train").glob("*.parquet"))
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(Refused, match="is not the file that was committed"):
        publish(Dataset(dataset.url), str(tmp_path / "out"))


def test_foreign_folders_and_other_states_are_refused(dataset, tmp_path):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/mine.txt").write_text("mine")
    with pytest.raises(Refused, match="not empty"):
        publish(dataset, str(tmp_path / "foreign"))
    out = str(tmp_path / "out")
    publish(dataset, out)
    with pytest.raises(Refused, match=r"another state \(other options.images\)"):
        publish(dataset, out, Publish(images=False))
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(Refused, match=r"also holds mine\.txt"):
        publish(dataset, out, Publish(images=False), replace=True)
    (tmp_path / "out/mine.txt").unlink()
    publish(dataset, out, Publish(images=False), replace=True)
    assert (tmp_path / "out/data/pictures").is_dir()
    with pytest.raises(Refused, match="no table 'nothing'"):
        Publish(tables=("nothing",))


def test_a_finished_publication_is_left_alone(dataset, tmp_path):
    first = publish(dataset, str(tmp_path / "out"))
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/data").rglob("*")}
    again = publish(dataset, str(tmp_path / "out"))
    assert again.was_there
    assert again.manifest == first.manifest
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out/data").rglob("*")} == times


_CHILD = """
import os, signal, sys
from refloom.sharing.publish import assembly, shards
from refloom.sharing.publish.options import Publish
from refloom.sharing.publish.publication import publish
from refloom.schemas.dataset import Dataset
write, written = shards.write, []
def counting(*arguments):
    written.append(write(*arguments))
    if len(written) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return written[-1]
shards.write = counting
publish(Dataset(sys.argv[1]), sys.argv[2], Publish(tables=("all",), shard_bytes=int(sys.argv[3])))
"""


def test_a_killed_publication_goes_on_where_it_was(dataset, tmp_path):
    target = 64 << 10
    options = Publish(tables=("all",), shard_bytes=target)
    command = [sys.executable, "-c", _CHILD, dataset.url, str(tmp_path / "out"), str(target)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    (tmp_path / "out/data/images").mkdir(exist_ok=True)
    (tmp_path / "out/data/images/train-00000-of-00001.parquet.123.partial").write_bytes(b"half")
    assert not (tmp_path / "out/MANIFEST.json").exists()
    inodes = {path: path.stat().st_ino for path in (tmp_path / "out/data").rglob("*.parquet")}
    assert len(inodes) >= 4
    publish(dataset, str(tmp_path / "out"), options)
    kept = [path for path, inode in inodes.items() if path.stat().st_ino == inode]
    assert len(kept) >= 3  # the one that was being noted may be written again
    publish(dataset, str(tmp_path / "whole"), options)
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")
    assert not (tmp_path / "out/.refloom/spill").exists()


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command_publishes_and_says_what_it_did(dataset, tmp_path, capsys):
    listed = tmp_path / "list.txt"
    listed.write_text("# asked for by mail\ncoco/000000000001  # a picture\nnobody/knows\n\n")
    with pytest.raises(Refused, match="nobody/knows"):
        publish_command(arguments(dataset, tmp_path / "out", takedown=str(listed)))
    assert not (tmp_path / "out").exists()
    wanted = arguments(dataset, tmp_path / "out", takedown=str(listed), ignore_unknown=True)
    assert publish_command(wanted) == 0
    said = capsys.readouterr().out
    assert "nobody/knows: names nothing here" in said
    assert "coco/000000000001: picture: 1 picture" in said
    assert "fingerprint" in said
    assert publish_command(wanted) == 0
    assert "was complete already" in capsys.readouterr().out


def test_a_dry_run_says_files_bytes_and_disk_and_writes_nothing(dataset, tmp_path, capsys):
    assert publish_command(arguments(dataset, tmp_path / "out", dry_run=True, shard_mb=0.07, tables=["all"])) == 0
    said = capsys.readouterr().out
    assert "of disk needed" in said
    assert "images/train" in said
    assert not (tmp_path / "out").exists()
    outlook = look_ahead(dataset, Publish(images=False))
    assert outlook.files["samples/train"][1] < look_ahead(dataset, Publish()).files["samples/train"][1]


def test_pictures_in_it_decode(dataset, tmp_path):
    publish(dataset, str(tmp_path / "out"))
    for row in rows(tmp_path / "out", "samples"):
        for picture, image in zip(row["pictures"], row["images"], strict=True):
            assert pictures.decode(image["bytes"]).shape == (picture["height"], picture["width"], 3)
