"""What reads a publication: datasets, duckdb and polars, people their card, machines croissant."""

import json
from pathlib import Path
from typing import Any

import duckdb
import polars
import pytest
import yaml
from curatedata import curated
from publishing import ALL, publishable, rows

from refloom.schemas.dataset import Dataset
from refloom.sharing.publish.options import Publish
from refloom.sharing.publish.publication import publish
from refloom.sharing.publish.rows import schema_of


@pytest.fixture
def made(tmp_path_factory) -> Path:
    """Not to be changed: the tests of publications share it."""
    return publishable(tmp_path_factory)


@pytest.fixture
def dataset(made) -> Dataset:
    return Dataset(str(made))


@pytest.mark.filterwarnings("ignore")
def test_datasets_duckdb_and_polars_read_it(dataset, tmp_path):
    import datasets

    out = tmp_path / "out"
    manifest = publish(dataset, str(out), ALL).manifest
    cache = str(tmp_path / "cache")
    loaded = datasets.load_dataset(str(out), cache_dir=cache)  # the default config
    train = loaded["train"]
    assert len(train) == manifest["rows"]["samples"]["train"]
    one = train[0]
    assert [image.size for image in one["images"]] == [(96, 80)] * len(one["pictures"])
    images = datasets.load_dataset(str(out), "images", split="train", cache_dir=cache)
    assert images[0]["image"].size == (96, 80)
    ((count,),) = duckdb.sql(f"select count(*) from '{out}/data/objects/*.parquet'").fetchall()
    assert count == manifest["rows"]["objects"]["train"]
    frame = polars.scan_parquet(f"{out}/data/images/*.parquet").select("image_id", "width").collect()
    assert frame.height == manifest["rows"]["images"]["train"]


@pytest.mark.filterwarnings("ignore")
def test_datasets_reads_a_publication_without_pictures(dataset, tmp_path):
    import datasets

    publish(dataset, str(tmp_path / "out"), Publish(images=False))
    loaded = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded[0]["images"] == [None] * len(loaded[0]["pictures"])


def test_the_card_says_what_a_reader_has_to_know(dataset, tmp_path):
    manifest = publish(dataset, str(tmp_path / "out"), ALL).manifest
    text = (tmp_path / "out/README.md").read_text()
    header = yaml.safe_load(text.split("---")[1])
    configs = {one["config_name"]: one for one in header["configs"]}
    assert configs["samples"]["default"]
    assert set(configs) == set(manifest["rows"])
    for one in header["dataset_info"]:
        counts = {split["name"]: split["num_examples"] for split in one["splits"]}
        assert counts == manifest["rows"][one["config_name"]]
    assert "| coco | CC BY 4.0 | 8 | yes | attribution |" in text
    assert "| ytvis | CC BY 2.0 | 12 | yes | attribution |" in text
    assert "min_quality" in text
    assert "--takedown" in text
    counts = dataset.counts("select")["object"]
    assert f"| select | object | {counts.input} | {counts.kept} |" in text
    assert "Personal data" not in text


def test_the_card_names_models_faces_and_blurring(tmp_path_factory, tmp_path):
    dataset = Dataset(str(curated(tmp_path_factory)))
    accepted = tuple({row["license"] or "none" for row in dataset.read("images", ["license"]).to_pylist()})
    publish(dataset, str(tmp_path / "out"), Publish(tables=("all",), accept_licenses=accepted))
    text = (tmp_path / "out/README.md").read_text()
    assert "| face | `yunet" in text
    assert "## Personal data" in text
    assert "Identity embeddings are left out" in text
    assert {row["embedding"] is None for row in rows(tmp_path / "out", "faces")} == {True}
    assert all(row["crop"]["bytes"] for row in rows(tmp_path / "out", "faces"))
    options = Publish(tables=("faces",), accept_licenses=accepted, face_embeddings=True)
    publish(dataset, str(tmp_path / "with"), options)
    assert all(len(row["embedding"]) == 128 for row in rows(tmp_path / "with", "faces"))


def test_croissant_is_complete_and_every_reference_in_it_leads_somewhere(dataset, tmp_path):
    manifest = publish(dataset, str(tmp_path / "out"), ALL).manifest
    document = json.loads((tmp_path / "out/croissant.json").read_text())
    assert document["conformsTo"] == ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"]
    for name in (
        "dataCollection",
        "machineAnnotationTools",
        "personalSensitiveInformation",
        "dataLimitations",
        "dataManipulationProtocol",
        "dataBiases",
        "dataUseCases",
        "dataReleaseMaintenancePlan",
    ):
        assert document[f"rai:{name}"]
    files = {one["@id"]: one for one in document["distribution"] if one["@type"] == "cr:FileObject"}
    for one in manifest["files"]:
        if one["path"].startswith("data/"):
            assert files[one["path"]]["sha256"] == one["sha256"]
            assert files[one["path"]]["contentSize"] == f"{one['bytes']} B"
    ids = {one["@id"] for one in document["distribution"]}
    seen: set[str] = set()

    def walk(field: dict[str, Any]) -> None:
        assert field["@id"] not in seen
        seen.add(field["@id"])
        assert field["source"]["fileSet"]["@id"] in ids
        assert ("dataType" in field) != ("subField" in field)
        for inner in field.get("subField", []):
            walk(inner)

    for record_set in document["recordSet"]:
        assert [one["@id"].split("/")[1] for one in record_set["field"]] == schema_of(record_set["@id"]).names
        for field in record_set["field"]:
            walk(field)
        assert record_set["key"]["@id"] in seen
