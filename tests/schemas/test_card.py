"""What others read of a curated dataset, and what verify finds once somebody has changed it."""

import hashlib
import json
from pathlib import Path

import curatedata
import duckdb
import numpy as np
import polars
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from refloom.curation.annotate.settings import Quality
from refloom.schemas import masks, tables
from refloom.schemas.card import readme
from refloom.schemas.dataset import Dataset
from refloom.schemas.manifest import Manifest
from refloom.schemas.unit import UnitKey, UnitWriter
from refloom.schemas.verify import verify

TRAIN = "coco.instances_train2017-00000"


@pytest.fixture
def curated(tmp_path_factory) -> Dataset:
    return Dataset(str(curatedata.curated(tmp_path_factory)))


@pytest.fixture
def changed(tmp_path_factory, tmp_path) -> Dataset:
    """A copy to damage."""
    return Dataset(str(curatedata.copy(curatedata.curated(tmp_path_factory), tmp_path)))


def card(dataset: Dataset) -> dict:
    text = dataset.folder.read("README.md").decode()
    _, header, body = text.split("---\n", 2)
    assert body.lstrip().startswith("# ")
    return yaml.safe_load(header)


def at(dataset: Dataset, path: str) -> Path:
    return Path(dataset.folder.at(path))


# -- the card ------------------------------------------------------------------------------------------------------


def test_the_cards_default_config_is_samples_and_every_table_with_rows_has_one(curated):
    header = card(curated)
    assert [config["config_name"] for config in header["configs"] if config.get("default")] == ["samples"]
    with_rows = {name for name, entry in curated.table_summary().items() if entry["rows"]}
    assert {config["config_name"] for config in header["configs"]} == with_rows
    assert [info["config_name"] for info in header["dataset_info"]] == [
        config["config_name"] for config in header["configs"]
    ]


def test_every_file_that_the_card_names_is_there(curated):
    for config in card(curated)["configs"]:
        rows = 0
        for part in config["data_files"]:
            files = list(Path(curated.url).glob(part["path"]))
            assert files, part
            rows += sum(pq.ParquetFile(file).metadata.num_rows for file in files)
        assert rows == curated.table_summary()[config["config_name"]]["rows"]


def test_before_compose_the_default_config_is_images(tmp_path_factory):
    header = card(Dataset(str(curatedata.ingested(tmp_path_factory))))
    assert [config["config_name"] for config in header["configs"] if config.get("default")] == ["images"]


def test_the_card_says_what_quality_is_made_of_and_on_what_that_was_fitted(curated, tmp_path_factory):
    text = at(curated, "README.md").read_text()
    part = text.partition("## Quality")[2].partition("## Licenses")[0]
    assert "`area_px`, " in part
    assert "`sharpness` (weight 0.5)" in part
    assert "`covered_share` where it is known" in part
    assert Quality().fitted_on in part
    assert "## Quality" not in readme(Dataset(str(curatedata.ingested(tmp_path_factory))))


# -- other readers -------------------------------------------------------------------------------------------------


@pytest.fixture
def load(monkeypatch, tmp_path):
    """`datasets.load_dataset` without a network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from datasets import load_dataset

    return lambda dataset, **more: load_dataset(dataset.url, cache_dir=str(tmp_path / "cache"), **more)


def test_load_dataset_gives_samples_by_split_with_pictures(curated, load):
    loaded = load(curated)
    assert set(loaded) == {"train", "validation"}
    assert sum(part.num_rows for part in loaded.values()) == curated.table_summary()["samples"]["rows"]
    for part in loaded.values():
        for row in part:
            assert all(isinstance(picture, Image.Image) for picture in row["images"])
            assert [picture.size for picture in row["images"]] == [
                (picture["width"], picture["height"]) for picture in row["pictures"]
            ]
            for subject in row["subjects"]:
                assert {appearance["picture"] for appearance in subject["appearances"]} <= set(
                    range(len(row["images"]))
                )


def test_load_dataset_gives_every_table_by_name(curated, load):
    for name, entry in curated.table_summary().items():
        if entry["rows"] and name != "samples":
            assert load(curated, name=name)["train"].num_rows == entry["rows"], name
    images = load(curated, name="images")["train"]
    assert isinstance(images[0]["image"], Image.Image)
    assert images[0]["image"].size == (images[0]["width"], images[0]["height"])
    assert isinstance(load(curated, name="faces")["train"][0]["crop"], Image.Image)


def test_duckdb_counts_samples_and_opens_nested_fields(curated):
    files = f"{curated.url}/samples/*/*.parquet"
    counted = dict(duckdb.sql(f"select kind, count(*) from '{files}' group by kind").fetchall())
    expected = {kind: counts.kept for kind, counts in curated.counts("compose").items() if counts.kept}
    assert counted == expected
    nested = duckdb.sql(
        f"""select s.subject_id, a.object_id, a.box[3], a.mask.counts
            from (select unnest(subjects) as s from '{files}'), unnest(s.appearances) as t(a)"""
    ).fetchall()
    kept = {row["object_id"] for row in curated.read("selection").to_pylist() if row["verdict"] == "keep"}
    assert {row[1] for row in nested if row[1] is not None} == kept


def test_polars_reads_samples_and_their_nested_fields(curated):
    rows = curated.table_summary()["samples"]["rows"]
    frame = (
        polars.scan_parquet(f"{curated.url}/samples/*/*.parquet").select("sample_id", "subjects", "scores").collect()
    )
    assert frame.height == rows
    subjects = frame.explode("subjects").unnest("subjects")
    assert subjects["subject_id"].null_count() == 0
    assert subjects["appearances"].list.len().min() >= 1
    assert frame["scores"].struct.field("min_quality").null_count() == 0
    scores = polars.scan_parquet(f"{curated.url}/object_scores/*.parquet").select("quality").collect()
    assert scores.height == curated.table_summary()["object_scores"]["rows"]


def test_croissant_names_every_table_with_rows_every_column_and_every_file_with_its_hash(curated):
    document = json.loads(curated.folder.read("croissant.json"))
    assert document["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    sets = {entry["name"]: entry for entry in document["recordSet"]}
    # a table without rows has no file: a reader of its record set would have nothing to open
    assert sets.keys() == {name for name, entry in curated.table_summary().items() if entry["rows"]}
    for name, entry in sets.items():
        assert [field["name"] for field in entry["field"]] == tables.TABLES[name].schema.names
    files = {entry["@id"]: entry for entry in document["distribution"] if entry["@type"] == "cr:FileObject"}
    assert files.keys() == {path for path in curatedata.contents(Path(curated.url)) if path.endswith(".parquet")}
    for path, entry in files.items():
        data = at(curated, path).read_bytes()
        assert entry["sha256"] == hashlib.sha256(data).hexdigest()
        assert entry["contentSize"] == f"{len(data)} B"
    filesets = {entry["@id"] for entry in document["distribution"] if entry["@type"] == "cr:FileSet"}
    assert {field["source"]["fileSet"]["@id"] for entry in sets.values() for field in entry["field"]} == filesets


# -- verify --------------------------------------------------------------------------------------------------------


def test_verify_passes_and_has_looked_at_everything(curated):
    findings = verify(curated, decode_per_unit=-1)
    assert findings.problems == []
    rows = {name: entry["rows"] for name, entry in curated.table_summary().items()}
    assert findings.checked["pictures decoded"] == findings.checked["pictures hashed"] == rows["images"]
    assert findings.checked["samples"] == rows["samples"]
    assert findings.checked["objects against pictures"] == rows["objects"]
    assert findings.checked["files"] == len(list(Path(curated.url).rglob("*.parquet")))


@pytest.mark.parametrize("table", ["images", "objects", "embeddings", "selection", "samples", "ledger/face"])
def test_verify_finds_one_flipped_byte_in_any_table(changed, table):
    path = next(iter(sorted(at(changed, table).rglob("*.parquet"))))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    problems = verify(changed).problems
    assert problems
    unit = path.name.removeprefix("unit-").rsplit("-", 1)[0]
    assert any(unit in problem for problem in problems)


def test_verify_finds_a_ledger_that_is_gone(changed):
    path = next(iter(sorted(at(changed, "ledger/face").glob("*.parquet"))))
    path.unlink()
    assert any(path.name in problem for problem in verify(changed).problems)


@pytest.mark.parametrize(
    "stage", [name for name in (*curatedata.STAGES, "ingest") if name not in ("mask", "match", "balance")]
)
def test_verify_finds_counts_that_were_changed_though_they_add_up(changed, stage):
    path = at(changed, Manifest.path(stage, "ytvis.instances-00000"))
    manifest = json.loads(path.read_text())
    kind = next(kind for kind, counts in sorted(manifest["items"].items()) if counts["input"])
    manifest["items"][kind]["input"] += 1
    manifest["items"][kind]["kept"] += 1
    path.write_text(json.dumps(manifest))
    problems = verify(changed, decode_per_unit=0).problems
    assert any(f"{stage}/ytvis.instances-00000: {kind} items" in problem for problem in problems), problems


def write_again(dataset: Dataset, unit: str, objects: list[dict]) -> None:
    """Commit an ingested unit with other objects; files, counts and fingerprints are right for what it then holds."""
    old = dataset.manifests("ingest")[unit]
    images = dataset.read("images", unit=unit).to_pylist()
    key = UnitKey("ingest", unit, old.key, old.config, old.source, old.stage_version, roots=old.roots)
    with UnitWriter(dataset.folder, key) as out:
        for kind, counts in old.items.items():
            assert counts.kept == counts.input
            out.expect(kind, counts.input)
            out.keep(kind, counts.kept)
        for row in images:
            out.add("images", row, weight=len(row["image"]["bytes"]))
        for row in objects:
            out.add("objects", row)
    dataset.refresh()


def test_verify_finds_a_mask_that_was_moved_against_its_box(changed):
    """Hashes, counts and area are those of the moved mask, so that only the comparison with the box can tell."""
    objects = changed.read("objects", unit=TRAIN).to_pylist()
    write_again(changed, TRAIN, objects)
    assert verify(changed).problems == []
    row = next(row for row in objects if row["box"][2] < 0.7 * row["mask"]["size"][1])
    shape = masks.decode(row["mask"])
    moved = np.zeros_like(shape)
    moved[:, 40:] = shape[:, :-40]
    assert moved.sum() == shape.sum() == row["area"]
    row["mask"] = masks.encode(moved)
    write_again(changed, TRAIN, objects)
    assert verify(changed).problems == [f"{row['object_id']}: its box does not fit its mask"]


def test_verify_finds_a_box_outside_its_picture_and_an_area_that_is_not_that_of_the_mask(changed):
    objects = changed.read("objects", unit=TRAIN).to_pylist()
    objects[0]["area"] += 1
    objects[1]["box"] = [0.0, 0.0, 10_000.0, 10.0]
    write_again(changed, TRAIN, objects)
    problems = " ".join(verify(changed).problems)
    assert f"{objects[0]['object_id']}: area {objects[0]['area']} but the mask has" in problems
    assert f"{objects[1]['object_id']}: its box [0.0, 0.0, 10000.0, 10.0] leaves the picture" in problems


def test_verify_finds_scores_of_an_object_that_is_not_there(changed):
    objects = changed.read("objects", unit=TRAIN).to_pylist()
    gone = objects.pop()
    old = changed.manifests("ingest")[TRAIN]
    old.items["annotation"].input = old.items["annotation"].kept = len(objects)
    write_again(changed, TRAIN, objects)
    problems = verify(changed).problems
    for table in ("embeddings", "object_scores", "selection"):
        assert f"{table}: object_id {gone['object_id']} is not in objects" in problems
