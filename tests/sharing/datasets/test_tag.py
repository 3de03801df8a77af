"""Tags: a state that nothing changes but a takedown, and that shares its bytes with the dataset."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import run
from curatedata import contents
from helpers import HERE, image_ids, ledger
from publishing import CONFIG, build, publishable

import refloom
from refloom.curation.job import curate
from refloom.schemas import copies, tags
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Damaged, Refused
from refloom.schemas.takedownlist import TakedownList
from refloom.schemas.upkeep import collect_garbage
from refloom.schemas.verify import verify
from refloom.sharing.datasets import diff as diffs
from refloom.sharing.datasets import tag as tagging
from refloom.sharing.datasets.diff import diff
from refloom.sharing.datasets.subset import subset
from refloom.sharing.datasets.tag import tag
from refloom.sharing.publish.options import Publish
from refloom.sharing.publish.publication import publish
from refloom.sharing.publish.removal import remove
from refloom.training.data.index import Index
from refloom.training.data.loader import Loader, Loading, Source
from refloom.training.views.base import Base

GONE = "coco/000000000002"
OTHER = replace(CONFIG, select=replace(CONFIG.select, min_area_share=0.08))
"""Settings under which fewer objects are kept."""


@pytest.fixture
def dataset(tmp_path_factory, tmp_path) -> Dataset:
    """Eight COCO pictures and two videos of its own, curated."""
    shutil.copytree(publishable(tmp_path_factory), tmp_path / "data")
    return Dataset(str(tmp_path / "data"))


def kept(dataset: Dataset, name: str) -> dict[str, str]:
    """Contents of a tag; `runs/` of the dataset is left out."""
    return contents(Path(dataset.url) / "tags" / name)


def test_a_tag_shares_its_files_and_outlives_what_is_made_anew(dataset, tmp_path):
    made = tag(dataset, "v1")
    samples = dataset.fingerprint("samples")
    assert made.tables["samples"]["fingerprint"] == samples
    for path in Path(dataset.url).glob("samples/*/*.parquet"):
        assert path.stat().st_nlink == 2
    before = kept(dataset, "v1")
    curate(dataset.url, OTHER, HERE, replace=True)
    now = Dataset(dataset.url)
    collect_garbage(now)
    assert now.fingerprint("samples") != samples
    assert kept(dataset, "v1") == before
    old = Dataset(dataset.url, tag="v1")
    assert old.fingerprint("samples") == samples
    assert verify(old, decode_per_unit=-1, derived=True).problems == []
    assert verify(now.url, derived=True).problems == []


def test_readers_of_the_dataset_do_not_see_tags(dataset, tmp_path):
    import datasets

    before = contents(Path(dataset.url))
    rows = dataset.read("samples", ["sample_id"]).num_rows
    tag(dataset, "v1")
    tag(dataset, "v2")
    untagged = {path: sha for path, sha in contents(Path(dataset.url)).items() if not path.startswith("tags/")}
    assert untagged == before
    assert Dataset(dataset.url).read("samples", ["sample_id"]).num_rows == rows
    loaded = datasets.load_dataset(dataset.url, cache_dir=str(tmp_path / "cache"))
    assert sum(split.num_rows for split in loaded.values()) == rows
    publish(Dataset(dataset.url), str(tmp_path / "out"), Publish(accept_licenses=("none",)))
    assert not list((tmp_path / "out").rglob("*tag*"))


def test_a_takedown_reaches_tags_and_what_only_a_tag_holds(dataset, tmp_path):
    only_there = "coco/000000000005"
    tag(dataset, "v1")
    stay = [name for name in image_ids(dataset) if name != only_there]
    subset(dataset.url, tmp_path / "less", ids=stay, workers=0)
    shutil.move(tmp_path / "data/tags", tmp_path / "less/tags")  # a dataset that has lost a picture since its tag
    less = Dataset(str(tmp_path / "less"))
    done = remove(less.url, [GONE, only_there])
    assert done.tags == ["v1"]
    assert done.takedown.unknown == ()
    for held in (Dataset(less.url), Dataset(less.url, tag="v1")):
        assert not {GONE, only_there} & set(image_ids(held))
        assert set(TakedownList.load(held.folder).images) == {GONE, only_there}
        assert verify(held, decode_per_unit=-1, derived=True).problems == []
    assert ledger(Dataset(less.url, tag="v1"))["image", only_there, 0] == "taken_down"
    remaining = [path for path in (tmp_path / "less").rglob("*.parquet") if GONE.encode() in path.read_bytes()]
    assert all("ledger/ingest" in str(path) for path in remaining)


def test_a_takedown_says_what_it_would_do_to_tags_and_resumes(dataset, capsys, tmp_path):
    tag(dataset, "v1")
    (tmp_path / "list").write_text(f"{GONE}\n")
    foreseen = run(capsys, "takedown", dataset.url, tmp_path / "list", "--dry-run")
    assert "tag v1: would lose" in foreseen.out
    before = kept(dataset, "v1")
    with pytest.MonkeyPatch.context() as patch:
        from refloom.sharing.publish import removal

        def stopped(*_: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr(removal, "_remove_from_tag", stopped)
        with pytest.raises(KeyboardInterrupt):
            remove(dataset.url, [GONE])
    assert kept(dataset, "v1") == before
    with pytest.raises(Refused, match="stopped half way"):
        tag(dataset, "v2")
    answer = run(capsys, "takedown", dataset.url)
    assert (answer.code, "tag v1: lost" in answer.out) == (0, True)
    assert GONE not in image_ids(Dataset(dataset.url, tag="v1"))


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "now", "NOW", "-x", "a b", "a\n", "x" * 81, "é", ".hidden", "a\0"]
)
def test_a_name_that_is_no_folder_of_its_own_is_refused(dataset, name):
    with pytest.raises(Refused, match="cannot be the name of a tag"):
        tag(dataset, name)
    with pytest.raises(Refused, match="cannot be the name of a tag"):
        Dataset(dataset.url, tag=name)
    assert not (Path(dataset.url) / "tags").exists()


def test_tags_are_listed_deleted_and_asked_for_by_name(dataset, capsys):
    words = ["tag", dataset.url]
    assert run(capsys, *words, "--list").out == "no tags\n"
    assert run(capsys, *words, "v1").code == 0
    assert run(capsys, *words, "v1").code == 0, "the same state under the same name is there already"
    told = json.loads(run(capsys, *words, "--list", "--json").out)
    assert [one["name"] for one in told] == ["v1"]
    assert told[0]["tables"]["samples"]["fingerprint"] == dataset.fingerprint("samples")
    with pytest.raises(Refused, match="has no tag v2: its tags are v1"):
        Dataset(dataset.url, tag="v2")
    for nonsense in ([], ["v1", "--list"], ["--list", "--delete", "v1"]):
        assert run(capsys, *words, *nonsense).code == 2
    assert run(capsys, *words, "--delete", "v1").code == 0
    assert run(capsys, *words, "--delete", "v1").code == 2
    assert not (Path(dataset.url) / "tags/v1").exists()
    assert dataset.tags() == []


def test_a_tag_of_another_state_is_not_written_over(dataset):
    tag(dataset, "v1")
    before = kept(dataset, "v1")
    remove(dataset.url, [GONE])
    for name in ("v1", "V1"):
        with pytest.raises(Refused, match="of another state"):
            tag(Dataset(dataset.url), name)
    assert kept(dataset, "v1") != before  # by the takedown, which the record of the tag does not hide
    assert tags.read(dataset.folder, "v1").tables["images"]["rows"] == 20
    assert Dataset(dataset.url, tag="v1").table_summary()["images"]["rows"] == 19


@pytest.mark.parametrize("words", [["curate"], ["mend"], ["takedown"], ["tag", "x"], ["ingest"]])
def test_nobody_works_on_a_tag(dataset, words, capsys, tmp_path):
    tag(dataset, "v1")
    place, before = f"{dataset.url}/tags/v1", kept(dataset, "v1")
    arguments = {
        "curate": ["curate", place, "--workers", "0"],
        "mend": ["mend", place, "--workers", "0"],
        "takedown": ["takedown", place, tmp_path / "list"],
        "tag": ["tag", place, "x"],
        "ingest": ["ingest", "folder", tmp_path, "--out", place, "--workers", "0"],
    }[words[0]]
    (tmp_path / "list").write_text(GONE)
    if words == ["mend"]:
        (tmp_path / "data/tags/v1/README.md").write_text("something else")
        before = kept(dataset, "v1")
    answer = run(capsys, *arguments)
    assert answer.code == 2
    assert "is a tag, which stays as it is" in answer.err
    assert kept(dataset, "v1") == before


@pytest.mark.parametrize("then", ["tag", "takedown"])
def test_one_that_was_cut_off_is_none_and_is_garbage(dataset, then, monkeypatch):
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tagging, "_describe", stopped)
        with pytest.raises(KeyboardInterrupt):
            tag(dataset, "v1")
    assert list((Path(dataset.url) / "tags/v1").rglob("*.parquet"))
    assert Dataset(dataset.url).tags() == []
    with pytest.raises(Refused, match="has no tag v1"):
        Dataset(dataset.url, tag="v1")
    if then == "takedown":
        remove(dataset.url, [GONE])
        assert not (Path(dataset.url) / "tags/v1").exists()
        return
    tag(dataset.url, "v1")
    old = Dataset(dataset.url, tag="v1")
    assert old.table_summary() == Dataset(dataset.url).table_summary()
    assert verify(old, derived=True).problems == []


def test_a_dataset_with_a_file_that_is_gone_is_not_kept(dataset):
    next(
        (Path(dataset.url) / "masks").glob("*.parquet"), next((Path(dataset.url) / "images").glob("*.parquet"))
    ).unlink()
    with pytest.raises(Damaged, match="is gone"):
        tag(dataset, "v1")
    assert dataset.tags() == []


def test_verify_says_which_file_of_a_tag_is_gone(dataset):
    tag(dataset, "v1")
    (file,) = (Path(dataset.url) / "tags/v1/images").glob("unit-ytvis*")
    file.unlink()
    found = verify(dataset.url, derived=True)
    assert [one for one in found.problems if one.startswith("tags/v1: images/")]


def test_training_reads_a_tag_and_says_so(dataset):
    tag(dataset, "v1")
    before = Index(dataset.url, tag="v1")
    curate(dataset.url, OTHER, HERE, replace=True)
    after = Index(dataset.url)
    assert Index(dataset.url, tag="v1").fingerprint == before.fingerprint != after.fingerprint
    with pytest.raises(Refused, match="has no tag v2"):
        Index(dataset.url, tag="v2")
    sources = [Source(url=dataset.url, tag="v1"), Source(url=dataset.url)]
    loading = Loading(global_batch=2, buckets=((64, 64),), seed=1, threads=0)
    with Loader(sources, Base(flip=0.0, random_crop=False), loading) as loader:
        assert len(next(loader).examples) == 2
        assert [(one["dataset"], one["tag"], one["fingerprint"]) for one in loader.sources] == [
            (dataset.url, "v1", before.fingerprint),
            (dataset.url, None, after.fingerprint),
        ]
        assert loader.sources[0]["samples"] == tags.read(dataset.folder, "v1").tables["samples"]["fingerprint"]


def test_on_a_store(tmp_path_factory, tmp_path):
    place = f"memory://{tmp_path}/data"
    subset(publishable(tmp_path_factory), place, workers=0)
    tag(place, "v1")
    remove(place, [GONE])
    assert GONE not in image_ids(Dataset(place, tag="v1"))
    assert verify(Dataset(place, tag="v1"), derived=True).problems == []
    tag(place, "v1", delete=True)
    assert Dataset(place).tags() == []


def test_links_of_a_tag_follow_a_source_that_has_moved(tmp_path, capsys):
    linked = build(tmp_path, link=True)
    tag(linked, "v1")
    (tmp_path / "coco").rename(tmp_path / "moved")
    root = next(name for name in linked.index["roots"] if name.startswith("coco"))
    place = tmp_path / "moved/val2017"
    assert run(capsys, "relink", linked.url, place, "--root", root).code == 0
    for held in (Dataset(linked.url), Dataset(linked.url, tag="v1")):
        assert all(held.checked_picture(row) for row in held.read("images").to_pylist())
    assert verify(Dataset(linked.url, tag="v1"), derived=True).sound


# -- differences -----------------------------------------------------------------------------------------------------


def test_two_equal_states_do_not_differ(dataset, capsys):
    tag(dataset, "v1")
    found = diff(dataset, "v1", "now")
    assert not found
    assert run(capsys, "diff", dataset.url, "v1", "now").out.startswith("v1 and now hold the same rows")


def test_other_settings_are_named_with_what_they_changed(dataset, capsys):
    tag(dataset, "v1")
    before = {row["sample_id"] for row in dataset.read("samples", ["sample_id"]).to_pylist()}
    curate(dataset.url, OTHER, HERE, replace=True)
    after = {row["sample_id"] for row in Dataset(dataset.url).read("samples", ["sample_id"]).to_pylist()}
    found = refloom.diff(dataset.url, "v1", "now")
    assert found.stages["select"].settings == {"select.min_area_share: 0.02 -> 0.08": len(dataset.units())}
    samples = found.tables["samples"]
    assert samples.rows == (len(before), len(after))
    assert (samples.came, samples.went) == (len(after - before), len(before - after))
    assert set(samples.examples["went"]) <= before - after
    assert found.tables["selection"].changed > 0
    assert found.tables["selection"].came == found.tables["selection"].went == 0
    assert found.stages["compose"].inputs["selection"] > 0
    assert "images" not in found.tables
    assert "measure" not in found.stages
    backwards = diff(dataset.url, "now", "v1").tables["samples"]
    assert (backwards.came, backwards.went, backwards.changed) == (samples.went, samples.came, samples.changed)
    told = run(capsys, "diff", dataset.url, "v1", "now").out
    assert "setting select.min_area_share: 0.02 -> 0.08" in told
    assert json.loads(run(capsys, "diff", dataset.url, "v1", "now", "--json").out) == diffs.as_json(found)


def test_units_that_came_and_pictures_that_were_taken_down_are_told_apart(dataset, tmp_path):
    tag(dataset, "v1")
    remove(dataset.url, [GONE])  # from the tag, too: so compare with a copy that was made before
    assert not diff(dataset.url, "v1", "now").tables
    subset(build(tmp_path / "again").url, tmp_path / "whole", workers=0)
    shutil.rmtree(tmp_path / "data/tags/v1")
    shutil.copytree(tmp_path / "whole", tmp_path / "data/tags/v1")
    (tmp_path / "data/tags/v1/tag.json").write_bytes(tags.Tag("v1", {}).to_json())
    found = diff(dataset.url, "v1", "now")
    assert found.taken_down == 1
    assert found.tables["images"].examples["went"] == [GONE]
    assert len(found.stages["ingest"].taken_down) == 1
    assert "1 picture more on the list" in "\n".join(diffs.lines(found))


def test_states_that_are_not_there_are_refused(dataset):
    with pytest.raises(Refused, match="has no tag v1"):
        diff(dataset.url, "v1", "now")


def test_a_subset_of_a_tag_is_of_the_state_then_and_its_dataset_remembers_it(dataset, tmp_path):
    tag(dataset, "v1")
    curate(dataset.url, OTHER, HERE, replace=True)
    samples = Dataset(dataset.url, tag="v1").fingerprint("samples")
    for number, (place, options) in enumerate([(dataset.url, {"tag": "v1"}), (f"{dataset.url}/tags/v1", {})]):
        out = tmp_path / f"out{number}"
        subset(place, out, workers=0, **options)
        made = Dataset(str(out))
        assert made.fingerprint("samples") == samples
        (source,) = made.index["lineage"]["sources"]
        assert (source["dataset"], source["tag"]) == (dataset.url, "v1")
        assert {"kind": "subset", "place": str(out)} in copies.noted(dataset.folder)
    with pytest.raises(Refused, match="lie in each other"):
        subset(f"{dataset.url}/tags/v1", f"{dataset.url}/other", workers=0)


# -- what others wrote -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data", [b"", b"no json", b"[]", b"{}", b'{"version": 1, "name": 3, "tables": {}}', b"[" * 5000, b'{"version": 1}']
)
def test_records_that_are_none_are_refused_in_one_line(dataset, data, capsys):
    tag(dataset, "v1")
    (Path(dataset.url) / "tags/v1/tag.json").write_bytes(data)
    answer = run(capsys, "status", dataset.url)
    assert answer.code == 0, "the dataset itself can be read"
    answer = run(capsys, "tag", dataset.url, "--list")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "--delete v1" in answer.err
    found = verify(dataset.url, derived=True)
    assert [one for one in found.problems if "tags/v1/tag.json" in one]
    assert run(capsys, "tag", dataset.url, "--delete", "v1").code == 0
    assert verify(dataset.url, derived=True).sound
    (Path(dataset.url) / "lineage.json").write_bytes(data)
    answer = run(capsys, "verify", dataset.url)
    assert answer.code != 0
    assert "lineage.json" in answer.err + answer.out
    assert "Traceback" not in answer.err
