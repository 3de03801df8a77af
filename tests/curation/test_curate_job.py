"""A curation as a whole: what is due, what is refused, what a change of settings redoes, what a kill costs."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import curatedata
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from curatedata import SMALL, rewritten, small, stamps
from helpers import HERE, ingest, write_ytvis
from killing import killed

from refloom.curation.config import Curation
from refloom.curation.group.settings import Group
from refloom.curation.job import curate
from refloom.curation.select.settings import Select
from refloom.ingest.engine.pool import Pool
from refloom.ingest.sources.ytvis import YouTubeVis
from refloom.schemas import tables
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused
from refloom.schemas.verify import verify

DONE = ("measure", "mask", "quality", "dedup", "select", "match", "group", "split", "balance", "compose")


def videos(root: Path) -> YouTubeVis:
    annotations = write_ytvis(root / "videos", videos=2, frames=6, size=(96, 80))
    return YouTubeVis(frames=str(root / "videos/JPEGImages"), annotations=str(annotations), unit_size=1)


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """Three units of two pictures and two of one video, not curated."""
    root = tmp_path_factory.mktemp("raw")
    ingest(small(root), root / "data")
    ingest(videos(root), root / "data")
    return root / "data"


@pytest.fixture(scope="module")
def curated(raw, tmp_path_factory) -> Path:
    out = curatedata.copy(raw, tmp_path_factory.mktemp("curated"))
    curate(str(out), SMALL, HERE)
    return out


@pytest.fixture
def out(curated, tmp_path) -> Path:
    """A curated dataset to change."""
    return curatedata.copy(curated, tmp_path)


def selecting(**changes: Any) -> Curation:
    return replace(SMALL, select=replace(SMALL.select, **changes))


def done(dataset: Path) -> list[str]:
    return [stage for stage in curatedata.STAGES if Dataset(str(dataset)).manifests(stage)]


# -- other settings ------------------------------------------------------------------------------------------------


def test_other_settings_are_refused_by_name_and_nothing_changes(out):
    before = stamps(out)
    with pytest.raises(Refused, match=r"select was done with other settings \(select.max_aspect: 6.0 -> 3.0; ") as told:
        curate(str(out), selecting(min_quality=0.6, max_aspect=3.0), HERE)
    assert "select.min_quality: 0.1 -> 0.6" in str(told.value)
    assert "--replace" in str(told.value)
    assert "min_area_share" not in str(told.value)
    assert stamps(out) == before


def test_a_dry_run_refuses_what_the_run_would_refuse(out):
    with pytest.raises(Refused, match=r"select.min_quality: 0.1 -> 0.6"):
        curate(str(out), selecting(min_quality=0.6), HERE, dry_run=True)


def test_settings_of_a_stage_that_is_not_asked_for_do_not_matter(out):
    before = stamps(out)
    curate(str(out), replace(SMALL, group=Group(min_members=3)), HERE, until="select")
    assert stamps(out) == before


def test_replace_redoes_the_stage_and_what_follows_and_leaves_what_is_before_untouched(raw, out, tmp_path):
    before = stamps(out)
    strict = selecting(min_quality=0.6)
    outlook = curate(str(out), strict, HERE, replace=True)
    after = stamps(out)
    assert outlook.due["measure"] == outlook.due["quality"] == []
    assert len(outlook.due["select"]) == 5
    for stage, table in (("ingest", "images"), ("measure", "image_scores"), ("quality", "object_scores")):
        assert not rewritten(before, after, f"manifests/{stage}")
        assert not rewritten(before, after, table)
    assert len(rewritten(before, after, "manifests/select")) == 5
    assert rewritten(before, after, "manifests/compose")
    fresh = curatedata.copy(raw, tmp_path / "fresh")
    curate(str(fresh), strict, HERE)
    assert curatedata.contents(out) == curatedata.contents(fresh), "replacing is curating anew"


def test_replace_of_the_last_stage_touches_the_last_stage_only(out):
    before = stamps(out)
    curate(str(out), replace(SMALL, compose=replace(SMALL.compose, max_subjects=1)), HERE, replace=True)
    changed = {path.split("/")[0] for path in rewritten(before, stamps(out), "samples")}
    assert changed == {"samples"}
    for stage in DONE[:-1]:
        assert not rewritten(before, stamps(out), f"manifests/{stage}")
    subjects = Dataset(str(out)).read("samples", ["subjects"])["subjects"]
    assert set(pc.list_value_length(subjects).to_pylist()) == {1}


def test_replace_with_the_same_settings_does_nothing(out):
    before = stamps(out)
    assert not any(curate(str(out), SMALL, HERE, replace=True).due.values())
    assert stamps(out) == before


def test_samples_are_written_again_only_for_units_whose_selection_changed(out):
    """The bound is put just above the worst kept object, so that one unit changes."""
    dataset = Dataset(str(out))
    selection = dataset.read("selection").to_pylist()
    kept = {row["object_id"] for row in selection if row["verdict"] == "keep"}
    scores = dataset.read("object_scores", ["object_id", "quality"]).to_pylist()
    worst, second = sorted((row["quality"], row["object_id"]) for row in scores if row["object_id"] in kept)[:2]
    assert worst[0] < second[0]
    selected = {unit: manifest.fingerprint for unit, manifest in dataset.manifests("select").items()}
    before = stamps(out)

    curate(str(out), selecting(min_quality=(worst[0] + second[0]) / 2), HERE, replace=True)
    now = Dataset(str(out))
    changed = {unit for unit, manifest in now.manifests("select").items() if manifest.fingerprint != selected[unit]}
    assert len(changed) == 1
    composed = {Path(path).stem for path in rewritten(before, stamps(out), "manifests/compose")}
    assert composed == changed
    written = rewritten(before, stamps(out), "samples")
    assert written
    assert all(any(unit in path for unit in changed) for path in written)
    assert verify(now).sound


def test_moving_a_threshold_decodes_nothing_and_loads_no_model(tmp_path_factory, tmp_path, monkeypatch):
    out = curatedata.copy(curatedata.curated(tmp_path_factory), tmp_path)
    dataset = Dataset(str(out))
    kept = dataset.counts("select")["object"].kept
    qualities = dataset.read("object_scores", ["quality"])["quality"]
    median = float(pc.approximate_median(qualities).as_py())

    def refuse(*_: Any) -> None:
        raise AssertionError("nothing may be looked at")

    monkeypatch.setattr("refloom.schemas.pictures.decode", refuse)
    monkeypatch.setattr("refloom.inference.models.entry.Entry.load", refuse)
    outlook = curate(str(out), Curation(select=Select(min_quality=median)), HERE, replace=True)
    assert next(stage for stage, units in outlook.due.items() if units) == "select"
    assert 0 < Dataset(str(out)).counts("select")["object"].kept < kept
    assert verify_samples(out)


def verify_samples(out: Path) -> bool:
    """Every appearance in a sample is of an object that is kept now."""
    dataset = Dataset(str(out))
    kept = {row["object_id"] for row in dataset.read("selection").to_pylist() if row["verdict"] == "keep"}
    subjects = (subject for row in dataset.read("samples", ["subjects"]).to_pylist() for subject in row["subjects"])
    shown = {one["object_id"] for subject in subjects for one in subject["appearances"]} - {None}
    return bool(shown) and shown <= kept


def without_columns(out: Path, table: str, columns: set[str], stage_version: int) -> None:
    """Make the units of a table look as an earlier version has written them."""
    for path in sorted((out / table).glob("*.parquet")):
        rows = pq.read_table(path)
        pq.write_table(rows.select([name for name in rows.schema.names if name not in columns]), path)
    for path in (out / "manifests" / tables.TABLES[table].stage).iterdir():
        path.write_text(json.dumps(json.loads(path.read_text()) | {"stage_version": stage_version}))


def test_a_dataset_written_before_a_column_existed_says_so_and_is_mended_by_replace(curated, tmp_path):
    out = curatedata.copy(curated, tmp_path)
    without_columns(out, "groups", {"units", "pose_change", "sharpness_ratio"}, 1)
    with pytest.raises(Refused, match=r"group was done with other settings \(stage_version: 1 -> 4\).*--replace"):
        curate(str(out), SMALL, HERE)
    groups = Dataset(str(out)).read("groups").to_pylist()
    assert {row["pose_change"] for row in groups} == {None}
    curate(str(out), SMALL, HERE, replace=True)
    assert curatedata.contents(out) == curatedata.contents(curated)


# -- stages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("until", "stages"), [("measure", DONE[:1]), ("select", DONE[:5]), ("compose", DONE)])
def test_until_goes_up_to_and_with_a_stage_and_the_rest_can_follow(raw, curated, tmp_path, until, stages):
    out = curatedata.copy(raw, tmp_path)
    curate(str(out), SMALL, HERE, until=until)
    assert done(out) == list(stages)
    curate(str(out), SMALL, HERE)
    assert curatedata.contents(out) == curatedata.contents(curated)


def test_only_does_one_stage_and_stage_by_stage_is_the_whole(raw, curated, tmp_path):
    out = curatedata.copy(raw, tmp_path)
    for number, stage in enumerate(DONE, 1):
        curate(str(out), SMALL, HERE, only=stage)
        assert done(out) == list(DONE[:number])
    assert curatedata.contents(out) == curatedata.contents(curated)


@pytest.mark.parametrize("option", ["only", "until"])
def test_an_unknown_stage_is_refused_with_the_known_ones(raw, option):
    with pytest.raises(
        Refused,
        match="tidy is no stage of curation; stages: measure, mask, face, embed, phrase, quality, dedup, select",
    ):
        curate(str(raw), SMALL, HERE, **{option: "tidy"})


def test_a_dataset_without_pictures_is_refused(tmp_path):
    Dataset(str(tmp_path / "data"), create=True)
    with pytest.raises(Refused, match="holds no pictures yet"):
        curate(str(tmp_path / "data"), SMALL, HERE)


def test_a_stage_without_a_model_is_left_out_and_what_it_would_say_is_null(curated, raw, tmp_path):
    outlook = curate(str(curatedata.copy(raw, tmp_path)), SMALL, HERE)
    assert outlook.without_model == ["face", "embed", "phrase"]
    assert set(outlook.models) == {"segmenter"}
    assert done(curated) == list(DONE)
    assert not (curated / "faces").exists()
    assert not (curated / "embeddings").exists()
    dataset = Dataset(str(curated))
    groups = dataset.read("groups").to_pylist()
    assert groups
    for group in groups:
        assert [group[f"{what}_similarity"] for what in ("min", "mean", "max")] == [None] * 3
        assert group["area_ratio"] is not None
    samples = dataset.read("samples", ["kind", "subjects", "scores"]).to_pylist()
    assert {sample["kind"] for sample in samples} == {"image", "video", "cross"}  # of the video's still
    for sample in samples:
        assert sample["scores"]["mip_s"] is None
        assert sample["scores"]["min_quality"] is not None
        for subject in sample["subjects"]:
            assert subject["similarity"] is None
            assert all(appearance["face"] is None for appearance in subject["appearances"])
            assert all(appearance["phrase_cosine"] is None for appearance in subject["appearances"])


def test_with_models_the_same_values_are_there(tmp_path_factory):
    dataset = Dataset(str(curatedata.curated(tmp_path_factory)))
    groups = dataset.read("groups").to_pylist()
    assert groups
    assert all(-1 <= group["min_similarity"] <= group["max_similarity"] <= 1 for group in groups)
    subjects = [subject for row in dataset.read("samples", ["subjects"]).to_pylist() for subject in row["subjects"]]
    several = [subject for subject in subjects if len(subject["appearances"]) > 1]
    assert several
    for subject in several:
        count = len(subject["appearances"])
        assert len(subject["similarity"]) == count * (count - 1) // 2


def test_a_stage_that_lacks_its_input_is_refused(raw, tmp_path):
    out = curatedata.copy(raw, tmp_path)
    with pytest.raises(Refused, match="quality"):
        curate(str(out), SMALL, HERE, only="select")


def test_manifests_name_settings_models_and_inputs(tmp_path_factory):
    """What a later run needs to tell whether a unit is current, and nothing of this run: no clock, host or path."""
    out = curatedata.curated(tmp_path_factory)
    roles = {"mask": {"segmenter"}, "face": {"face"}, "embed": {"image_embedding"}, "dedup": {"image_embedding"}}
    roles |= {"match": {"face", "image_embedding"}, "quality": {"classifier"}}
    for stage in curatedata.STAGES:
        for path in (out / "manifests" / stage).glob("*.json"):
            text = path.read_text()
            manifest = json.loads(text)
            assert set(manifest["models"]) == roles.get(stage, set())
            assert any(name.startswith(("images/", "objects/")) for name in manifest["inputs"])
            assert str(out) not in text


# -- again, later, killed, elsewhere -------------------------------------------------------------------------------


def test_a_finished_curation_that_is_run_again_does_no_work_and_writes_no_file(out):
    before, contents, runs = stamps(out), curatedata.contents(out), sorted(os.listdir(out / "runs"))
    outlook = curate(str(out), SMALL, HERE)
    assert not any(outlook.due.values())
    assert (stamps(out), curatedata.contents(out)) == (before, contents)
    assert sorted(os.listdir(out / "runs")) == runs, "no job was started"


def test_pictures_that_come_later_cost_their_own_work_only(tmp_path):
    out = tmp_path / "data"
    ingest(small(tmp_path), out)
    curate(str(out), SMALL, HERE)
    before = stamps(out)
    ingest(videos(tmp_path), out)
    outlook = curate(str(out), SMALL, HERE)
    new = ["ytvis.instances-00000", "ytvis.instances-00001"]
    own = [
        stage for stage in DONE if stage not in ("dedup", "match", "split", "balance")
    ]  # these look at the whole dataset
    assert {stage: outlook.due[stage] for stage in own} == dict.fromkeys(own, new)
    for top in ("manifests/measure", "manifests/compose", "samples"):
        assert all("ytvis" in path for path in rewritten(before, stamps(out), top)), top
    assert verify(Dataset(str(out))).sound


@curatedata.once
def many_curated(factory: pytest.TempPathFactory) -> Path:
    """Many small units, curated without a break."""
    out = curatedata.copy(curatedata.many_units(factory), factory.mktemp("many-curated"))
    curate(str(out), Curation(models=SMALL.models), HERE)
    return out


@pytest.mark.kills
@pytest.mark.parametrize("stage", ["split", "balance", "compose"])
def test_a_kill_in_any_phase_costs_nothing_that_is_committed(tmp_path_factory, tmp_path, stage):
    out, whole = curatedata.copy(curatedata.many_units(tmp_path_factory), tmp_path), many_curated(tmp_path_factory)
    killed(stage, 2, "curate", str(out), *curatedata.NO_MODELS)
    # a manifest that was being written when the kill came has a temporary name yet, and is swept away
    manifests = {path: stamp for path, stamp in stamps(out).items() if path.startswith("manifests/")}
    committed = {path: stamp for path, stamp in manifests.items() if path.endswith(".json")}
    assert f"manifests/{stage}" in {path.rsplit("/", 1)[0] for path in committed}
    curate(str(out), Curation(models=SMALL.models), HERE)
    again = {path for path in committed if stamps(out)[path] != committed[path]}
    own = {path for path in again if path.split("/")[1] not in ("split", "balance")}  # these look at all units at once
    assert not own
    assert curatedata.contents(out) == curatedata.contents(whole)


@pytest.mark.kills
def test_killed_with_real_models_and_finished_by_one_worker_gives_the_same_bytes(
    ray_session, tmp_path_factory, tmp_path
):
    out = curatedata.copy(curatedata.ingested(tmp_path_factory), tmp_path)
    killed("embed", 2, "curate", str(out))
    assert len(Dataset(str(out)).manifests("embed")) == 2
    curate(str(out), Curation(), Pool(workers=1))
    assert curatedata.contents(out) == curatedata.contents(curatedata.curated(tmp_path_factory))
    assert not list(out.rglob("*.partial"))


@pytest.mark.processes
def test_two_workers_with_real_models_write_the_bytes_of_none(ray_session, tmp_path_factory, tmp_path):
    out = curatedata.copy(curatedata.ingested(tmp_path_factory), tmp_path)
    curate(str(out), Curation(), Pool(workers=2))
    assert curatedata.contents(out) == curatedata.contents(curatedata.curated(tmp_path_factory))
