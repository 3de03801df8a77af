"""What reads datasets and publications beside us: mlcroissant, and `datasets` of several majors."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from curatedata import curated
from publishing import ALL, publishable

from refloom.schemas import tables
from refloom.schemas.dataset import Dataset
from refloom.schemas.features import with_features
from refloom.sharing.publish.options import Publish
from refloom.sharing.publish.publication import publish


@pytest.fixture
def places(tmp_path_factory) -> list[Path]:
    """A dataset with faces, one without, and three publications; not to be changed."""
    made = publishable(tmp_path_factory)
    root = tmp_path_factory.getbasetemp() / "readers"
    if not root.exists():
        publish(Dataset(str(made)), str(root / "all"), ALL)
        publish(Dataset(str(made)), str(root / "bare"), Publish(images=False))
        faces = Dataset(str(curated(tmp_path_factory)))
        licenses = {row["license"] or "none" for row in faces.read("images", ["license"]).to_pylist()}
        options = Publish(tables=("all",), accept_licenses=tuple(licenses), face_embeddings=True)
        publish(faces, str(root / "faces"), options)
    return [made, curated(tmp_path_factory), root / "all", root / "bare", root / "faces"]


def words(value: Any) -> set[str]:
    """All texts in a json value."""
    if isinstance(value, dict):
        return set().union(*(words(inner) for inner in value.values()), value.keys())
    if isinstance(value, list):
        return set().union(*(words(inner) for inner in value))
    return {value} if isinstance(value, str) else set()


# -- datasets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", sorted(tables.TABLES))
def test_features_are_in_the_words_of_datasets_3(table):
    """`List` came with 4, which still reads what 3 wrote."""
    schema = with_features(tables.TABLES[table].schema)
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert {word for word in words(features) if word[:1].isupper()} <= {"Value", "Sequence", "Image"}


@pytest.mark.filterwarnings("ignore")
def test_datasets_reads_every_config_and_every_file(places, tmp_path):
    datasets = pytest.importorskip("datasets", reason="the package `datasets` is not installed")
    for place in places:
        header = yaml.safe_load((place / "README.md").read_text().split("---")[1])
        for config in header["configs"]:
            loaded = datasets.load_dataset(str(place), config["config_name"], cache_dir=str(tmp_path / "cache"))
            told = {one["config_name"]: one["features"] for one in header["dataset_info"]}[config["config_name"]]
            for part in loaded.values():
                assert part.column_names == [one["name"] for one in told]
                assert part[0].keys() == set(part.column_names)
        for path in sorted(place.rglob("*.parquet")):
            loaded = datasets.load_dataset("parquet", data_files=[str(path)], cache_dir=str(tmp_path / "cache"))
            assert len(loaded["train"]) == pq.read_metadata(path).num_rows
            assert loaded["train"][0]


# -- mlcroissant -----------------------------------------------------------------------------------------------------


def documents(places) -> list[tuple[Path, dict[str, Any]]]:
    return [(place, json.loads((place / "croissant.json").read_text())) for place in places]


def test_a_record_set_has_files_that_its_pattern_finds_in_the_folder(places):
    for place, document in documents(places):
        sets = {one["@id"]: one for one in document["distribution"] if one["@type"] == "cr:FileSet"}
        for one in sets.values():
            assert "containedIn" not in one  # else it is looked for in a repository, and not in this folder
            assert list(place.glob(one["includes"]))
        assert {f"{one['@id']}-files" for one in document["recordSet"]} == sets.keys()
        files = {one["@id"] for one in document["distribution"] if one["@type"] == "cr:FileObject"}
        parquet = {str(path.relative_to(place)) for path in place.rglob("*.parquet")}
        assert files == parquet


def test_pictures_are_asked_for_by_their_bytes(places):
    seen = 0
    for _, document in documents(places):
        fields = [field for one in document["recordSet"] for field in one["field"]]
        while fields:
            field = fields.pop()
            fields += field.get("subField", [])
            if field.get("dataType") == "sc:ImageObject":
                assert field["source"]["transform"]["jsonPath"] == "$.bytes"
                seen += 1
    assert seen >= 5


def test_mlcroissant_yields_the_records_of_every_record_set(places, monkeypatch):
    reason = "mlcroissant is not installed: `pip install mlcroissant` in a test environment runs this"
    mlcroissant = pytest.importorskip("mlcroissant", reason=reason)
    for place in places:
        read = mlcroissant.Dataset(str(place / "croissant.json"))
        assert not read.metadata.ctx.issues.errors
        assert read.metadata.record_sets
        for record_set in read.metadata.record_sets:
            records = list(read.records(record_set.id))
            if (place / "dataset.json").exists():
                assert len(records) == Dataset(str(place)).table_summary()[record_set.id]["rows"]
            assert records
        (name,) = {one.id for one in read.metadata.record_sets} & {"images"} or {"samples"}
        first = next(iter(read.records(name)))
        assert first
