"""The dataset folder: Parquet rules, fingerprints, commit, garbage, lease, versions, and what others read of it."""

import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refloom.schemas import card, parquet, tables
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import JobStopped, Refused
from refloom.schemas.fields import metadata_of
from refloom.schemas.fingerprint import Fingerprint
from refloom.schemas.lease import Lease
from refloom.schemas.manifest import Manifest, differing
from refloom.schemas.parquet import TableWriter
from refloom.schemas.storage import Folder
from refloom.schemas.unit import UnitKey, UnitWriter
from refloom.schemas.upkeep import collect_garbage
from refloom.schemas.verify import verify


def image_row(number: int, data: bytes, **more: object) -> dict:
    return {
        "image_id": f"folder/{number}.jpg",
        "source": "folder",
        "sha256": hashlib.sha256(data).hexdigest(),
        "width": 64,
        "height": 48,
        "orientation": 1,
        "captions": ["a thing"],
        "faces_blurred": False,
        "image": {"bytes": data, "path": f"{number}.jpg"},
        **more,
    }


def write_unit(dataset: Dataset, unit: str, pictures: list[bytes], start: int = 0) -> None:
    with UnitWriter(dataset.folder, UnitKey("ingest", unit, "folder.x")) as out:
        out.expect("image", len(pictures) + 2)
        for number, data in enumerate(pictures, start):
            out.add("images", image_row(number, data), weight=len(data))
            out.keep("image")
        out.reject("image", f"folder/bad-{unit}", "truncated", "cut", file="bad.jpg")
        out.fail("image", f"folder/gone-{unit}", "missing_file")
    dataset.refresh()


@pytest.fixture
def dataset(tmp_path, jpeg) -> Dataset:
    made = Dataset(str(tmp_path / "data"), create=True)
    write_unit(made, "u-0", [jpeg(seed=seed) for seed in range(5)])
    write_unit(made, "u-1", [jpeg(seed=seed) for seed in range(5, 9)], start=5)
    made.write_index()
    card.write(made)
    return made


# -- Parquet -------------------------------------------------------------------------------------------------------


def test_picture_bytes_are_stored_bare_and_everything_else_compressed(dataset):
    (file,) = dataset.manifests("ingest")["u-0"].files_of("images")
    group = pq.ParquetFile(dataset.folder.at(file.path)).metadata.row_group(0)
    columns = {group.column(index).path_in_schema: group.column(index) for index in range(group.num_columns)}
    assert columns["image.bytes"].compression == "UNCOMPRESSED"
    assert not columns["image.bytes"].is_stats_set
    assert not any("DICT" in encoding for encoding in columns["image.bytes"].encodings)
    assert {column.compression for path, column in columns.items() if path != "image.bytes"} == {"ZSTD"}
    assert columns["image_id"].is_stats_set
    assert columns["image_id"].has_offset_index
    assert list(columns)[-2:] == ["image.bytes", "image.path"]


def test_row_groups_and_files_are_cut_by_bytes(tmp_path):
    folder = Folder(str(tmp_path))
    schema = tables.TABLES["images"].schema
    writer = TableWriter(folder, "images", "u", schema, row_group_bytes=50_000, file_bytes=160_000)
    rng = np.random.default_rng(0)
    for number in range(40):
        writer.add(image_row(number, rng.bytes(10_000)), weight=10_000_000)  # one batch a row
    writer.close()
    assert [file.path for file in writer.files] == ["images/unit-u-000.parquet", "images/unit-u-001.parquet"]
    for file in writer.files:
        raw = (tmp_path / file.path).read_bytes()
        assert (len(raw), hashlib.sha256(raw).hexdigest()) == (file.bytes, file.sha256)
        metadata = pq.ParquetFile(tmp_path / file.path).metadata
        assert {metadata.row_group(index).num_rows for index in range(metadata.num_row_groups - 1)} <= {5}
    assert sum(file.rows for file in writer.files) == 40


def test_a_damaged_page_is_seen_when_it_is_read(dataset):
    (file,) = dataset.manifests("ingest")["u-0"].files_of("images")
    path = Path(dataset.folder.at(file.path))
    raw = bytearray(path.read_bytes())
    raw[raw.find(b"\xff\xd8\xff") + 300] ^= 1
    path.write_bytes(raw)
    with pytest.raises(OSError, match="CRC"):
        list(dataset.batches("images", unit="u-0"))
    assert not verify(dataset).sound


def test_others_read_it(dataset):
    from datasets import load_dataset

    loaded = load_dataset(dataset.url)["train"]
    assert loaded.num_rows == 9
    assert loaded[0]["image"].size == (64, 48)
    images = f"{dataset.folder.root}/images/*.parquet"
    assert duckdb.sql(f"select count(*), max(width) from '{images}'").fetchall() == [(9, 64)]
    assert polars.read_parquet(images, columns=["image_id"]).height == 9


def test_fields_say_what_they_mean():
    for table in tables.TABLES.values():
        assert table.schema.names[0] == table.key
        for field in table.schema:
            assert metadata_of(field).get("doc"), f"{table.name}.{field.name}"
        last = table.schema.field(len(table.schema) - 1).type
        for field in list(table.schema)[:-1]:
            assert "binary" not in str(field.type) or "binary" in str(last), f"{table.name}: bytes come last"


# -- columns that came later ---------------------------------------------------------------------------------------


def written_before(dataset: Dataset, columns: set[str], unit: str = "old") -> list[dict[str, Any]]:
    """Commit a unit of groups whose file lacks columns that the table has now."""
    now = tables.TABLES["groups"]
    then = replace(now, schema=pa.schema([field for field in now.schema if field.name not in columns]))
    rows = [{"group_id": f"look/{unit}/{number}", "kind": "look", "members": ["a", "b"]} for number in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tables.TABLES, "groups", then)
        with UnitWriter(dataset.folder, UnitKey("group", unit, "folder.x")) as out:
            out.expect("group", len(rows))
            for row in rows:
                out.add("groups", {key: value for key, value in row.items() if key not in columns})
            out.keep("group", len(rows))
    dataset.refresh()
    return rows


def test_a_column_that_came_later_is_null_in_older_units(dataset):
    rows = written_before(dataset, {"units", "pose_change"})
    with UnitWriter(dataset.folder, UnitKey("group", "new", "folder.x")) as out:
        out.expect("group")
        out.add("groups", {"group_id": "look/new", "kind": "look", "members": ["c", "d"], "units": ["u-0"]})
        out.keep("group")
    dataset.refresh()
    assert dataset.read("groups", ["units", "group_id"]).to_pylist() == [
        {"units": ["u-0"], "group_id": "look/new"},
        *({"units": None, "group_id": row["group_id"]} for row in rows),
    ]
    assert dataset.read("groups").schema.names == tables.TABLES["groups"].schema.names
    batches = list(dataset.batches("groups", ["pose_change", "kind"], unit="old"))
    assert [batch.to_pylist() for batch in batches] == [[{"pose_change": None, "kind": "look"}] * 2]
    assert verify(dataset).sound


def test_a_unit_without_a_column_that_must_be_there_is_refused_by_name(dataset):
    written_before(dataset, {"kind"})
    with pytest.raises(Refused, match=r"groups/unit-old-000.parquet has no column kind"):
        dataset.read("groups")
    assert "group/old: groups has other columns than version 1" in verify(dataset).problems


# -- fingerprints --------------------------------------------------------------------------------------------------

_TYPE = pa.struct([("a", pa.list_(pa.int32())), ("b", pa.string()), ("c", pa.binary())])


@st.composite
def tables_(draw: st.DrawFn) -> pa.Table:
    value = st.none() | st.fixed_dictionaries(
        {
            "a": st.none() | st.lists(st.none() | st.integers(-5, 5), max_size=3),
            "b": st.none() | st.text(max_size=4),
            "c": st.none() | st.binary(max_size=4),
        }
    )
    rows = draw(st.lists(value, max_size=12))
    numbers = draw(st.lists(st.none() | st.floats(width=32), min_size=len(rows), max_size=len(rows)))
    return pa.table({"x": pa.array(rows, _TYPE), "y": pa.array(numbers, pa.float32())})


def of_table(table):
    running = Fingerprint()
    running.update(table)
    return running.hexdigest()


@given(tables_(), st.integers(0, 12), st.integers(0, 12))
def test_a_fingerprint_does_not_depend_on_batches_or_offsets(table, cut, skip):
    whole = of_table(table)
    running = Fingerprint()
    running.update(table.slice(0, cut))
    running.update(table.slice(cut))
    assert running.hexdigest() == whole
    padded = pa.concat_tables([table.slice(0, min(skip, len(table))), table]).combine_chunks()
    assert of_table(padded.slice(min(skip, len(table)))) == whole


@given(tables_(), tables_())
def test_different_rows_have_different_fingerprints(one, two):
    same = one.to_pydict() == two.to_pydict() or one.equals(two) or str(one.to_pylist()) == str(two.to_pylist())
    assert (of_table(one) == of_table(two)) == same


def test_picture_bytes_count_by_their_hash(jpeg):
    schema = tables.TABLES["images"].schema
    rows = pa.Table.from_pylist([image_row(0, jpeg())], schema=schema)
    other = pa.Table.from_pylist([image_row(0, jpeg()) | {"sha256": "00" * 32}], schema=schema)
    digests = {"image.bytes": "sha256"}
    assert of_table(rows) != of_table(other)
    fingerprints = []
    for table in (rows, other):
        running = Fingerprint(digests)
        running.update(table)
        fingerprints.append(running.hexdigest())
    assert fingerprints[0] != fingerprints[1]


# -- commit --------------------------------------------------------------------------------------------------------


def test_nothing_is_lost_silently(dataset):
    with pytest.raises(AssertionError, match="do not add up"):
        with UnitWriter(dataset.folder, UnitKey("ingest", "u-2", "folder.x")) as out:
            out.expect("image", 3)
            out.keep("image")
            out.reject("image", "folder/x", "truncated")
    dataset.refresh()
    assert "u-2" not in dataset.units()


def test_reasons_are_a_closed_list(dataset):
    with pytest.raises(KeyError, match="not a reason"):
        with UnitWriter(dataset.folder, UnitKey("ingest", "u-2", "k")) as out:
            out.reject("image", "x", "because")
    with pytest.raises(KeyError, match="not a way to fail"):
        with UnitWriter(dataset.folder, UnitKey("ingest", "u-2", "k")) as out:
            out.fail("image", "x", "truncated")


def test_a_stage_writes_its_own_tables_only(dataset):
    with pytest.raises(KeyError, match="does not write"):
        with UnitWriter(dataset.folder, UnitKey("measure", "u-0", "k")) as out:
            out.add("images", {})


def test_an_error_leaves_no_trace_and_a_second_try_commits(dataset, jpeg):
    with pytest.raises(RuntimeError), UnitWriter(dataset.folder, UnitKey("ingest", "u-2", "k")) as out:
        out.add("images", image_row(99, jpeg()), weight=10**9)
        raise RuntimeError
    assert not [name for name in dataset.folder.names("images") if "u-2" in name]
    write_unit(dataset, "u-2", [jpeg(seed=50)], start=50)
    assert dataset.units() == ["u-0", "u-1", "u-2"]


def test_the_same_rows_are_the_same_bytes(tmp_path, jpeg):
    made = []
    for name in ("a", "b"):
        one = Dataset(str(tmp_path / name), create=True)
        write_unit(one, "u", [jpeg(seed=seed) for seed in range(6)])
        made.append({file.path: file.sha256 for file in one.manifests("ingest")["u"].files})
        made.append(one.folder.read("manifests/ingest/u.json"))
    assert made[0] == made[2]
    assert made[1] == made[3]


def test_what_no_manifest_names_is_garbage(dataset):
    dataset.folder.write("images/unit-stray-000.parquet", b"x")
    dataset.folder.write("ledger/ingest/unit-stray-000.parquet", b"x")
    dataset.folder.write("samples/train/unit-stray-000.parquet", b"x")
    (tmp := dataset.folder.at("images/unit-u-9-000.parquet.77.partial")) and open(tmp, "wb").close()
    assert len(collect_garbage(dataset)) == 4
    assert collect_garbage(dataset) == []
    assert verify(dataset).sound


def test_verify_finds_what_is_changed_behind_its_back(dataset):
    assert verify(dataset).sound
    for path, change, message in (
        ("manifests/ingest/u-0.json", lambda text: text.replace('"truncated": 1', '"truncated": 2'), "add up"),
        ("manifests/ingest/u-0.json", lambda text: text.replace('"truncated": 1', '"bad_mask": 1'), "ledger"),
        (
            "manifests/ingest/u-0.json",
            lambda text: text.replace('"kept": 5', '"kept": 4').replace('"input": 7', '"input": 6'),
            "hold 5",
        ),
    ):
        before = dataset.folder.read(path)
        dataset.folder.write(path, change(before.decode()).encode())
        assert dataset.folder.read(path) != before
        assert message in " ".join(verify(dataset).problems)
        dataset.folder.write(path, before)
    assert verify(dataset).sound
    dataset.folder.remove(dataset.manifests("ingest")["u-1"].files[0].path)
    assert any("u-1" in problem for problem in verify(dataset).problems)


def test_verify_finds_an_id_that_stands_twice(dataset, jpeg):
    write_unit(dataset, "u-2", [jpeg(seed=3)], start=3)
    assert any("stands 2 times" in problem for problem in verify(dataset).problems)


def test_another_version_is_a_clear_error(dataset):
    index = json.loads(dataset.folder.read("dataset.json"))
    dataset.folder.write("dataset.json", json.dumps(index | {"version": 99}).encode())
    with pytest.raises(Refused, match="version 99"):
        Dataset(dataset.url)
    dataset.folder.write("dataset.json", json.dumps(index).encode())
    manifest = json.loads(dataset.folder.read("manifests/ingest/u-0.json"))
    dataset.folder.write("manifests/ingest/u-0.json", json.dumps(manifest | {"version": 99}).encode())
    with pytest.raises(Refused, match="version 99"):
        Dataset(dataset.url).units()


def test_a_folder_that_is_no_dataset_is_refused(tmp_path):
    with pytest.raises(Refused, match="no refloom dataset"):
        Dataset(str(tmp_path))
    (tmp_path / "thesis.doc").write_text("x")
    with pytest.raises(Refused, match="not empty"):
        Dataset(str(tmp_path), create=True)
    assert sorted(os.listdir(tmp_path)) == ["thesis.doc"]


def test_paths_in_manifests_and_links_cannot_leave_the_folder(dataset):
    manifest = json.loads(dataset.folder.read("manifests/ingest/u-0.json"))
    manifest["files"][0]["path"] = "images/../../../etc/passwd"
    dataset.folder.write("manifests/ingest/u-0.json", json.dumps(manifest).encode())
    dataset.refresh()
    with pytest.raises(Refused, match="leaves the folder"):
        dataset.read("images", unit="u-0")
    dataset.index["roots"] = {"r": "/tmp"}
    with pytest.raises(Refused, match="leaves the folder"):
        dataset.picture({"image": None, "link": {"root": "r", "file": "../etc/passwd", "offset": 0, "length": 10}})


def test_settings_that_differ_are_named():
    old, new = {"a.b": 1, "c": [1, 2], "d": None}, {"a.b": 2, "c": [1, 2], "e": 3}
    assert differing(old, new) == ["a.b: 1 -> 2", "e: None -> 3"]


def test_manifest_round_trip(dataset):
    manifest = dataset.manifests("ingest")["u-0"]
    assert Manifest.from_json(manifest.to_json(), "x") == manifest
    with pytest.raises(Refused, match="is not a manifest"):
        Manifest.from_json(b'{"version": 1}', "x.json")


# -- lease ---------------------------------------------------------------------------------------------------------

_HOLD = """
import sys, time
from refloom.schemas.lease import Lease
from refloom.schemas.storage import Folder
with Lease(Folder(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_writer_is_refused_until_the_first_is_gone(tmp_path):
    folder = Folder(str(tmp_path))
    first = subprocess.Popen([sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline() == "held\n"
    with pytest.raises(Refused, match=f"process {first.pid}"), Lease(folder):
        pass
    first.kill()
    first.wait()
    with Lease(folder) as lease:
        assert lease.is_held()
    assert not folder.exists("runs/lease.json")


def test_a_silent_holder_loses_the_lease_and_notices(tmp_path):
    folder = Folder(str(tmp_path))
    with Lease(folder, heartbeat_s=0.05) as first:
        holder = json.loads(folder.read("runs/lease.json"))
        folder.write("runs/lease.json", json.dumps(holder | {"beat": 0, "host": "elsewhere"}).encode())
        with Lease(folder) as second:
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline:
                try:
                    first.check()
                except JobStopped:
                    break
                time.sleep(0.02)
            else:
                pytest.fail("the first writer never noticed")
            assert second.is_held()


def test_structs_of_older_files_have_the_fields_that_came_since_as_nulls(tmp_path):
    inner = pa.struct([pa.field("a", pa.int32()), pa.field("more", pa.list_(pa.struct([pa.field("b", pa.string())])))])
    then = pa.schema([pa.field("id", pa.string()), pa.field("parts", pa.list_(pa.struct([pa.field("a", pa.int32())])))])
    now = pa.schema([pa.field("id", pa.string()), pa.field("parts", pa.list_(inner)), pa.field("new", pa.float32())])
    rows = pa.Table.from_pylist([{"id": "x", "parts": [{"a": 1}, None]}, {"id": "y", "parts": None}], then)
    filled = parquet.filled(rows, now)
    assert filled.schema.equals(now)
    assert filled.to_pylist() == [
        {"id": "x", "parts": [{"a": 1, "more": None}, None], "new": None},
        {"id": "y", "parts": None, "new": None},
    ]
    assert parquet.filled(rows.select(["parts"]), now, ["parts"]).column_names == ["parts"]
    # a type that differs in anything else is left for whoever checks it
    other = rows.set_column(1, "parts", pa.array([[{"a": "1"}], None]))
    assert parquet.filled(other, now, ["parts"]).schema.field("parts").type == other.schema.field("parts").type
