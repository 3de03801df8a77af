"""Labels of objects: saved one by one under the lease, known to verify, status, mend, takedown and publish."""

import json
import shutil
from pathlib import Path

import pytest
from helpers import HERE
from publishing import ALL, CONFIG, publishable, rows

from refloom.curation.job import curate
from refloom.curation.mend import mend
from refloom.schemas import card, labels
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused
from refloom.schemas.labels import Label
from refloom.schemas.lease import Lease
from refloom.schemas.status import stage_state, status
from refloom.schemas.tables import FLAGS
from refloom.schemas.upkeep import collect_garbage, drop_orphans
from refloom.schemas.verify import verify
from refloom.sharing.publish.options import Publish
from refloom.sharing.publish.publication import publish
from refloom.sharing.publish.removal import remove


@pytest.fixture
def dataset(tmp_path_factory, tmp_path) -> Dataset:
    """Eight COCO pictures and two videos of its own, curated; nobody has judged."""
    shutil.copytree(publishable(tmp_path_factory), tmp_path / "data")
    return Dataset(str(tmp_path / "data"))


def objects(dataset: Dataset) -> list[tuple[str, str]]:
    """Ids of objects with their units."""
    found = []
    for unit in dataset.units():
        found += [(name, unit) for name in dataset.read("objects", ["object_id"], unit=unit)["object_id"].to_pylist()]
    return found


def judged(dataset: Dataset, count: int = 4) -> list[str]:
    """Save a few labels; the ids of their objects."""
    names = []
    for number, (name, unit) in enumerate(objects(dataset)[:count]):
        labels.save(dataset.url, Label(name, number % 4, ("blurred", "occluded")[: number % 3], "A. Lovelace"), unit)
        names.append(name)
    dataset.refresh()
    return names


def test_a_dataset_without_labels_has_none(dataset):
    assert labels.read(dataset) == {}
    assert stage_state(dataset, "label") == "absent"
    assert len(dataset.read("labels")) == 0


def test_what_was_said_is_read_again_and_the_last_word_counts(dataset):
    (name, unit), (other, place), *_ = objects(dataset)
    assert labels.save(dataset.url, Label(name, 1, ("dark", "occluded"), "ada"), unit) == 1
    assert labels.save(dataset.url, Label(other, 3), place) == 2
    assert labels.save(dataset.url, Label(name, 2, ("other",)), unit) == 2
    dataset.refresh()
    found = labels.read(dataset)
    assert (found[name].score, found[name].flags, found[name].labeller) == (2, ("other",), None)
    assert (found[other].score, found[other].flags) == (3, ())
    assert found[name].time is not None
    assert found[name].time.endswith("Z")
    assert labels.remove(dataset.url, name) == 1
    assert labels.remove(dataset.url, name) == 1
    dataset.refresh()
    assert set(labels.read(dataset)) == {other}


def test_flags_have_one_order_whatever_order_they_were_given_in(dataset):
    (name, unit), *_ = objects(dataset)
    labels.save(dataset.url, Label(name, 0, tuple(reversed(FLAGS))), unit)
    dataset.refresh()
    assert labels.read(dataset)[name].flags == FLAGS


@pytest.mark.parametrize(("score", "flags"), [(4, ()), (-1, ()), (True, ()), (1.0, ()), (1, ("ugly",))])
def test_what_cannot_be_said_is_no_label(score, flags):
    with pytest.raises(ValueError, match=r"score|flag"):
        Label("coco/1#1", score, flags)


def test_a_writer_is_waited_for_and_nothing_is_changed(dataset):
    (name, unit), *_ = objects(dataset)
    with Lease(dataset.folder), pytest.raises(Refused, match="is being written by process"):
        labels.save(dataset.url, Label(name, 3), unit)
    dataset.refresh()
    assert labels.read(dataset) == {}
    labels.save(dataset.url, Label(name, 3), unit)  # the lease was given back


def test_an_object_that_is_gone_cannot_be_judged(dataset):
    (name, unit), *_ = objects(dataset)
    with pytest.raises(Refused, match="no longer in the dataset"):
        labels.save(dataset.url, Label("coco/nobody#1", 3), unit)
    remove(dataset.url, [name.partition("#")[0]])
    with pytest.raises(Refused, match="no longer in the dataset"):
        labels.save(dataset.url, Label(name, 3), unit)


def test_verify_and_status_know_labels_and_curate_leaves_them(dataset):
    names = judged(dataset)
    card.renew(dataset, True)
    found = verify(dataset, decode_per_unit=0, derived=True)
    assert found.sound, found.problems
    assert found.checked["labels"] == len(names)
    said = status(dataset)
    assert said["tables"]["labels"]["rows"] == len(names)
    assert said["stages"]["label"] == {
        "state": "done",
        "items": {"object": {"input": 4, "kept": 4, "rejected": {}, "failed": {}}},
    }
    before = dataset.fingerprint("labels")
    plan = curate(dataset.url, CONFIG, HERE)
    assert not any(plan.due.values())
    dataset.refresh()
    assert dataset.fingerprint("labels") == before
    assert "| `labels` | 4 |" in dataset.folder.read("README.md").decode()


def test_a_curation_renews_what_is_derived_from_labels(dataset):
    judged(dataset)
    assert not verify(dataset, decode_per_unit=0, derived=True).sound
    curate(dataset.url, CONFIG, HERE)
    assert verify(Dataset(dataset.url), decode_per_unit=0, derived=True).sound


def test_labels_outlive_a_unit_that_ingest_no_longer_holds(dataset):
    names = judged(dataset)
    for unit in dataset.units():
        if any(name in names for name, place in objects(dataset) if place == unit):
            dataset.drop("ingest", unit)
    drop_orphans(dataset)
    collect_garbage(dataset)
    assert set(labels.read(Dataset(dataset.url))) == set(names)


def test_damaged_labels_are_found_and_nobody_claims_to_mend_them(dataset, tmp_path):
    judged(dataset)
    card.renew(dataset, True)
    (file,) = (tmp_path / "data/labels").iterdir()
    kept = file.read_bytes()
    file.write_bytes(kept[:-1] + b"\0")
    found = verify(dataset, decode_per_unit=0)
    assert any("labels/" in problem for problem in found.problems)
    assert any("from a copy" in remedy for remedy in found.remedies)
    assert not any("refloom mend" in remedy for remedy in found.remedies)
    _, after = mend(dataset.url, HERE)
    assert ("label", "labels") in after.damaged
    file.write_bytes(kept)
    assert verify(Dataset(dataset.url), decode_per_unit=0).sound


def test_a_manifest_that_says_what_cannot_be_said_is_found(dataset, tmp_path, monkeypatch):
    judged(dataset, 1)
    monkeypatch.setattr(labels, "SCORES", (7,))
    assert any("a score is" in problem for problem in verify(dataset, decode_per_unit=0).problems)


def test_labels_of_pictures_that_are_taken_down_go(dataset):
    names = judged(dataset, 6)
    gone = names[0].partition("#")[0]
    done = remove(dataset.url, [gone])
    left = [name for name in names if not name.startswith(f"{gone}#")]
    assert set(labels.read(Dataset(dataset.url))) == set(left)
    assert done.rows["labels dropped"] == len(names) - len(left) > 0
    found = verify(Dataset(dataset.url), decode_per_unit=0, derived=True)
    assert found.sound, found.problems


def test_labels_are_published_where_they_are_named_and_without_who_judged(dataset, tmp_path):
    names = judged(dataset)
    made = publish(dataset, str(tmp_path / "all"), ALL)
    assert "labels" not in made.manifest["rows"]
    assert not (tmp_path / "all/data/labels").exists()
    publish(dataset, str(tmp_path / "named"), Publish(tables=("samples", "labels")))
    found = rows(tmp_path / "named", "labels")
    assert {row["object_id"] for row in found} == set(names)
    assert {row["labeller"] for row in found} == {None}
    assert [row["score"] for row in sorted(found, key=lambda row: names.index(row["object_id"]))] == [0, 1, 2, 3]
    for file in Path(tmp_path / "named").rglob("*"):
        assert not file.is_file() or b"Lovelace" not in file.read_bytes()


def test_labels_that_nobody_made_cannot_be_published(dataset, tmp_path):
    with pytest.raises(Refused, match=r"no rows in labels: `refloom browse --label"):
        publish(dataset, str(tmp_path / "out"), Publish(tables=("labels", "all")))


def test_labels_load_as_other_tables_do(dataset):
    datasets = pytest.importorskip("datasets")
    judged(dataset)
    files = [str(path) for path in (Path(dataset.url) / "labels").iterdir()]
    loaded = datasets.Dataset.from_parquet(files, cache_dir=str(Path(dataset.url).parent / "cache"))
    assert loaded.features["score"].dtype == "int8"
    assert len(loaded) == 4
    assert json.loads(Dataset(dataset.url).folder.read("manifests/label/labels.json"))["stage"] == "label"
