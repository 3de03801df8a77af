"""`curate --replace` keeps every unit until the one that takes its place is whole, wherever it is cut off."""

import shutil
from dataclasses import replace
from pathlib import Path

import curatedata
import pytest
from curatedata import SMALL, small
from cutting import Cut, cut
from helpers import HERE, ingest

from refloom.curation.annotate.settings import Masking
from refloom.curation.job import curate
from refloom.curation.worker import CurateWorker
from refloom.ingest.sources.coco import Coco
from refloom.schemas.dataset import STAGES, Dataset
from refloom.schemas.errors import JobStopped
from refloom.schemas.verify import verify

STRICT = replace(SMALL, select=replace(SMALL.select, min_quality=0.5), mask=Masking(max_per_picture=3))


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("raw")
    ingest(small(root, 4), root / "data")
    return root / "data"


@pytest.fixture(scope="module")
def curated(raw, tmp_path_factory) -> Path:
    out = curatedata.copy(raw, tmp_path_factory.mktemp("curated"))
    curate(str(out), SMALL, HERE)
    return out


@pytest.fixture(scope="module")
def fresh(raw, tmp_path_factory) -> Path:
    out = curatedata.copy(raw, tmp_path_factory.mktemp("fresh"))
    curate(str(out), STRICT, HERE)
    return out


def units(url: Path) -> dict[str, list[str]]:
    dataset = Dataset(str(url))
    return {stage: list(dataset.manifests(stage)) for stage in STAGES}


@pytest.mark.parametrize("after", [2, 9, 16, 24, 32, 40])
def test_wherever_it_is_cut_off_every_unit_is_there_and_it_resumes(curated, fresh, tmp_path, after):
    out = Path(shutil.copytree(curated, tmp_path / "data"))
    with pytest.raises(Cut), cut(out, after):
        curate(str(out), STRICT, HERE, replace=True)
    findings = verify(Dataset(str(out)))
    assert findings.sound, findings.problems
    assert units(out) == units(curated)
    curate(str(out), STRICT, HERE, replace=True)
    assert curatedata.contents(out) == curatedata.contents(fresh)


def test_a_replacement_that_fails_leaves_the_old_units(curated, tmp_path, monkeypatch):
    out = Path(shutil.copytree(curated, tmp_path / "data"))
    before, write = curatedata.contents(out), CurateWorker._tabulate

    def failing(*arguments: object) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(
                "refloom.schemas.unit.UnitWriter._commit", lambda _: (_ for _ in ()).throw(JobStopped("full"))
            )
            write(*arguments)

    monkeypatch.setattr(CurateWorker, "_tabulate", failing)
    with pytest.raises(JobStopped):
        curate(str(out), replace(SMALL, select=STRICT.select), HERE, replace=True)
    assert curatedata.contents(out) == before


def test_what_is_of_units_before_is_told_until_curate_has_done_it_again(tmp_path):
    """Rows of a stage may name pictures that a later ingest has taken out: their unit is out of date, and counted."""
    source = small(tmp_path, 4)
    out = Path(ingest(source, tmp_path / "data").url)
    curate(str(out), SMALL, HERE, until="select")
    ingest(Coco(images=source.images, instances=source.instances, captions=source.captions, unit_size=3, limit=3),
           out, replace=True)  # fmt: skip
    findings = verify(Dataset(str(out)))
    assert findings.checked["units out of date"]
    assert any("kept, but the tables hold" in problem for problem in findings.problems)
    curate(str(out), SMALL, HERE, until="select")
    findings = verify(Dataset(str(out)))
    assert findings.sound, findings.problems
    assert not findings.checked["units out of date"]
