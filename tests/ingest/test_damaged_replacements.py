"""What waits to take the place of units, damaged or taken down: it is made again and never locks the dataset."""

import shutil
from pathlib import Path

import pytest
from curatedata import contents
from cutting import Cut, cut
from helpers import ingest, write_coco

from refloom.ingest.sources.coco import Coco
from refloom.schemas import exchange
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Damaged
from refloom.schemas.unit import settle_names
from refloom.schemas.verify import verify
from refloom.sharing.publish.removal import remove


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[tuple[Path, Path, Path], Path, Path]:
    """A source, a dataset whose replacement was cut off while units waited, and what it would have become."""
    root = tmp_path_factory.mktemp("made")
    tree = write_coco(root / "coco", 5)
    ingest(source(tree, 2), root / "data")
    with pytest.raises(Cut), cut(root / "data", 12):
        ingest(source(tree, 1), root / "data", replace=True)
    ingest(source(tree, 1), root / "fresh")
    return tree, root / "data", root / "fresh"


def source(tree: tuple[Path, Path, Path], unit_size: int) -> Coco:
    images, instances, captions = tree
    return Coco(images=str(images), instances=str(instances), captions=str(captions), unit_size=unit_size)


@pytest.fixture
def out(made, tmp_path) -> Path:
    return Path(shutil.copytree(made[1], tmp_path / "data"))


def waiting(out: Path) -> dict:
    return exchange.waiting(Dataset(str(out)).folder, "ingest")


@pytest.mark.parametrize("how", ["manifest", "gone", "cut"])
def test_a_damaged_unit_that_waits_is_made_again(made, out, how):
    name, manifest = next(iter(waiting(out).items()))
    path = out / (exchange.waiting_path("ingest", name) if how == "manifest" else manifest.files[0].path)
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(b"{")
    assert verify(Dataset(str(out))).sound
    ingest(source(made[0], 1), out, replace=True)
    assert contents(out) == contents(made[2])


@pytest.mark.parametrize("record", [b"{", b"7", b'{"coming": 1}', b"[" * 100_000])
def test_a_damaged_record_of_an_exchange_is_said_and_the_same_ingest_mends_it(made, out, record):
    (out / "manifests/ingest" / exchange.RECORD).write_bytes(record)
    with pytest.raises(Damaged, match="is not the record of an exchange"):
        Dataset(str(out)).units()
    assert not verify(Dataset(str(out), lenient=True)).sound
    ingest(source(made[0], 1), out, replace=True)
    assert contents(out) == contents(made[2])


def test_files_of_units_that_wait_are_no_strays_and_others_are(out):
    assert not [problem for problem in verify(Dataset(str(out)), derived=True).problems if "000b" in problem]
    shutil.copy(next((out / "images").glob("*.parquet")), out / "images/unit-nobody-000.parquet")
    assert any("unit-nobody" in problem for problem in verify(Dataset(str(out)), derived=True).problems)


def test_a_unit_whose_file_is_gone_keeps_its_names_until_it_is_made_again(made, out):
    dataset = Dataset(str(out))
    manifest = next(one for one in waiting(out).values() if any("000b" in file.path for file in one.files))
    (out / manifest.files[-1].path).unlink()
    assert settle_names(dataset.folder, manifest, "manifests/x.json") == manifest
    assert not (out / "manifests/x.json").exists()


def test_a_takedown_reaches_units_that_wait(made, out):
    assert waiting(out)
    gone = Dataset(str(out)).read("images", ["image_id"])["image_id"].to_pylist()[0]
    remove(str(out), [gone])
    assert not waiting(out)
    ingest(source(made[0], 1), out, replace=True)
    assert gone not in Dataset(str(out)).read("images", ["image_id"])["image_id"].to_pylist()
