"""Subsets: whole in every table, as current as their source, the same bytes however they are made."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import run
from curatedata import contents, curated
from helpers import HERE, image_ids, ledger
from killing import killed
from publishing import CONFIG, build, publishable

import refloom
from refloom.curation.config import Curation
from refloom.curation.job import curate
from refloom.schemas import copies, labels
from refloom.schemas.dataset import STAGES, Dataset
from refloom.schemas.errors import DamagedFile, Refused
from refloom.schemas.ids import image_of
from refloom.schemas.status import stage_state
from refloom.schemas.verify import verify
from refloom.sharing.datasets.choice import Choice, drawn
from refloom.sharing.datasets.subset import subset
from refloom.sharing.publish.removal import remove
from refloom.training.data.index import Index


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Eight COCO pictures and two videos, curated without models; no test changes it."""
    return publishable(tmp_path_factory)


def made(source: Path, dest: Path, **asked: Any) -> Dataset:
    subset(source, dest, workers=0, **asked)
    return Dataset(str(dest))


def is_whole(dataset: Dataset) -> bool:
    found = verify(dataset.url, decode_per_unit=-1, derived=True)
    assert found.problems == []
    return found.sound


def states(dataset: Dataset) -> dict[str, str]:
    return {stage: stage_state(dataset, stage) for stage in STAGES}


# -- what stays, and what is said of the rest ------------------------------------------------------------------------


def test_without_a_choice_all_files_are_the_same(source, tmp_path):
    copy = made(source, tmp_path / "out")
    before, after = contents(source), contents(tmp_path / "out")
    derived = {"dataset.json", "README.md", "croissant.json", "lineage.json"}
    assert {path: sha for path, sha in before.items() if path not in derived} == {
        path: sha for path, sha in after.items() if path not in derived
    }
    assert is_whole(copy)


def test_what_stays_behind_is_a_word_of_the_ledger_and_everything_adds_up(source, tmp_path):
    gone = "coco/000000000002"
    stay = [name for name in image_ids(Dataset(str(source))) if name != gone]
    part = made(source, tmp_path / "out", ids=stay)
    assert sorted(image_ids(part)) == sorted(stay)
    assert ledger(part)["image", gone, 0] == "left_out"
    assert ledger(part)["annotation", f"{gone}#20", 0] == "image_rejected"
    assert ledger(part)["caption", gone, 0] == "image_rejected"
    for stage in STAGES:
        for kind, counts in part.counts(stage).items():
            assert counts.balanced, (stage, kind)
    whole = Dataset(str(source)).counts("ingest")
    assert {kind: one.input for kind, one in part.counts("ingest").items()} == {
        kind: one.input for kind, one in whole.items()
    }
    assert is_whole(part)


def test_what_was_current_is_current_and_curation_has_nothing_to_do(source, tmp_path):
    part = made(source, tmp_path / "out", share=0.5)
    assert states(part) == states(Dataset(str(source)))
    assert not any(curate(part.url, CONFIG, HERE).due.values())


def test_what_was_out_of_date_stays_out_of_date(source, tmp_path):
    shutil.copytree(source, tmp_path / "data")
    config = replace(CONFIG, select=replace(CONFIG.select, min_area_share=0.05))
    curate(str(tmp_path / "data"), config, HERE, only="select", replace=True)
    before = states(Dataset(str(tmp_path / "data")))
    assert before["group"] == "stale"
    assert states(made(tmp_path / "data", tmp_path / "out", share=0.7)) == before


def test_faces_groups_and_copies_of_a_dataset_with_all_stages_come_along(tmp_path_factory, tmp_path):
    whole = curated(tmp_path_factory)
    part = made(whole, tmp_path / "out", where="groups")
    groups = Dataset(str(whole)).read("groups")["members"].to_pylist()
    members = {image_of(member) for group in groups for member in group}
    assert set(image_ids(part)) == members
    assert 0 < len(members) < len(image_ids(Dataset(str(whole))))
    assert is_whole(part)
    assert states(part) == states(Dataset(str(whole)))
    assert not any(curate(part.url, Curation(), HERE).due.values())
    assert Index(part.url).groups
    page = refloom.report(part.url)
    assert Path(page).is_file()


# -- choosing --------------------------------------------------------------------------------------------------------


def samples(dataset: Dataset) -> set[str]:
    return set(dataset.read("samples", ["sample_id"])["sample_id"].to_pylist())


def test_shares_are_nested_and_do_not_depend_on_what_else_is_there(source, tmp_path):
    found = [samples(made(source, tmp_path / str(share), share=share, seed=7)) for share in (0.3, 0.6, 1.0)]
    assert found[0] < found[1] < found[2] == samples(Dataset(str(source)))
    assert found[0] == {name for name in found[2] if drawn(name, 7) < 0.3}
    again = made(tmp_path / "0.6", tmp_path / "again", share=0.3, seed=7)
    assert samples(again) == found[0]
    assert samples(made(source, tmp_path / "other", share=0.3, seed=8)) != found[0]


def test_a_share_of_pictures_without_samples_keeps_videos_whole(tmp_path, source):
    bare = made(source, tmp_path / "bare")
    shutil.rmtree(tmp_path / "bare/manifests/compose")
    part = made(tmp_path / "bare", tmp_path / "out", share=0.5, seed=1)
    frames: dict[str, int] = {}
    for row in part.read("images", ["video_id"]).to_pylist():
        frames[row["video_id"]] = frames.get(row["video_id"], 0) + 1
    assert all(count == 6 for video, count in frames.items() if video is not None)
    assert 0 < part.read("images", ["image_id"]).num_rows < bare.read("images", ["image_id"]).num_rows


def test_samples_by_id_come_whole_with_their_pictures_and_nothing_else(source, tmp_path):
    wanted = next(name for name in sorted(samples(Dataset(str(source)))) if name.startswith("video/"))
    part = made(source, tmp_path / "out", ids=[wanted])
    (row,) = part.read("samples").to_pylist()
    (before,) = (one for one in Dataset(str(source)).read("samples").to_pylist() if one["sample_id"] == wanted)
    assert row == before
    assert sorted(image_ids(part)) == sorted(one["image_id"] for one in row["pictures"])
    assert is_whole(part)


def test_a_sample_that_loses_pictures_says_so(source, tmp_path):
    whole = Dataset(str(source))
    row = next(one for one in whole.read("samples").to_pylist() if one["kind"] == "video" and len(one["pictures"]) == 3)
    away = row["pictures"][0]["image_id"]
    part = made(source, tmp_path / "out", ids=[name for name in image_ids(whole) if name != away])
    (left,) = (one for one in part.read("samples").to_pylist() if one["sample_id"] == row["sample_id"])
    assert [one["image_id"] for one in left["pictures"]] == [one["image_id"] for one in row["pictures"][1:]]
    assert left["why"].endswith("1 of its pictures left out")
    assert is_whole(part)


@pytest.mark.parametrize(
    ("where", "test"),
    [
        ("images: startswith(image_id, 'coco/')", lambda name: name.startswith("coco/")),
        ("not images: startswith(image_id, 'coco/')", lambda name: not name.startswith("coco/")),
        ("samples: kind == 'image' and startswith(sample_id, 'image/coco')", lambda name: name.startswith("coco/")),
        ("not samples: kind == 'image'", lambda name: name.startswith("ytvis/")),
        ("objects: track_id is not None", lambda name: name.startswith("ytvis/")),
    ],
)
def test_conditions_choose_pictures_or_samples(source, tmp_path, where, test):
    part = made(source, tmp_path / "out", where=where)
    found = image_ids(part)
    assert found
    assert all(map(test, found))
    assert is_whole(part)


def test_several_conditions_and_a_split_must_all_hold(source, tmp_path):
    whole = Dataset(str(source))
    side = whole.read("splits", ["image_id", "split"]).to_pylist()
    wanted = {row["image_id"] for row in side if row["split"] == "train" and row["image_id"].startswith("coco/")}
    part = made(source, tmp_path / "out", where=["images: width > 1", "objects: track_id is None"], split="train")
    assert set(image_ids(part)) == wanted
    assert set(part.read("splits")["split"].to_pylist()) == {"train"}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"ids": "no-such-file.txt"}, "the list of ids no-such-file.txt cannot be read"),
        ({"ids": ["coco/nobody"]}, "holds no picture and no sample of the name of coco/nobody"),
        ({"where": "faces: det_score > 0.1"}, "has no faces yet"),
        ({"where": "images: width > 100000"}, "nothing is left"),
        ({"where": "images: widht > 1"}, "did you mean width?"),
        ({"share": 0.0}, "share"),
        ({"share": 1.5}, "share"),
        ({"seed": -1, "share": 0.5}, "seed"),
        ({"split": "test"}, "train or validation"),
        ({"tag": "v1"}, "has no tag v1"),
        ({"tag": "../.."}, "cannot be the name of a tag"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_made(source, tmp_path, asked, said):
    with pytest.raises(Refused) as refusal:
        subset(source, tmp_path / "out", workers=0, **asked)
    assert said in str(refusal.value)
    assert not (tmp_path / "out").exists()


def test_a_place_that_is_taken_or_inside_the_source_is_refused(source, tmp_path):
    with pytest.raises(Refused, match="lie in each other"):
        subset(source, source / "inside", workers=0)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").write_text("mine")
    with pytest.raises(Refused, match="no refloom dataset"):
        subset(source, tmp_path / "other", workers=0)
    made(source, tmp_path / "out", share=0.5)
    with pytest.raises(Refused, match="made otherwise"):
        subset(source, tmp_path / "out", share=0.6, workers=0)


# -- takedowns, links, judgements, lineage ---------------------------------------------------------------------------


def test_the_takedown_list_comes_along_and_is_obeyed(source, tmp_path):
    gone, later = "coco/000000000002", "coco/000000000003"
    shutil.copytree(source, tmp_path / "data")
    remove(str(tmp_path / "data"), [gone])
    part = made(tmp_path / "data", tmp_path / "out", where="images: startswith(image_id, 'coco/')")
    assert (tmp_path / "out/takedown.json").read_bytes() == (tmp_path / "data/takedown.json").read_bytes()
    assert ledger(part)["image", gone, 0] == "taken_down"
    # files of an older copy were put back: what is on the list stays out all the same
    shutil.copytree(source, tmp_path / "back")
    shutil.copy(tmp_path / "data/takedown.json", tmp_path / "back/takedown.json")
    again = made(tmp_path / "back", tmp_path / "again", where="images: startswith(image_id, 'coco/')")
    assert gone not in image_ids(again)
    assert ledger(again)["image", gone, 0] == "taken_down"
    remove(again.url, [later])
    assert later not in image_ids(Dataset(again.url))
    assert is_whole(Dataset(again.url))
    assert {(one["kind"], one["place"]) for one in copies.noted(Dataset(str(tmp_path / "back")).folder)} >= {
        ("subset", again.url)
    }


def test_links_of_a_linked_dataset_lead_to_the_same_pictures(tmp_path):
    linked = build(tmp_path, link=True)
    part = made(tmp_path / "data", tmp_path / "out", share=0.5)
    assert part.index["roots"] == linked.index["roots"]
    rows = part.read("images").to_pylist()
    assert all(row["image"] is None and part.checked_picture(row) for row in rows)
    assert is_whole(part)


def test_judgements_of_pictures_that_stay_come_along(source, tmp_path):
    shutil.copytree(source, tmp_path / "data")
    held = Dataset(str(tmp_path / "data"))
    unit = next(unit for unit in held.units() if unit.startswith("coco"))
    objects = held.read("objects", ["object_id"], unit=unit)["object_id"].to_pylist()
    for name in (objects[0], objects[-1]):
        labels.save(held.url, labels.Label(name, 3), unit)
    part = made(tmp_path / "data", tmp_path / "out", ids=[objects[0].split("#")[0]])
    assert set(labels.read(part)) == {objects[0]}
    assert is_whole(part)


def test_dataset_json_and_card_say_what_it_was_made_of_without_saying_where(source, tmp_path):
    condition = "images: license == 'CC BY 4.0' and not startswith(image_id, 'a`b|<b>')"
    part = made(source, tmp_path / "out", where=condition, share=0.9, seed=3)
    whole = Dataset(str(source))
    lineage = part.index["lineage"]
    assert lineage["how"] == "subset"
    assert lineage["asked"] == {"where": [condition], "share": 0.9, "seed": 3}
    assert lineage["sources"][0]["dataset"] == str(source)
    assert lineage["sources"][0]["tables"]["samples"] == whole.fingerprint("samples")
    for name in ("README.md", "croissant.json"):
        text = (tmp_path / "out" / name).read_text()
        assert "license ==" in text
        assert str(source) not in text
    readme = (tmp_path / "out/README.md").read_text()
    assert "a'b/<b>" in readme.partition("## Lineage")[2]  # inside a span of code that nothing in it can end
    based_on = json.loads((tmp_path / "out/croissant.json").read_text())["isBasedOn"]
    assert [one["name"] for one in based_on] == [source.name]
    second = made(tmp_path / "out", tmp_path / "second", share=0.5)
    assert second.index["lineage"]["sources"][0]["lineage"] == lineage


# -- resuming --------------------------------------------------------------------------------------------------------


def test_again_is_no_work_and_a_finished_one_is_recognised(source, tmp_path, capsys):
    words = ["subset", source, tmp_path / "out", "--share", "0.6", "--workers", "0"]
    assert run(capsys, *words, "--dry-run").code == 0
    assert not (tmp_path / "out").exists()
    first = run(capsys, *words)
    assert (first.code, f"made: {tmp_path / 'out'}" in first.out) == (0, True)
    before = contents(tmp_path / "out")
    again = run(capsys, *words)
    assert (again.code, "was complete already" in again.out) == (0, True)
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize(("stage", "count"), [("ingest", 2), ("select", 1), ("compose", 3)])
def test_a_killed_one_is_not_opened_by_anybody_and_resumes_to_the_same_bytes(source, tmp_path, stage, count):
    made(source, tmp_path / "wanted", share=0.6)
    killed(stage, count, "subset", str(source), str(tmp_path / "out"), "--share", "0.6")
    assert (tmp_path / "out/manifests/ingest").is_dir()
    for opening in (Dataset, Index):
        with pytest.raises(Refused, match="is not finished: run the `refloom subset`"):
            opening(str(tmp_path / "out"))
    with pytest.raises(Refused, match="unfinished dataset, made otherwise"):
        subset(source, tmp_path / "out", share=0.5, workers=0)
    made(source, tmp_path / "out", share=0.6)
    assert contents(tmp_path / "out") == contents(tmp_path / "wanted")


@pytest.mark.processes
def test_any_number_of_workers_writes_the_same_bytes(source, tmp_path, ray_session):
    made(source, tmp_path / "one", share=0.6)
    subset(source, tmp_path / "two", share=0.6, workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_damaged_file_of_the_source_is_named_and_nothing_is_finished(source, tmp_path):
    shutil.copytree(source, tmp_path / "data")
    file = max((tmp_path / "data/samples").rglob("*.parquet"), key=lambda one: one.stat().st_size)
    data = bytearray(file.read_bytes())
    data[data.index(b"\xff\xd8\xff") + 100] ^= 1  # inside a picture, which nothing reads before it is copied
    file.write_bytes(data)
    with pytest.raises(DamagedFile, match=file.name):
        subset(tmp_path / "data", tmp_path / "out", workers=0)
    with pytest.raises(Refused, match="not finished"):
        Dataset(str(tmp_path / "out"))


def test_on_a_store(source, tmp_path):
    place = f"memory://{tmp_path}/out"
    part = made(source, place, share=0.6)
    local = made(source, tmp_path / "out", share=0.6)
    assert {name: one["fingerprint"] for name, one in part.table_summary().items()} == {
        name: one["fingerprint"] for name, one in local.table_summary().items()
    }
    assert is_whole(part)
    back = made(place, tmp_path / "back")
    assert back.fingerprint("samples") == local.fingerprint("samples")


def test_a_choice_says_what_it_asks_for_without_lists_of_ids():
    asked = Choice(ids=("a", "b"), share=0.5, seed=2).to_json()
    assert asked == {"share": 0.5, "seed": 2, "ids": {"number": 2, "sha256": asked["ids"]["sha256"]}}
    assert Choice(ids=("b", "a")).to_json()["ids"] == asked["ids"]
    assert Choice().to_json() == {}
