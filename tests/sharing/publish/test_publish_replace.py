"""`publish --replace` and `rehydrate --replace` keep the old publication until the new one is whole."""

import pytest

from refloom.schemas.errors import Refused
from refloom.sharing.publish.staging import MANIFEST, Workbench

OLD, NEW = {"dataset": "a"}, {"dataset": "b"}


def fill(bench, text):
    (bench.root / "data").mkdir(exist_ok=True)
    (bench.root / "data" / "one.parquet").write_text(text)
    bench.folder.write(MANIFEST, b'{"files": []}')


@pytest.fixture
def dest(tmp_path):
    bench = Workbench(str(tmp_path / "dest"), OLD)
    fill(bench, "old")
    bench.take_place()
    return tmp_path / "dest"


def held(dest):
    return {str(file.relative_to(dest)): file.read_bytes() for file in dest.rglob("*") if file.is_file()}


def test_the_old_publication_is_whole_until_the_new_one_takes_its_place(dest):
    before = held(dest)
    bench = Workbench(str(dest), NEW, replace=True)
    assert bench.complete is None
    fill(bench, "new")
    assert held(dest) == before
    bench.take_place()
    assert (dest / "data" / "one.parquet").read_text() == "new"
    assert Workbench(str(dest), NEW).complete is not None
    assert [one.name for one in dest.parent.iterdir()] == ["dest"]


def test_a_run_that_was_killed_goes_on_and_one_of_another_state_begins_anew(dest):
    before = held(dest)
    (Workbench(str(dest), NEW, replace=True).root / "begun").touch()
    assert held(dest) == before
    assert (Workbench(str(dest), NEW, replace=True).root / "begun").exists()
    assert not (Workbench(str(dest), {"dataset": "c"}, replace=True).root / "begun").exists()
    assert held(dest) == before


def test_without_replace_and_beside_the_files_of_others_nothing_is_begun(dest):
    with pytest.raises(Refused, match="or --replace"):
        Workbench(str(dest), NEW)
    (dest / "photos").mkdir()
    with pytest.raises(Refused, match="also holds photos"):
        Workbench(str(dest), NEW, replace=True)
    assert [one.name for one in dest.parent.iterdir()] == ["dest"]
