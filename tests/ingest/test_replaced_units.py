"""`ingest --replace` keeps the old units until the last of the new ones is whole, wherever it is cut off."""

import json
import shutil
from pathlib import Path

import pytest
from curatedata import contents
from cutting import Cut, cut, cuts
from helpers import HERE, image_ids, ingest, object_ids, write_coco
from killing import killed

from refloom.ingest import job
from refloom.ingest.sources.coco import Coco
from refloom.schemas import exchange
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import JobStopped, Refused
from refloom.schemas.verify import verify


def coco(tree: tuple[Path, Path, Path], **more: object) -> Coco:
    images, instances, captions = tree
    return Coco(images=str(images), instances=str(instances), captions=str(captions), **more)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_coco(tmp_path_factory.mktemp("tree") / "coco", 5)


@pytest.fixture(scope="module")
def old(tree, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("old") / "data"
    ingest(coco(tree, unit_size=2), out)
    return out


@pytest.fixture
def out(old, tmp_path) -> Path:
    return Path(shutil.copytree(old, tmp_path / "data"))


def rows(url: Path, table: str = "objects") -> list[dict[str, object]]:
    """In an order that the cut into units does not change."""
    return Dataset(str(url)).read(table).to_pylist()


def named(out: Path) -> dict[str, str]:
    """Contents without what nobody has to find there: files of a run that was cut off."""
    return {path: digest for path, digest in contents(out).items() if path.endswith((".parquet", ".json"))}


@pytest.mark.parametrize("unit_size", [1, 3])
def test_wherever_it_is_cut_off_there_is_one_whole_dataset_and_it_resumes(tree, old, tmp_path, unit_size):
    """Units of other pictures: one unit of the old and one of the new would hold some pictures twice or not at all."""
    fresh = tmp_path / "fresh"
    ingest(coco(tree, unit_size=unit_size), fresh)
    out = tmp_path / "data"

    def run() -> None:
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(old, out)
        ingest(coco(tree, unit_size=unit_size), out, replace=True)

    seen = set()
    for after, was_cut in cuts(out, run, 200, only_every=3):
        findings = verify(Dataset(str(out)))
        assert findings.sound, (after, findings.problems)
        assert image_ids(Dataset(str(out))) == image_ids(Dataset(str(old)))
        assert len(object_ids(Dataset(str(out)))) == 10
        units = Dataset(str(out)).units()
        seen.add(len(units))
        if was_cut:
            again = job.ingest(coco(tree, unit_size=unit_size), str(out), job.Options(replace=True), HERE)
            assert len(again.todo) + len(again.done) == len(Dataset(str(fresh)).units())
        assert contents(out) == contents(fresh)
    assert seen == {len(Dataset(str(place)).units()) for place in (old, fresh)}


def test_units_that_were_whole_when_it_was_killed_are_not_made_again(tree, old, out):
    before, (images, instances, captions) = named(out), tree
    source = ["--images", images, "--instances", instances, "--captions", captions, "--unit-size", 1]
    killed("ingest", 2, "ingest", "coco", *map(str, source), "--out", str(out), "--replace")
    assert {path: digest for path, digest in named(out).items() if path in before} == before
    assert verify(Dataset(str(out))).sound
    with pytest.raises(Refused, match="unit_size: 2 -> 1"):
        ingest(coco(tree, unit_size=1), out)
    done = job.ingest(coco(tree, unit_size=1), str(out), job.Options(replace=True), HERE)
    assert (len(done.todo), len(done.ready)) == (3, 2)


def test_a_replacement_that_fails_leaves_the_old_units(tree, out, monkeypatch):
    before = named(out)

    def failing(*_: object, **__: object) -> None:
        raise JobStopped("no space left")

    with monkeypatch.context() as patched:
        patched.setattr("refloom.ingest.worker._fill", failing)
        with pytest.raises(JobStopped):
            ingest(coco(tree, unit_size=3), out, replace=True)
    assert named(out) == before
    assert verify(Dataset(str(out))).sound


def test_what_an_abandoned_replacement_left_is_cleared_by_the_next_ingest(tree, old, out):
    with pytest.raises(Cut), cut(out, 12):
        ingest(coco(tree, unit_size=1), out, replace=True)
    assert exchange.waiting(Dataset(str(out)).folder, "ingest")
    ingest(coco(tree, unit_size=2), out)
    assert contents(out) == contents(old)


def test_waiting_units_of_other_settings_are_made_again(tree, out, tmp_path):
    with pytest.raises(Cut), cut(out, 12):
        ingest(coco(tree, unit_size=1), out, replace=True)
    ingest(coco(tree, unit_size=3), out, replace=True)
    ingest(coco(tree, unit_size=3), tmp_path / "fresh")
    assert contents(out) == contents(tmp_path / "fresh")


def test_a_source_that_shrank_drops_its_units_after_the_others_are_whole(tree, out, monkeypatch):
    before, (images, instances, captions) = named(out), tree
    fewer = Coco(images=str(images), instances=str(instances), captions=str(captions), unit_size=2, limit=2)
    with monkeypatch.context() as patched:
        patched.setattr(job.engine, "run", lambda *_, **__: (_ for _ in ()).throw(JobStopped("killed")))
        with pytest.raises(JobStopped):
            ingest(fewer, out, replace=True)
    assert named(out) == before
    ingest(fewer, out, replace=True)
    assert len(image_ids(Dataset(str(out)))) == 2
    assert verify(Dataset(str(out))).sound


def listing(tree: tuple[Path, Path, Path], *numbers: int) -> None:
    """Let the instances list these pictures only."""
    document = json.loads(tree[1].with_suffix(".whole").read_text())
    document["images"] = [one for one in document["images"] if one["id"] in numbers]
    document["annotations"] = [one for one in document["annotations"] if one["image_id"] in numbers]
    tree[1].write_text(json.dumps(document))


def test_ids_of_another_key_are_refused_also_where_a_unit_is_replaced(tmp_path):
    tree, out = write_coco(tmp_path / "coco", 2), tmp_path / "data"
    tree[1].rename(tree[1].with_suffix(".whole"))
    listing(tree, 1)
    ingest(coco(tree, name="one"), out)
    listing(tree, 2)
    ingest(coco(tree, name="two"), out)
    listing(tree, 1, 2)
    with pytest.raises(Refused, match=r"coco/000000000002 .*already held under the key two"):
        ingest(coco(tree, name="one"), out, replace=True)
    assert verify(Dataset(str(out))).sound
