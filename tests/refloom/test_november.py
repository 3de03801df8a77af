"""A dataset and a run that were made by refloom of November 2026, before its folders moved, open, go on and end alike.

`tests/golden/november_2026` holds, as they were written then: `dataset.tar.gz`, six COCO pictures ingested in two units
and curated until `quality`; `whole.tar.gz`, the same curated to the end; `run.tar.gz`, four steps of debug/ip_adapter
on the samples of `data.tar.gz`. `settings.yaml` is what was the default then.
"""

import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import traindata
from places import GOLDEN

from refloom import cli
from refloom.schemas.dataset import STAGES, Dataset
from refloom.schemas.status import stage_state
from refloom.schemas.verify import verify
from refloom.training.run import log

NOVEMBER = GOLDEN / "november_2026"
LOSSES = {5: 1.107032060623169, 6: 1.1358540058135986}
"""Of the steps after the four of the run, as they were in November."""


def unpacked(name: str, place: Path) -> None:
    with tarfile.open(NOVEMBER / f"{name}.tar.gz") as tar:
        tar.extractall(place, filter="data")


def stale(dataset: Dataset) -> list[str]:
    return [stage for stage in STAGES if stage_state(dataset, stage) == "stale"]


def as_of(value: Any, kind: pa.DataType) -> Any:
    """A value without the fields that its type did not have then."""
    if value is not None and pa.types.is_struct(kind):
        return {field.name: as_of(value[field.name], field.type) for field in kind}
    if value is not None and pa.types.is_list(kind):
        return [as_of(item, kind.value_type) for item in value]
    return value


def samples_as_of(dataset: Dataset, schema: pa.Schema) -> list[dict[str, Any]]:
    """Samples with the columns of a schema."""
    rows = dataset.read("samples").to_pylist()
    return [{field.name: as_of(row[field.name], field.type) for field in schema} for row in rows]


def without_qualities(row: dict[str, Any]) -> tuple[dict[str, Any], list[float]]:
    """A sample without the qualities of what it shows, and these."""
    qualities = [row["scores"].pop("min_quality")]
    qualities += [seen.pop("quality") for subject in row["subjects"] for seen in subject["appearances"]]
    return row, qualities


def test_a_dataset_opens(tmp_path, call):
    unpacked("whole", tmp_path)
    dataset = Dataset(str(tmp_path / "whole"))
    assert verify(dataset, decode_per_unit=9).sound
    assert stale(dataset) == []
    assert dataset.table_summary()["samples"]["rows"] == 6
    assert len(dataset.read("objects")) == 12
    assert call("report", dataset.url).code == 0
    assert (tmp_path / "whole" / "report.html").stat().st_size > 10_000


def test_a_half_curated_dataset_goes_on_to_the_rows_of_then(tmp_path):
    unpacked("dataset", tmp_path)
    unpacked("whole", tmp_path)
    now, then = Dataset(str(tmp_path / "dataset")), Dataset(str(tmp_path / "whole"))
    before = {unit: manifest.fingerprint for unit, manifest in now.manifests("measure").items()}
    # stages that have another version since are done again, and say so without --replace
    assert cli.main(["curate", now.url, "--workers", "0"]) == 2
    then_settings = ["--replace", "--config", str(NOVEMBER / "settings.yaml")]
    assert cli.main(["curate", now.url, "--workers", "0", *then_settings]) == 0
    now = Dataset(now.url)
    assert {unit: manifest.fingerprint for unit, manifest in now.manifests("measure").items()} == before
    manifest = next(one for one in then.manifests("compose").values() if one.tables["samples/train"].rows)
    with then.opened("samples", manifest.files_of("samples/train")[0].path) as reader:
        schema = reader.schema_arrow
    assert "target" not in schema.names
    # a quality is made of stored components now, which have 24 bits; all else is the same to the bit
    made, held = ([without_qualities(row) for row in samples_as_of(one, schema)] for one in (now, then))
    assert [row for row, _ in made] == [row for row, _ in held]
    for (_, ours), (_, theirs) in zip(made, held, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-7)


def test_a_run_goes_on_to_the_losses_of_then(tmp_path, monkeypatch):
    unpacked("run", tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run4").rename(tmp_path / "run")
    traindata.write_models(tmp_path / "models")
    unpacked("data", tmp_path)
    words = ["train", "--config", "debug/ip_adapter", "--out", "run", "--resume", "latest", "--set", "steps=6"]
    words += ["--set", "checkpoints.every=2", "--set", "checkpoints.keep_last=1", "--set", "log_every=1"]
    for setting in traindata.settings("ip_adapter", Path("models"), "data"):
        words += ["--set", setting]
    assert cli.main(words) == 0
    losses = {line["step"]: line["loss"] for line in log.read(tmp_path / "run")}
    assert {step: losses[step] for step in LOSSES} == pytest.approx(LOSSES, rel=1e-4)


def test_a_dataset_is_published_with_the_columns_of_now(tmp_path, call):
    unpacked("whole", tmp_path)
    assert call("publish", tmp_path / "whole", tmp_path / "published").code == 0
    assert call("verify", tmp_path / "published").code == 0
    rows = [
        row
        for file in (tmp_path / "published").glob("data/samples/*.parquet")
        for row in pq.read_table(file).to_pylist()
    ]
    assert len(rows) == 6
    assert all(row["target"] is None and row["subjects"][0]["identity"] is None for row in rows)
