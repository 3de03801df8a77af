"""Merges: what several hold comes once, nothing that belongs together is on both sides, curation does the rest."""

import json
import shutil
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import run
from curatedata import contents, curated, once
from curating import LOOSE, coco, folders
from curating import curated as build
from helpers import HERE, image_ids, ingest, ledger
from killing import killed
from publishing import publishable

from refloom.curation.config import Curation
from refloom.curation.job import curate
from refloom.ingest.sources.folder import PlainPictures
from refloom.ingest.sources.subjects import Subjects
from refloom.schemas import labels
from refloom.schemas.dataset import STAGES, Dataset
from refloom.schemas.errors import Refused
from refloom.schemas.status import stage_state
from refloom.schemas.verify import verify
from refloom.sharing.datasets import making
from refloom.sharing.datasets import merge as merges
from refloom.sharing.datasets.merge import merge
from refloom.sharing.datasets.subset import subset
from refloom.sharing.publish.publication import publish
from refloom.sharing.publish.removal import remove
from refloom.training.data.index import Index

BOX = {"cat": (10, 10, 60, 60)}
HALVES = replace(LOOSE, split=replace(LOOSE.split, validation_share=0.5))
"""Half of the clusters are validation, so that few pictures are enough to have both sides."""


def merged(dest: Path | str, *parts: Any, **options: Any) -> Dataset:
    merge([getattr(one, "url", one) for one in parts], dest, workers=0, **options)
    return Dataset(str(dest))


def is_whole(dataset: Dataset) -> bool:
    found = verify(dataset.url, decode_per_unit=-1, derived=True)
    assert found.problems == []
    return found.sound


def states(dataset: Dataset) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for stage in STAGES:
        found[stage_state(dataset, stage)].append(stage)
    return found


def sides(dataset: Dataset) -> dict[str, str]:
    rows = dataset.read("splits", ["image_id", "split"]).to_pylist()
    return {row["image_id"]: row["split"] for row in rows}


@once
def worlds(factory: pytest.TempPathFactory) -> Path:
    """Three datasets made alike: eight COCO pictures; twelve others; the eight again, as files of a folder."""
    root = factory.mktemp("worlds")
    build(root / "a", coco(root / "a", [BOX] * 8, unit_size=4), config=HALVES)
    build(root / "b", coco(root / "b", [BOX] * 12, unit_size=4, first=101), config=HALVES)
    shutil.copytree(root / "a/val2017", root / "c/pictures")
    build(root / "c", PlainPictures(path=str(root / "c/pictures"), unit_size=4), config=HALVES)
    return root


@pytest.fixture
def a(tmp_path_factory) -> Dataset:
    return Dataset(str(worlds(tmp_path_factory) / "a/data"))


@pytest.fixture
def b(tmp_path_factory) -> Dataset:
    return Dataset(str(worlds(tmp_path_factory) / "b/data"))


@pytest.fixture
def c(tmp_path_factory) -> Dataset:
    return Dataset(str(worlds(tmp_path_factory) / "c/data"))


# -- what comes ------------------------------------------------------------------------------------------------------


def test_everything_comes_and_units_of_one_name_are_told_apart(a, b, tmp_path, capsys):
    assert set(a.units()) & set(b.units())
    answer = run(capsys, "merge", a.url, b.url, tmp_path / "out", "--workers", "0")
    assert answer.code == 0
    assert "are called anew: coco.instances_val2017-00000 -> data-2.coco.instances_val2017-00000" in answer.out
    whole = Dataset(str(tmp_path / "out"))
    assert sorted(image_ids(whole)) == sorted(image_ids(a) + image_ids(b))
    assert sorted(whole.units()) == sorted([*a.units(), *(f"data-2.{unit}" for unit in b.units())])
    keys = {manifest.key for manifest in whole.manifests("ingest").values()}
    assert keys == {"coco.instances_val2017", "data-2.coco.instances_val2017"}
    assert is_whole(whole)
    assert whole.read("samples", ["sample_id"]).num_rows == sum(
        one.read("samples", ["sample_id"]).num_rows for one in (a, b)
    )


def test_curation_does_exactly_what_looks_over_the_whole_dataset(a, b, tmp_path, capsys):
    told = run(capsys, "merge", a.url, b.url, tmp_path / "out", "--workers", "0").out
    whole = Dataset(str(tmp_path / "out"))
    assert states(whole)["stale"] == ["dedup", "match", "balance"]
    assert "dedup, match and balance out of date" in told
    assert "`refloom curate" in told
    with pytest.raises(Refused, match="out of date"):
        publish(whole, str(tmp_path / "published"))
    done = {stage: units for stage, units in curate(whole.url, HALVES, HERE).due.items() if units}
    assert set(done) == {"dedup", "match", "balance"}
    assert "stale" not in states(Dataset(whole.url))
    assert is_whole(Dataset(whole.url))


def test_a_merged_dataset_is_what_one_ingest_of_both_would_have_been(a, b, tmp_path):
    merged(tmp_path / "out", a, b)
    curate(str(tmp_path / "out"), HALVES, HERE)
    root = Path(a.url).parents[1]
    both = [
        coco(tmp_path / "one", [BOX] * 8, unit_size=4),
        coco(tmp_path / "two", [BOX] * 12, unit_size=4, first=101, name="b"),
    ]
    together = build(tmp_path / "both", *both, config=HALVES)
    assert root.is_dir()
    for table in ("objects", "object_scores", "selection", "splits", "samples"):
        found, wanted = (
            sorted(map(str, one.read(table).to_pylist())) for one in (Dataset(str(tmp_path / "out")), together)
        )
        assert found == wanted, table


def test_a_dataset_with_all_stages_merges_with_another(tmp_path_factory, tmp_path):
    whole = curated(tmp_path_factory)
    first = tmp_path / "first"
    subset(whole, first, where="images: startswith(image_id, 'coco/')", workers=0)
    subset(whole, tmp_path / "second", where="not images: startswith(image_id, 'coco/')", workers=0)
    both = merged(tmp_path / "out", str(first), str(tmp_path / "second"))
    assert sorted(image_ids(both)) == sorted(image_ids(Dataset(str(whole))))
    assert is_whole(both)
    curate(both.url, Curation(), HERE)
    after = Dataset(both.url)
    assert is_whole(after)
    for table in ("images", "faces", "embeddings", "object_scores"):
        assert after.read(table).num_rows == Dataset(str(whole)).read(table).num_rows
    assert "stale" not in states(after)


def test_what_several_hold_comes_once_from_the_first(a, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    ids = sorted(image_ids(a))
    subset(a, first, ids=ids[:5], workers=0)
    subset(a, second, ids=ids[3:], workers=0)
    both = merged(tmp_path / "out", str(first), str(second))
    assert sorted(image_ids(both)) == ids
    words = ledger(both)
    assert {key[1] for key, reason in words.items() if key[0] == "image" and reason == "duplicate"} == set(ids[3:5])
    assert is_whole(both)
    curate(both.url, HALVES, HERE)
    assert is_whole(Dataset(both.url))
    assert sorted(Dataset(both.url).read("samples")["sample_id"].to_pylist()) == sorted(
        a.read("samples")["sample_id"].to_pylist()
    )


def test_the_very_same_unit_comes_once(a, b, tmp_path):
    both = merged(tmp_path / "ab", a, b)
    again = merged(tmp_path / "out", both, a)
    assert sorted(image_ids(again)) == sorted(image_ids(both))
    assert sorted(again.units()) == sorted(both.units())
    assert is_whole(again)


def test_judgements_come_along_and_the_later_one_holds(a, b, tmp_path):
    for name, one in (("a", a), ("b", b)):
        shutil.copytree(one.url, tmp_path / name)
    objects = a.read("objects", ["object_id"])["object_id"].to_pylist()
    labels.save(str(tmp_path / "a"), labels.Label(objects[0], 1, time="2026-01-01T00:00:00Z"), a.units()[0])
    shutil.copytree(tmp_path / "a", tmp_path / "c")
    labels.save(str(tmp_path / "c"), labels.Label(objects[0], 3, time="2026-02-01T00:00:00Z"), a.units()[0])
    both = merged(tmp_path / "out", str(tmp_path / "c"), str(tmp_path / "a"), str(tmp_path / "b"))
    assert {name: one.score for name, one in labels.read(both).items()} == {objects[0]: 3}


# -- what is refused -------------------------------------------------------------------------------------------------


def test_other_settings_are_refused_naming_stage_setting_and_both_values(a, b, tmp_path):
    shutil.copytree(b.url, tmp_path / "b")
    other = replace(HALVES, select=replace(HALVES.select, min_quality=0.25))
    curate(str(tmp_path / "b"), other, HERE, replace=True)
    with pytest.raises(Refused) as refusal:
        merge([a.url, tmp_path / "b"], tmp_path / "out", workers=0)
    said = str(refusal.value)
    assert f"select: select.min_quality is 0.0 in {a.url} and 0.25 in {tmp_path / 'b'}" in said
    assert "refloom curate" in said
    assert not (tmp_path / "out").exists()


def test_other_bytes_or_annotations_of_one_id_are_refused_naming_it(a, tmp_path):
    bytes_ = build(tmp_path / "bytes", coco(tmp_path / "bytes", [BOX] * 8, size=(98, 80), unit_size=4), config=HALVES)
    with pytest.raises(Refused, match="the picture coco/000000000001 has other bytes in"):
        merge([a.url, bytes_.url], tmp_path / "out", workers=0)
    scenes = [BOX, {"cat": (11, 10, 60, 60)}, *[BOX] * 6]
    boxes = build(tmp_path / "boxes", coco(tmp_path / "boxes", scenes, unit_size=4), config=HALVES)
    with pytest.raises(Refused, match="the picture coco/000000000002 has other annotations in"):
        merge([a.url, boxes.url], tmp_path / "out", workers=0)
    assert not (tmp_path / "out").exists()


def test_a_torn_video_and_a_torn_group_are_refused_naming_them(tmp_path_factory, tmp_path):
    whole = Dataset(str(publishable(tmp_path_factory)))
    frames = sorted(name for name in image_ids(whole) if name.startswith("ytvis/v1/"))
    subset(whole, tmp_path / "one", ids=frames[:3], workers=0)
    subset(whole, tmp_path / "two", ids=frames[3:], workers=0)
    with pytest.raises(Refused, match="the video ytvis/v1 has other frames in"):
        merge([tmp_path / "one", tmp_path / "two"], tmp_path / "out", workers=0)
    toys = build(tmp_path / "toys", Subjects(directory=str(folders(tmp_path / "toys/in", {"cup": 4}))))
    names = sorted(image_ids(toys))
    subset(toys, tmp_path / "three", ids=names[:2], workers=0)
    subset(toys, tmp_path / "four", ids=names[2:], workers=0)
    with pytest.raises(Refused, match="the group subjects/cup has other members"):
        merge([tmp_path / "three", tmp_path / "four"], tmp_path / "out", workers=0)


@pytest.mark.parametrize("which", ["one", "same", "inside", "nowhere", "empty"])
def test_what_is_no_merge_is_refused(a, b, tmp_path, which):
    Dataset(str(tmp_path / "empty"), create=True)
    datasets = {
        "one": [a.url],
        "same": [a.url, a.url],
        "inside": [a.url, b.url],
        "nowhere": [a.url, tmp_path / "nothing"],
        "empty": [a.url, tmp_path / "empty"],
    }[which]
    dest = Path(a.url) / "inside" if which == "inside" else tmp_path / "out"
    with pytest.raises(Refused):
        merge(datasets, dest, workers=0)
    assert not dest.exists()


# -- sides -----------------------------------------------------------------------------------------------------------


def test_copies_that_were_on_both_sides_end_on_one_with_their_samples(a, c, tmp_path):
    """The same pictures under other ids: their clusters are called otherwise, so that many were on the other side."""
    before = {**sides(a), **sides(c)}
    digests = defaultdict(list)
    for one in (a, c):
        for row in one.read("images", ["image_id", "sha256"]).to_pylist():
            digests[row["sha256"]].append(row["image_id"])
    assert any(len({before[name] for name in names}) == 2 for names in digests.values())  # so that the test can fail
    both = merged(tmp_path / "out", a, c)
    now = sides(both)
    for names in digests.values():
        assert len(names) == 2
        assert len({now[name] for name in names}) == 1, names
    seen = set()
    for split in ("train", "validation"):
        files = [file for one in both.manifests("compose").values() for file in one.files_of(f"samples/{split}")]
        import pyarrow.parquet as pq

        for file in files:
            for row in pq.read_table(both.folder.at(file.path), columns=["sample_id", "pictures"]).to_pylist():
                seen.add(row["sample_id"])
                assert {now[one["image_id"]] for one in row["pictures"]} == {split}
    assert seen == {one for each in (a, c) for one in each.read("samples")["sample_id"].to_pylist()}
    assert is_whole(both)
    trained = {row.path for row in Index(both.url, "train").files}
    assert trained
    curate(both.url, HALVES, HERE)
    assert sides(Dataset(both.url)) == now


def test_clusters_that_nothing_joins_stay_where_they_were(a, b, tmp_path):
    assert sides(merged(tmp_path / "out", a, b)) == {**sides(a), **sides(b)}


def test_without_splits_everywhere_these_are_left_to_curation(a, tmp_path):
    bare = ingest(coco(tmp_path, [BOX] * 2, first=201), tmp_path / "bare")
    both = merged(tmp_path / "out", a, bare)
    assert states(both)["absent"][-4:] == ["split", "balance", "compose", "label"]
    assert is_whole(both)
    curate(both.url, HALVES, HERE)
    assert set(image_ids(both)) == set(sides(Dataset(both.url)))
    assert is_whole(Dataset(both.url))


# -- takedowns, links, lineage, resuming -----------------------------------------------------------------------------


def test_what_one_may_not_hold_the_merged_one_may_not(a, c, tmp_path):
    shutil.copytree(a.url, tmp_path / "a")
    remove(str(tmp_path / "a"), ["coco/000000000002"])
    both = merged(tmp_path / "out", str(tmp_path / "a"), c)
    assert "coco/000000000002" not in image_ids(both)
    assert "folder/000000000002.jpg" not in image_ids(both)  # the same bytes
    assert ledger(both)["image", "folder/000000000002.jpg", 0] == "taken_down"
    assert is_whole(both)
    remove(both.url, ["coco/000000000003"])
    assert is_whole(Dataset(both.url))


def test_links_of_both_lead_to_their_pictures_though_the_roots_are_called_alike(tmp_path):
    parts = []
    for name, first in (("a", 1), ("b", 101)):
        ingest(coco(tmp_path / name, [BOX] * 4, first=first), tmp_path / name / "data", link=True)
        curate(str(tmp_path / name / "data"), HALVES, HERE)
        parts.append(Dataset(str(tmp_path / name / "data")))
    assert parts[0].index["roots"].keys() == parts[1].index["roots"].keys()
    both = merged(tmp_path / "out", *parts)
    assert set(both.index["roots"].values()) == {*parts[0].index["roots"].values(), *parts[1].index["roots"].values()}
    for row in both.read("images").to_pylist():
        assert both.checked_picture(row)
    assert is_whole(both)


def test_dataset_json_and_card_say_what_it_was_made_of(a, b, tmp_path):
    both = merged(tmp_path / "out", a, b)
    lineage = both.index["lineage"]
    assert lineage["how"] == "merge"
    assert [one["dataset"] for one in lineage["sources"]] == [a.url, b.url]
    assert [one["tables"]["images"] for one in lineage["sources"]] == [a.fingerprint("images"), b.fingerprint("images")]
    assert lineage["asked"]["names"] == {"data-2.coco.instances_val2017": "coco.instances_val2017"}
    assert "Made by `refloom merge` of 2 datasets." in (tmp_path / "out/README.md").read_text()
    assert len(json.loads((tmp_path / "out/croissant.json").read_text())["isBasedOn"]) == 2


@pytest.mark.parametrize(("stage", "count"), [("ingest", 3), ("split", 2), ("compose", 4)])
def test_a_killed_one_resumes_to_the_same_bytes(a, c, tmp_path, stage, count):
    merged(tmp_path / "wanted", a, c)
    killed(stage, count, "merge", a.url, c.url, str(tmp_path / "out"))
    with pytest.raises(Refused, match="is not finished: run the `refloom merge`"):
        Dataset(str(tmp_path / "out"))
    merged(tmp_path / "out", a, c)
    assert contents(tmp_path / "out") == contents(tmp_path / "wanted")
    assert merge([a.url, c.url], tmp_path / "out", workers=0).was_there


@pytest.mark.parametrize("where", ["renew", "card"])
def test_one_that_is_stopped_while_it_ends_resumes_to_the_same_bytes(a, c, tmp_path, monkeypatch, where):
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    merged(tmp_path / "wanted", a, c)
    with monkeypatch.context() as patch:
        patch.setattr(making, "renew", stopped) if where == "renew" else patch.setattr(making.card, "write", stopped)
        with pytest.raises(KeyboardInterrupt):
            merge([a.url, c.url], tmp_path / "out", workers=0)
    with pytest.raises(Refused, match="is not finished"):
        Dataset(str(tmp_path / "out"))
    merged(tmp_path / "out", a, c)
    assert contents(tmp_path / "out") == contents(tmp_path / "wanted")


@pytest.mark.processes
def test_any_number_of_workers_writes_the_same_bytes(a, c, tmp_path, ray_session):
    merged(tmp_path / "one", a, c)
    merge([a.url, c.url], tmp_path / "two", workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_dry_run_says_it_all_and_writes_nothing(a, c, tmp_path, capsys):
    answer = run(capsys, "merge", a.url, c.url, tmp_path / "out", "--dry-run")
    assert answer.code == 0
    assert "changed sides" in answer.out
    assert not (tmp_path / "out").exists()
    found = merge([a.url, c.url], tmp_path / "out", dry_run=True)
    assert found.changed > 0
    assert "\n".join(merges.lines(found)) in answer.out


def test_on_a_store(a, b, tmp_path):
    place = f"memory://{tmp_path}"
    subset(a, f"{place}/a", workers=0)
    both = merged(f"{place}/out", f"{place}/a", b)
    assert sorted(image_ids(both)) == sorted(image_ids(a) + image_ids(b))
    assert is_whole(both)
