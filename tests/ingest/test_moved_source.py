"""A source that moves after `ingest --link`: the place that was tried is said, and a command gives the new one."""

import json
import shutil

import pytest
from helpers import sa1b_members, write_coco, write_tar

from refloom.schemas.dataset import Dataset
from refloom.schemas.verify import verify


@pytest.fixture
def moved(tmp_path, call):
    """A linked dataset whose pictures have moved from `a` to `b`."""
    write_coco(tmp_path / "a", 6)
    assert call("ingest", *coco(tmp_path / "a"), "--out", tmp_path / "ds", "--link", "--workers", 0).code == 0
    (tmp_path / "a").rename(tmp_path / "b")
    return tmp_path / "ds"


def coco(tree) -> list[object]:
    return ["coco", "--images", tree / "val2017", "--instances", tree / "instances_val2017.json"]


def root(dataset) -> str:
    (url,) = json.loads((dataset / "dataset.json").read_text())["roots"].values()
    return url


def test_curate_status_verify_and_export_say_where_they_looked(moved, tmp_path, call):
    line = (
        f"linked pictures of coco.instances_val2017 were looked for below {tmp_path}/a/val2017, which is not there: "
        f"bring it back, or say where it is now by `refloom relink {moved} NEW_FOLDER --root coco.instances_val2017`"
    )
    for command in (["curate", moved, "--until", "measure", "--workers", 0], ["status", moved], ["verify", moved]):
        code, out, err = call(*command)
        assert line in out + err, command
        assert code == (0 if command[0] == "status" else 1)
    code, out, err = call("export", moved, tmp_path / "export", "--format", "coco")
    assert line in out + err
    assert code == 1


def test_the_command_that_is_printed_mends_it(moved, tmp_path, call):
    assert call("curate", moved, "--until", "measure", "--workers", 0).code == 1
    code, out, _ = call("relink", moved, tmp_path / "b/val2017", "--root", "coco.instances_val2017")
    assert code == 0
    assert "6 of its pictures" in out or "2 of its pictures" in out
    assert root(moved) == f"{tmp_path}/b/val2017"
    assert call("curate", moved, "--until", "measure", "--workers", 0, "--retry-failed").code == 0
    assert verify(Dataset(str(moved)), decode_per_unit=-1).sound
    assert call("curate", moved, "--until", "measure", "--workers", 0).code == 0


@pytest.mark.parametrize("option", [[], ["--retry-failed"], ["--replace"]])
def test_taking_it_in_from_the_new_place_takes_the_new_root(moved, tmp_path, call, option):
    arguments = ["ingest", *coco(tmp_path / "b"), "--out", moved, "--link", "--workers", 0, *option]
    code, out, _ = call(*arguments)
    assert code == 0
    assert "0 units done now, 1 were there already" in out
    assert root(moved) == f"{tmp_path}/b/val2017"
    assert verify(Dataset(str(moved)), decode_per_unit=-1).sound
    before = (moved / "dataset.json").stat().st_mtime_ns
    assert call(*arguments).code == 0
    assert (moved / "dataset.json").stat().st_mtime_ns == before


def test_a_root_that_was_given_anew_stays_through_later_ingests(moved, tmp_path, call):
    assert call("relink", moved, tmp_path / "b/val2017").code == 0
    write_tar(tmp_path / "sa_0.tar", sa1b_members([1, 2]))
    assert call("ingest", "sa1b", tmp_path / "sa_0.tar", "--out", moved, "--link", "--workers", 0).code == 0
    roots = json.loads((moved / "dataset.json").read_text())["roots"]
    assert roots == {"coco.instances_val2017": f"{tmp_path}/b/val2017", "sa1b.sa_0": str(tmp_path)}
    code, _, err = call("relink", moved, tmp_path)
    assert code == 2
    assert "2 roots of linked pictures (coco.instances_val2017, sa1b.sa_0): say which by --root" in err
    (tmp_path / "tars").mkdir()
    shutil.move(tmp_path / "sa_0.tar", tmp_path / "tars/sa_0.tar")
    assert call("relink", moved, tmp_path / "tars", "--root", "sa1b.sa_0").code == 0
    assert verify(Dataset(str(moved))).sound


def test_a_wrong_place_is_refused_and_changes_nothing(moved, tmp_path, call):
    before = (moved / "dataset.json").read_bytes()
    write_coco(tmp_path / "other", 6, size=(64, 50))
    for place, words in (
        (tmp_path / "b", f"{tmp_path}/b/000000000001.jpg is not there, where coco/000000000001 should lie"),
        (tmp_path / "gone", "is not there, where"),
        (tmp_path / "other/val2017", ", where coco/000000000001 should lie: give the folder that takes the place of"),
        (tmp_path / "b/instances_val2017.json", "is not there, where"),
    ):
        code, _, err = call("relink", moved, place)
        assert code == 2
        assert words in err
        assert err.count("\n") == 1
    code, _, err = call("relink", moved, tmp_path / "b", "--root", "nonsense")
    assert code == 2
    assert "has no root nonsense: its roots are coco.instances_val2017" in err
    assert (moved / "dataset.json").read_bytes() == before


def test_pictures_that_moved_inside_their_root_are_said_with_the_place_too(tmp_path, call):
    write_coco(tmp_path / "a", 3)
    ds = tmp_path / "ds"
    assert call("ingest", *coco(tmp_path / "a"), "--out", ds, "--link", "--workers", 0).code == 0
    (tmp_path / "a/val2017/inner").mkdir()
    for path in (tmp_path / "a/val2017").glob("*.jpg"):
        path.rename(path.parent / "inner" / path.name)
    code, out, _ = call("curate", ds, "--until", "measure", "--workers", 0)
    assert code == 1
    assert f"are looked for below {tmp_path}/a/val2017: if they lie elsewhere now, `refloom relink {ds} NEW" in out
    assert f"({tmp_path}/a/val2017)" in call("verify", ds).out
    assert call("relink", ds, tmp_path / "a/val2017/inner").code == 0
    assert call("curate", ds, "--until", "measure", "--workers", 0, "--retry-failed").code == 0


def test_a_dataset_without_links_has_nothing_to_give_anew(tmp_path, call):
    write_coco(tmp_path / "a", 2)
    assert call("ingest", *coco(tmp_path / "a"), "--out", tmp_path / "ds", "--workers", 0).code == 0
    code, _, err = call("relink", tmp_path / "ds", tmp_path / "a")
    assert code == 2
    assert "nothing in it is linked" in err
