"""Status: the shape of its json, the four states of a stage, and that nothing is lost between input and outcome."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import curatedata
import pyarrow.parquet as pq
import pytest
from helpers import HERE, image_ids, ingest, write_coco, write_ytvis

from refloom import cli
from refloom.curation.annotate.settings import Models
from refloom.curation.config import Curation
from refloom.curation.job import curate
from refloom.curation.select.settings import Select
from refloom.ingest.sources.coco import Coco
from refloom.ingest.sources.ytvis import YouTubeVis
from refloom.schemas.dataset import STAGES, Dataset
from refloom.schemas.reasons import FAILED, REJECTED

NO_MODELS = Curation(
    models=Models(face="none", image_embedding="none", classifier="none"),
    select=Select(min_area_share=0.01, min_quality=0.35),  # made pictures were never judged
)
WITHOUT_MODELS = ("measure", "mask", "quality", "dedup", "select", "match", "group", "split", "balance", "compose")
OVER_ALL = ("dedup", "match", "split", "balance")

Status = Callable[[Path], dict[str, Any]]


@pytest.fixture
def status(capsys) -> Iterator[Status]:
    """`refloom status DATASET --json`."""

    def run(dataset: Path) -> dict[str, Any]:
        capsys.readouterr()
        assert cli.main(["status", str(dataset), "--json"]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return run


def states(found: dict[str, Any]) -> dict[str, str]:
    """Stage to state of those that are not absent."""
    return {name: entry["state"] for name, entry in found["stages"].items() if entry["state"] != "absent"}


def coco(root: Path) -> Coco:
    images, instances, _ = write_coco(root / "coco", 4, objects=4, size=(96, 80))
    return Coco(images=str(images), instances=str(instances), unit_size=2)


@pytest.fixture
def small(tmp_path) -> Path:
    """Two units of two pictures, curated without models."""
    out = tmp_path / "data"
    ingest(coco(tmp_path), out)
    curate(str(out), NO_MODELS, HERE)
    return out


def add_videos(root: Path, out: Path) -> None:
    annotations = write_ytvis(root / "videos", videos=1, frames=3, size=(96, 80))
    ingest(YouTubeVis(frames=str(root / "videos/JPEGImages"), annotations=str(annotations)), out)


# -- shape ---------------------------------------------------------------------------------------------------------


def test_the_json_has_the_documented_shape_and_nothing_else(status, tmp_path_factory):
    found = status(curatedata.curated(tmp_path_factory))
    assert list(found) == ["tables", "stages"]
    for entry in found["tables"].values():
        assert list(entry) == ["rows", "units", "fingerprint"]
        assert [type(entry[name]) for name in entry] == [int, int, str]
        assert len(entry["fingerprint"]) == 64
    assert list(found["stages"]) == list(STAGES)
    for entry in found["stages"].values():
        assert list(entry) == ["state", "items"]
        for counts in entry["items"].values():
            assert list(counts) == ["input", "kept", "rejected", "failed"]
            for reasons in (counts["rejected"], counts["failed"]):
                assert all(type(number) is int and number > 0 for number in reasons.values())


def test_rows_are_those_of_the_files(status, tmp_path_factory):
    out = curatedata.curated(tmp_path_factory)
    tables = status(out)["tables"]
    assert tables.keys() >= {"images", "objects", "faces", "embeddings", "selection", "groups", "splits", "samples"}
    for name, entry in tables.items():
        files = list((out / name).rglob("*.parquet"))
        assert entry["rows"] == sum(pq.ParquetFile(file).metadata.num_rows for file in files), name
        assert entry["units"] == 5


def test_input_is_kept_plus_rejected_plus_failed_in_every_entry(status, tmp_path):
    """With a picture that is none, one that is gone, one that does not decode, and an annotation without a mask."""
    source = coco(tmp_path)
    pictures = tmp_path / "coco/val2017"
    (pictures / "000000000001.jpg").write_bytes(b"no picture")
    (pictures / "000000000002.jpg").unlink()
    whole = (pictures / "000000000003.jpg").read_bytes()
    start = whole.index(b"\xff\xda")
    (pictures / "000000000003.jpg").write_bytes(whole[: start + 14] + b"\xff\xd8" * 40 + b"\xff\xd9")
    document = json.loads((tmp_path / "coco/instances_val2017.json").read_text())
    document["annotations"][-1]["segmentation"] = {"size": [80, 96], "counts": "xx"}
    (tmp_path / "coco/instances_val2017.json").write_text(json.dumps(document))
    out = tmp_path / "data"
    ingest(source, out)
    curate(str(out), NO_MODELS, HERE)
    found = status(out)
    assert found["stages"]["ingest"]["items"]["image"]["rejected"]["not_an_image"] == 1
    assert found["stages"]["ingest"]["items"]["image"]["failed"] == {"missing_file": 1}
    assert found["stages"]["ingest"]["items"]["annotation"]["rejected"]["bad_mask"] == 1
    assert set(states(found)) == {"ingest", *WITHOUT_MODELS}
    for stage, entry in found["stages"].items():
        for kind, counts in entry["items"].items():
            outcome = counts["kept"] + sum(counts["rejected"].values()) + sum(counts["failed"].values())
            assert counts["input"] == outcome, f"{stage} {kind}"
            assert set(counts["rejected"]) <= set(REJECTED)
            assert set(counts["failed"]) <= set(FAILED)


def test_what_a_stage_takes_in_is_what_the_one_before_kept(status, tmp_path_factory):
    found = status(curatedata.curated(tmp_path_factory))
    stages, tables = found["stages"], found["tables"]
    for stage in ("measure", "face", "split"):
        assert stages[stage]["items"]["image"]["input"] == stages["ingest"]["items"]["image"]["kept"], stage
    for stage in ("embed", "quality", "select"):
        assert stages[stage]["items"]["object"]["input"] == tables["objects"]["rows"], stage
    samples = stages["compose"]["items"]
    assert sum(counts["kept"] for counts in samples.values()) == tables["samples"]["rows"]


def test_people_are_shown_the_same(status, small, capsys):
    found = status(small)
    assert cli.main(["status", str(small)]) == 0
    shown = capsys.readouterr().out
    for name, entry in found["tables"].items():
        assert f"{name:14} {entry['rows']:>12,} rows {entry['units']:>6} units  {entry['fingerprint'][:16]}" in shown
    assert [text[:-6] for text in shown.splitlines() if text.endswith(": done")] == ["ingest", *WITHOUT_MODELS]
    assert "face" not in shown.replace("faces_blurred", "")


# -- states --------------------------------------------------------------------------------------------------------


def test_before_curation_every_stage_but_ingest_is_absent(status, tmp_path):
    ingest(coco(tmp_path), tmp_path / "data")
    found = status(tmp_path / "data")
    assert states(found) == {"ingest": "done"}
    assert list(found["tables"]) == ["images", "objects", "source_groups"]
    assert found["stages"]["compose"] == {"state": "absent", "items": {}}


def test_after_curation_every_stage_with_a_model_is_done(status, small, tmp_path_factory):
    assert states(status(small)) == dict.fromkeys(["ingest", *WITHOUT_MODELS], "done")
    with_models = status(curatedata.curated(tmp_path_factory))
    assert states(with_models) == dict.fromkeys(["ingest", *curatedata.STAGES], "done")


def test_one_stage_alone_is_done_and_the_others_absent(status, tmp_path):
    ingest(coco(tmp_path), tmp_path / "data")
    curate(str(tmp_path / "data"), NO_MODELS, HERE, only="measure")
    assert states(status(tmp_path / "data")) == {"ingest": "done", "measure": "done"}


def test_a_unit_that_came_later_makes_stages_partial_and_those_over_the_whole_dataset_stale(status, small, tmp_path):
    add_videos(tmp_path, small)
    before = states(status(small))
    assert before == dict.fromkeys(WITHOUT_MODELS, "partial") | dict.fromkeys(OVER_ALL, "stale") | {"ingest": "done"}
    curate(str(small), NO_MODELS, HERE, only="measure")
    assert states(status(small)) == before | {"measure": "done"}
    curate(str(small), NO_MODELS, HERE)
    assert set(states(status(small)).values()) == {"done"}


def test_a_unit_that_was_taken_in_again_makes_what_follows_stale_until_it_is_curated_again(status, tmp_path):
    source, out = coco(tmp_path), tmp_path / "data"
    picture = tmp_path / "coco/val2017/000000000003.jpg"
    picture.rename(tmp_path / "away.jpg")
    ingest(source, out)
    curate(str(out), NO_MODELS, HERE)
    found = status(out)
    assert found["stages"]["ingest"]["items"]["image"]["failed"] == {"missing_file": 1}
    assert set(states(found).values()) == {"done"}, "a failed row does not make a stage unfinished"

    (tmp_path / "away.jpg").rename(picture)
    ingest(source, out, retry_failed=True)
    found = status(out)
    assert found["stages"]["ingest"]["items"]["image"]["failed"] == {}
    assert states(found) == dict.fromkeys(WITHOUT_MODELS, "stale") | {"ingest": "done"}

    curate(str(out), NO_MODELS, HERE)
    assert set(states(status(out)).values()) == {"done"}
    fresh = tmp_path / "fresh"
    ingest(source, fresh)
    curate(str(fresh), NO_MODELS, HERE)
    assert status(out) == status(fresh)
    assert "coco/000000000003" in image_ids(Dataset(str(out)))
